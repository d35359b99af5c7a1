// Parts as points, before and after training, with the part's middle slice under the pointer.
"use strict";

const STAGES = [["before", "Untrained"], ["after", "Trained"]];
const hue = (whole) => `hsl(${(whole * 137.508) % 360} var(--point-tone))`; // neighbouring numbers far apart

class Embedding {
  constructor(embeddings, place) {
    this.embeddings = embeddings;
    this.tools = make("div", { class: "bar-of-tools" });
    this.plots = make("div", { class: "plots" });
    this.numbers = make("div", { class: "scroll" });
    this.tip = make("div", { class: "tip part", hidden: "" });
    place.append(this.tools, this.plots, this.numbers, this.tip);
    this.place = place;
    this.open(0);
    new ResizeObserver(() => this.render()).observe(this.plots);
  }

  open(index) {
    this.now = this.embeddings[index];
    const names = Object.keys(this.now.points.after);
    if (!names.includes(this.projection)) this.projection = names[0];
    this.tools.replaceChildren();
    if (this.embeddings.length > 1) {
      const options = this.embeddings.map((e, i) => make("option", { value: i }, e.run));
      options[index].selected = true;
      const select = make("select", { "aria-label": "run" }, ...options);
      select.addEventListener("change", () => this.open(Number(select.value)));
      this.tools.append(select);
    }
    const group = make("div", { class: "tools choice", role: "group", "aria-label": "projection" });
    for (const name of names) {
      const button = make("button", { type: "button", class: "scale", "aria-pressed": String(name === this.projection) }, name);
      button.addEventListener("click", () => {
        this.projection = name;
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        this.render();
      });
      group.append(button);
    }
    this.tools.append(group);
    this.table();
    this.render();
  }

  table() {
    const th = (text, more = {}) => make("th", { scope: "col", class: text ? "number" : "", ...more }, text);
    const { kinds } = this.now;
    const over = make("tr", {}, th(""), th(""), ...kinds.map((kind) => th(kind, { colspan: "2", scope: "colgroup" })));
    const head = make("tr", {}, th(""), th("By chance"), ...kinds.flatMap(() => [th("Untrained"), th("Trained")]));
    const rows = this.now.numbers.map(([name, ...values]) =>
      make("tr", {}, make("td", {}, name), ...values.map((v) => make("td", { class: "number" }, v))));
    const about = `${this.now.whole.length} parts of ${this.now.names.length} wholes. Points and neighbours are by the ${this.now.features}. ` +
      "Axes of t-SNE and distances between its groups mean nothing; the numbers are of the full features.";
    this.numbers.replaceChildren(
      make("table", { class: "compact" }, make("thead", {}, over, head), make("tbody", {}, ...rows)),
      make("p", { class: "muted small" }, about));
  }

  render() {
    const width = Math.floor((this.plots.clientWidth - 32) / (this.plots.clientWidth > 620 ? 2 : 1));
    if (width < 40) return;
    this.dots = [];
    this.plots.replaceChildren(...STAGES.map(([stage, title]) => this.plot(stage, title, width)));
  }

  plot(stage, title, width) {
    const points = this.now.points[stage][this.projection];
    const height = Math.min(420, width);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${title}: ${this.projection} of ${points.length} parts`);
    const ranges = [0, 1].map((axis) => {
      const values = points.map((p) => p[axis]);
      const low = Math.min(...values);
      return [low, Math.max(...values) - low || 1];
    });
    const to = (p, axis, size) => 12 + ((p[axis] - ranges[axis][0]) / ranges[axis][1]) * (size - 24);
    points.forEach((p, i) => {
      const place = { cx: to(p, 0, width).toFixed(1), cy: (height - to(p, 1, height)).toFixed(1) };
      const dot = draw(svg, "circle", { ...place, r: 5, style: `fill:${hue(this.now.whole[i])}` });
      dot.dataset.part = i;
      dot.addEventListener("pointerenter", (event) => this.show(i, event));
      dot.addEventListener("pointerleave", () => this.hide());
      this.dots.push(dot);
    });
    return make("figure", {}, make("figcaption", {}, title), svg);
  }

  show(part, event) {
    const whole = this.now.whole[part];
    for (const dot of this.dots) {
      const other = Number(dot.dataset.part);
      dot.setAttribute("class", other === part ? "this" : this.now.whole[other] === whole ? "same" : "other");
    }
    const name = this.now.names[whole];
    const nearest = this.now.nearest[part].map((w, i) => {
      const label = w === whole ? "its own" : `${i + 1}.`;
      return make("figure", { class: w === whole ? "own" : "", title: this.now.names[w] }, this.thumb(this.now.wholes, w, 48), make("figcaption", {}, label));
    });
    this.tip.replaceChildren(
      make("b", {}, name),
      make("div", { class: "pair" },
        make("figure", {}, this.thumb(this.now.parts, part, 96), make("figcaption", {}, "this part")),
        make("figure", {}, this.thumb(this.now.wholes, whole, 96), make("figcaption", {}, "its whole"))),
      make("span", {}, "Nearest wholes, trained"),
      make("div", { class: "row" }, ...nearest));
    this.tip.hidden = false;
    const box = this.place.getBoundingClientRect();
    const dot = event.target.getBoundingClientRect();
    const right = dot.right - box.left + 12;
    const left = right + this.tip.offsetWidth > box.width ? dot.left - box.left - this.tip.offsetWidth - 12 : right;
    const top = Math.min(dot.top - box.top - 40, box.height - this.tip.offsetHeight);
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }

  hide() {
    for (const dot of this.dots) dot.removeAttribute("class");
    this.tip.hidden = true;
  }

  thumb(sheet, index, wide) {
    const canvas = make("canvas", { width: sheet.width, height: sheet.height });
    canvas.style.width = `${wide}px`;
    const image = new Image();
    image.onload = () => {
      const from = [(index % sheet.columns) * sheet.width, Math.floor(index / sheet.columns) * sheet.height];
      canvas.getContext("2d").drawImage(image, ...from, sheet.width, sheet.height, 0, 0, sheet.width, sheet.height);
    };
    image.src = sheet.src;
    return canvas;
  }
}

if (data.embeddings.length) new Embedding(data.embeddings, document.querySelector(".embedding"));
