// A study as SVG: every seed as a dot with lines between pairs, and curves over labels or steps with bands.
"use strict";

class StudyFigure {
  constructor(figure, place) {
    this.figure = figure;
    this.shown = new Set(Object.keys(figure.arms));
    this.holder = make("div");
    const heading = make("header", {}, make("h3", {}, figure.title), this.tools());
    place.append(make("div", { class: `chart${figure.wide ? " wide" : ""}` }, heading, this.holder));
    new ResizeObserver(() => this.render()).observe(this.holder);
  }

  tools() {
    const tools = make("div", { class: "tools" });
    for (const arm of this.shown) {
      const kind = `${this.figure.dots.length ? "dots" : ""} ${STROKES[Math.floor(this.figure.arms[arm] / 8) % 3]}`;
      const key = make("span", { class: `key ${kind}`, style: `color:${this.colour(arm)}` });
      const button = make("button", { type: "button", "aria-pressed": "true" }, key, arm);
      button.addEventListener("click", () => {
        if (!this.shown.has(arm)) this.shown.add(arm);
        else if (this.shown.size > 1) this.shown.delete(arm);
        button.setAttribute("aria-pressed", String(this.shown.has(arm)));
        this.render();
      });
      tools.append(button);
    }
    return tools;
  }

  colour(arm) {
    return `var(--c${this.figure.arms[arm] % 8})`;
  }

  // Of arms of one colour the second is hollow and the third square.
  mark(svg, arm, x, y) {
    const [paint, turn] = [this.colour(arm), Math.floor(this.figure.arms[arm] / 8) % 3];
    if (turn === 2) return draw(svg, "rect", { class: "dot", x: x - 3, y: y - 3, width: 6, height: 6, style: `fill:${paint}` });
    const style = turn ? `fill:none;stroke:${paint};stroke-width:1.5` : `fill:${paint}`;
    return draw(svg, "circle", { class: "dot", cx: x, cy: y, r: 3.5, style });
  }

  render() {
    const width = Math.round(this.holder.clientWidth);
    if (!width) return;
    const { figure } = this;
    const height = figure.wide ? 320 : 260;
    const edge = { left: 54, right: 10, top: 12, bottom: 38 };
    const inner = { width: width - edge.left - edge.right, height: height - edge.top - edge.bottom };
    const [lines, dots, means] = [figure.lines, figure.dots, figure.means].map((all) => all.filter((s) => this.shown.has(s.arm)));
    const values = [...lines.flatMap((s) => [...s.points, ...s.band]), ...dots.flatMap((s) => s.points)]
      .flatMap((p) => p.slice(1)).filter((v) => typeof v === "number");
    const room = (Math.max(...values) - Math.min(...values) || Math.abs(values[0]) || 1) * 0.07;
    let [low, high] = [Math.min(...values) - room, Math.max(...values) + room];
    if (figure.percent) [low, high] = [Math.max(0, low), Math.min(1, high)];
    const [first, last] = figure.range;
    const x = (v) => edge.left + ((v - first) / (last - first)) * inner.width;
    const y = (v) => edge.top + (1 - (v - low) / (high - low || 1)) * inner.height;

    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${figure.title}, ${figure.value}: ${[...this.shown].join(", ")}`);
    const ticks = niceTicks(low, high, Math.max(3, Math.round(inner.height / 48)));
    const texts = tickTexts(ticks, figure.percent);
    ticks.forEach((tick, i) => {
      draw(svg, "line", { class: "grid", x1: edge.left, x2: edge.left + inner.width, y1: y(tick), y2: y(tick) });
      draw(svg, "text", { x: edge.left - 8, y: y(tick) + 4, "text-anchor": "end" }, texts[i]);
    });
    const bottom = edge.top + inner.height;
    draw(svg, "line", { class: "axis", x1: edge.left, x2: edge.left + inner.width, y1: bottom, y2: bottom });
    let free = -Infinity; // names that would touch are left out
    for (const [at, text] of figure.ticks) {
      const half = 3.5 * text.length;
      draw(svg, "line", { class: "axis", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4 });
      if (x(at) - half < free) continue;
      free = x(at) + half + 6;
      draw(svg, "text", { x: x(at), y: bottom + 17, "text-anchor": "middle" }, text);
    }
    draw(svg, "text", { x: edge.left + inner.width, y: bottom + 34, "text-anchor": "end" }, figure.x);
    const unit = figure.value + (figure.percent ? ", %" : "");
    draw(svg, "text", { x: edge.left, y: bottom + 34, "text-anchor": "start" }, unit);

    const at = (p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`;
    for (const { arm, band } of lines)
      if (band.length > 1 && (this.shown.size <= 3 || figure.compared.includes(arm))) {
        const back = band.map(([a, , c]) => at([a, c])).reverse();
        draw(svg, "path", { class: "band", d: `M${[...band.map(at), ...back].join("L")}Z`, style: `fill:${this.colour(arm)}` });
      }
    const joined = figure.compared.every((arm) => this.shown.has(arm));
    for (const [a, b] of joined ? figure.pairs : [])
      draw(svg, "line", { class: "pair", x1: x(a[0]), y1: y(a[1]), x2: x(b[0]), y2: y(b[1]) });
    for (const { arm, points } of lines)
      draw(svg, "path", { class: "main", d: `M${points.map(at).join("L")}`, style: `stroke:${this.colour(arm)}${dash(figure.arms[arm])}` });
    const name = new Map(figure.ticks.map(([place, text]) => [place, `${text} ${figure.x}`]));
    for (const { arm, points } of [...lines, ...dots])
      for (const [a, v, seed] of points) {
        const dot = this.mark(svg, arm, x(a), y(v));
        draw(dot, "title", {}, `${arm}, ${seed ?? name.get(a)}: ${number(v, figure.percent)}`);
      }
    for (const { arm, points: [a, b] } of means)
      draw(svg, "line", { class: "mean", x1: x(a[0]), x2: x(b[0]), y1: y(a[1]), y2: y(b[1]), style: `stroke:${this.colour(arm)}` });
    this.holder.replaceChildren(svg);
  }
}

for (const figure of data.figures) new StudyFigure(figure, document.querySelector(".charts.study"));
