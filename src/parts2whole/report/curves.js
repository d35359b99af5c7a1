// Curves as SVG, with a cursor that reads off values, lines that can be hidden, and a log scale.
"use strict";

function niceTicks(low, high, count, least = 0) {
  const raw = Math.max((high - low) / count || 1, least);
  const power = 10 ** Math.floor(Math.log10(raw));
  const steps = [1, 2, 2.5, 5, 10].map((f) => f * power).filter((s) => !least || Number.isInteger(s));
  const step = steps.find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step || 0); // never -0
  return ticks;
}

function logTicks(low, high) {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (let f = 1; f < 10; f++) all.push([f, f * 10 ** e]);
  const inside = all.filter(([, tick]) => tick >= low * 0.999 && tick <= high * 1.001);
  for (const factors of [[1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5], [1, 2, 5], [1, 3]]) {
    const chosen = inside.filter(([f]) => factors.includes(f));
    if (chosen.length === 1) return niceTicks(low, high, 4);
    if (chosen.length && chosen.length <= 7) return chosen.map(([, tick]) => tick);
  }
  if (inside.length < 2) return niceTicks(low, high, 4); // less than from one number to the next
  return inside.filter(([f]) => f === 1).map(([, tick]) => tick);
}

// Numbers of an axis with as many digits as tell them apart.
function tickTexts(ticks, percent) {
  const shown = percent ? ticks.map((tick) => 100 * tick) : ticks;
  const fine = Math.min(...shown.slice(1).map((tick, i) => Math.abs(tick - shown[i])));
  const most = Math.max(...shown.map(Math.abs));
  const digits = fine > 0 && Number.isFinite(fine) ? Math.ceil(Math.log10(most / fine)) + 2 : 4;
  return shown.map((tick) => (percent ? String(Number(tick.toFixed(2))) : number(tick, false, Math.max(4, Math.min(12, digits)))));
}

class Chart {
  constructor(chart, place) {
    this.chart = chart;
    this.shown = new Set(chart.series.map((s) => s.name));
    const values = chart.series.flatMap((s) => s.points.map((p) => p[1]));
    this.two = chart.series.some((s) => s.right); // two axes, each with its own range
    this.positive = !this.two && values.every((v) => v > 0);
    this.log = this.positive && !chart.percent && Math.max(...values) / Math.min(...values) > 30;
    this.tip = make("div", { class: "tip", hidden: "" });
    this.holder = make("div");
    const heading = make("header", {}, make("h3", {}, chart.title), this.tools());
    place.append(make("div", { class: `chart${chart.wide ? " wide" : ""}` }, heading, this.holder, this.tip));
    new ResizeObserver(() => this.render()).observe(this.holder);
  }

  tools() {
    const tools = make("div", { class: "tools" });
    const kinds = new Map(this.chart.series.map((s) => [s.name, s])); // seeds share the name of their mean
    if (kinds.size > 1)
      for (const [name, series] of kinds) {
        const stroke = series.role === "baseline" ? "second" : STROKES[Math.floor(series.colour / 8) % 3];
        const key = make("span", { class: `key ${stroke}`, style: `color:${colour(series)}` });
        const button = make("button", { type: "button", "aria-pressed": "true" }, key, name);
        button.addEventListener("click", () => {
          const on = !this.shown.has(name);
          if (on) this.shown.add(name);
          else if (this.shown.size > 1) this.shown.delete(name);
          button.setAttribute("aria-pressed", String(this.shown.has(name)));
          this.render();
        });
        tools.append(button);
      }
    if (this.positive && !this.chart.percent) {
      const button = make("button", { type: "button", class: "scale", "aria-pressed": String(this.log) }, "log scale");
      button.addEventListener("click", () => {
        this.log = !this.log;
        button.setAttribute("aria-pressed", String(this.log));
        this.render();
      });
      tools.append(button);
    }
    return tools;
  }

