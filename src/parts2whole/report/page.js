// What the scripts of the page share: its data, and making elements. No libraries, no network.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

const colour = (series) => `var(--c${series.role === "baseline" ? series.colour : series.colour % 8})`;

// Colours repeat after eight numbers, so lines of the next eight are dashed, and those after them dotted.
const STROKES = ["", "second", "third"];
const dash = (number) => ["", ";stroke-dasharray:8 5", ";stroke-dasharray:1 6"][Math.floor(number / 8) % 3];

function number(value, percent, digits = 4) {
  if (percent) return `${(100 * value).toFixed(1)} %`;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return Number(value.toPrecision(Math.max(3, digits - 1))).toExponential();
  return String(Number(value.toPrecision(digits)));
}