  render() {
    const width = Math.round(this.holder.clientWidth);
    if (!width) return;
    const height = this.chart.wide ? Math.min(330, Math.max(230, width * 0.36)) : 230;
    const lines = this.chart.series.filter((s) => this.shown.has(s.name) && s.points.length);
    const names = new Set(lines.map((s) => s.name));
    const room = 14 + 7 * Math.max(...lines.map((s) => s.name.length));
    const few = names.size === lines.length && lines.length <= 6;
    const labelled = !this.two && this.chart.wide && few && width > 560 && room < 0.35 * width;
    const labels = labelled ? room : 8;
    const right = this.two ? 54 : labels;
    const edge = { left: 54, right, top: 12, bottom: 34 };
    const inner = { width: width - edge.left - edge.right, height: height - edge.top - edge.bottom };
    const points = lines.flatMap((s) => s.points);
    const xs = points.map((p) => p[0]);
    const first = Math.min(0, ...xs);
    const last = Math.max(...xs, first + 1);
    const x = (step) => edge.left + ((step - first) / (last - first)) * inner.width;
    const axes = [false, true].map((side) => this.axis(lines.filter((s) => s.right === side), edge.top, inner.height));
    const y = (v, series) => axes[Number(series.right)].y(v);

    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    svg.setAttribute("role", "img");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", `${this.chart.title}: ${lines.map((s) => s.name).join(", ")}`);
    axes.forEach((axis, side) => {
      const place = side ? { x: edge.left + inner.width + 8 } : { x: edge.left - 8, "text-anchor": "end" };
      const of = lines.find((s) => s.right === Boolean(side));
      const texts = tickTexts(axis.ticks, this.chart.percent);
      axis.ticks.forEach((tick, i) => {
        const at = axis.y(tick);
        if (!side) draw(svg, "line", { class: "grid", x1: edge.left, x2: edge.left + inner.width, y1: at, y2: at });
        draw(svg, "text", { ...place, y: at + 4, ...(this.two && { style: `fill:${colour(of)}` }) }, texts[i]);
      });
    });
    const bottom = edge.top + inner.height;
    draw(svg, "line", { class: "axis", x1: edge.left, x2: edge.left + inner.width, y1: bottom, y2: bottom });
    for (const tick of niceTicks(first, last, Math.max(2, Math.round(inner.width / 110)), 1))
      draw(svg, "text", { x: x(tick), y: bottom + 17, "text-anchor": "middle" }, tick.toLocaleString("en"));
    draw(svg, "text", { x: edge.left + inner.width, y: bottom + 32, "text-anchor": "end" }, "step");
    const unit = this.chart.value + (this.chart.percent ? ", %" : "");
    if (!this.two) draw(svg, "text", { x: edge.left, y: bottom + 32, "text-anchor": "start" }, unit);

    const group = draw(svg, "g", { class: lines.length > 6 && lines.every((s) => s.role !== "faint") ? "many" : "" });
    for (const series of [...lines].sort((a, b) => (a.role === "main") - (b.role === "main"))) {
      const from = series.role === "baseline" ? [[first, series.points[0][1]]] : [];
      const path = [...from, ...series.points].map((p) => `${x(p[0]).toFixed(1)},${y(p[1], series).toFixed(1)}`);
      draw(group, "path", { class: series.role, d: `M${path.join("L")}`, style: `stroke:${colour(series)}${series.role === "baseline" ? "" : dash(series.colour)}` });
      if (series.points.length === 1 || (series.role === "main" && series.points.length <= 12 && lines.length <= 6))
        for (const p of series.points)
          draw(group, "circle", { cx: x(p[0]), cy: y(p[1], series), r: 3, style: `fill:${colour(series)}` });
    }
    if (labelled) this.labels(svg, lines, edge.left + inner.width + 8, y, edge.top, bottom);
    const cursor = draw(svg, "g", { class: "hover" });
    this.watch(svg, cursor, lines, { x, y, first, last, edge, inner });
    this.holder.replaceChildren(svg);
  }

  axis(lines, top, height) {
    const values = lines.flatMap((s) => s.points.map((p) => p[1]));
    if (!values.length) return { ticks: [], y: () => top };
    let low = Math.min(...values);
    let high = Math.max(...values);
    if (this.log) {
      low /= 1.08;
      high *= 1.08;
    } else {
      if (low > 0 && !this.chart.percent && this.chart.from_zero) low = 0;
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      high = this.chart.percent ? Math.min(1, high + room) : high + room;
      if (low !== 0) low = this.chart.percent ? Math.max(0, low - room) : low - room;
    }
    const share = (v) => (this.log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low || 1));
    const ticks = this.log ? logTicks(low, high) : niceTicks(low, high, Math.max(3, Math.round(height / 48)));
    return { ticks, y: (v) => top + (1 - share(v)) * height };
  }

  labels(svg, lines, left, y, top, bottom) {
    const wanted = lines.map((s) => ({ s, at: y(s.points[s.points.length - 1][1], s) })).sort((a, b) => a.at - b.at);
    wanted.forEach((label, i) => {
      label.at = Math.max(label.at, top + 4, i ? wanted[i - 1].at + 15 : 0);
    });
    for (let i = wanted.length - 1; i >= 0; i--) // those that don't fit push up no more than they must
      wanted[i].at = Math.min(wanted[i].at, i === wanted.length - 1 ? bottom : wanted[i + 1].at - 15);
    for (const { s, at } of wanted)
      draw(svg, "text", { class: "label", x: left, y: at + 4, style: `fill:${colour(s)}` }, s.name);
  }

  watch(svg, cursor, all, { x, y, first, last, edge, inner }) {
    const bold = new Set(all.filter((s) => s.role === "main").map((s) => s.name));
    const lines = all.filter((s) => s.role !== "faint" || !bold.has(s.name)); // means stand for their seeds
    const leading = lines.filter((s) => s.role !== "faint");
    const steps = [...new Set((leading.length ? leading : lines).flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
    if (!steps.length) return;
    let at = -1;
    const leave = () => {
      cursor.replaceChildren();
      this.tip.hidden = true;
      at = -1;
    };
    const show = (index, height = null) => {
      at = Math.max(0, Math.min(steps.length - 1, index));
      const step = steps[at];
      cursor.replaceChildren();
      draw(cursor, "line", { class: "cursor", x1: x(step), x2: x(step), y1: edge.top, y2: edge.top + inner.height });
      this.tip.replaceChildren(make("b", {}, `step ${step.toLocaleString("en")}`));
      const there = lines
        .filter((s) => s.role === "baseline" || (s.points[0][0] <= step && step <= s.points[s.points.length - 1][0]))
        .map((series) => ({ series, point: series.points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)) }));
      const far = ({ series, point }) => (height === null ? 0 : Math.abs(y(point[1], series) - height));
      const read = new Set([...there].sort((a, b) => far(a) - far(b)).slice(0, 12)); // of many the nearest
      for (const one of there.filter((s) => read.has(s))) {
        const { series, point } = one;
        draw(cursor, "circle", { cx: x(point[0]), cy: y(point[1], series), r: 3.5, style: `fill:${colour(series)}` });
        const when = point[0] === step || series.role === "baseline" ? "" : ` (step ${point[0].toLocaleString("en")})`;
        const value = make("span", {}, number(point[1], this.chart.percent) + when);
        this.tip.append(make("div", {}, make("span", {}, series.name), value));
      }
      if (there.length > 12) this.tip.append(make("div", {}, `and ${there.length - 12} more`));
      this.tip.hidden = false;
      const room = svg.clientWidth - this.tip.offsetWidth - 4;
      const left = x(step) + 14 > room ? x(step) - this.tip.offsetWidth - 14 : x(step) + 14;
      const top = this.holder.offsetTop + edge.top;
      this.tip.style.transform = `translate(${Math.max(0, left)}px, ${top}px)`;
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const step = first + ((event.clientX - box.left - edge.left) / inner.width) * (last - first);
      let nearest = 0;
      steps.forEach((s, i) => {
        if (Math.abs(s - step) < Math.abs(steps[nearest] - step)) nearest = i;
      });
      show(nearest, event.clientY - box.top);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      show(at < 0 ? steps.length - 1 : at + move);
    });
  }
}

for (const chart of data.charts) new Chart(chart, document.querySelector(`.charts.${chart.group}`));
