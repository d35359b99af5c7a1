// Slices of part, reconstruction, whole and error in three planes, on canvas.
"use strict";

// Axes are (z, y, x): superior, posterior, left. Rows of a slice run downwards, superior at the top.

const PLANES = [
  { name: "axial", axis: 0, down: 1, across: 2, flip: false },
  { name: "coronal", axis: 1, down: 0, across: 2, flip: true },
  { name: "sagittal", axis: 2, down: 0, across: 1, flip: true },
];
const COLUMNS = ["Part", "Reconstruction", "Whole", "Absolute error"]; // the first may be called otherwise
const bytes = atob(data.errorColours);
const heat = Uint8Array.from(bytes, (c) => c.charCodeAt(0));

async function unpack(sample) {
  const image = new Image();
  image.src = sample.src;
  await image.decode();
  const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const [z, y, x] = sample.shape;
  const volumes = [0, 1, 2].map(() => new Uint8Array(z * y * x));
  for (let t = 0; t < 3 * z; t++) {
    const left = (t % sample.columns) * x;
    const top = Math.floor(t / sample.columns) * y;
    const volume = volumes[Math.floor(t / z)];
    const start = (t % z) * y * x;
    for (let r = 0; r < y; r++)
      for (let c = 0; c < x; c++) volume[start + r * x + c] = pixels[4 * ((top + r) * canvas.width + left + c)];
  }
  return volumes;
}

class Viewer {
  constructor(viewers, place) {
    this.viewers = viewers;
    this.strip = make("div", { class: "samples" });
    this.about = make("div", { class: "about" });
    this.planes = PLANES.map((plane) => this.plane(plane));
    this.ramps = make("div", { class: "ramps" });
    place.append(this.strip, this.about, ...this.planes.map((p) => p.row), this.ramps);
    this.open(0);
    new ResizeObserver(() => this.size()).observe(place);
  }

  plane(plane) {
    const id = `slice-${plane.name}`;
    const slider = make("input", { type: "range", min: 0, max: 0, step: 1, id });
    const output = make("output", { for: id });
    const tiles = COLUMNS.map((name, column) => {
      const canvas = make("canvas", { role: "img", "aria-label": `${name}, ${plane.name}` });
      const stage = make("div", { class: "stage" }, canvas);
      const marks = document.createElementNS(SVG, "svg");
      marks.setAttribute("preserveAspectRatio", "none");
      stage.append(marks);
      const caption = make("figcaption", {}, name);
      const tile = make("figure", { class: column ? "tile aimed" : "tile" }, caption, stage);
      if (column) this.aim(canvas, plane);
      return { tile, caption, canvas, marks };
    });
    slider.addEventListener("input", () => {
      this.at[plane.axis] = Number(slider.value);
      this.paint();
    });
    const label = make("label", { for: id }, plane.name[0].toUpperCase() + plane.name.slice(1));
    const row = make("div", { class: "plane" }, make("div", { class: "move" }, label, slider, output),
      make("div", { class: "tiles" }, ...tiles.map((t) => t.tile)));
    return { ...plane, row, slider, output, tiles };
  }

  aim(canvas, plane) {
    const go = (event) => {
      if (!this.volumes || !(event.buttons & 1)) return;
      const box = canvas.getBoundingClientRect();
      const place = (share, axis) =>
        Math.max(0, Math.min(this.shape[axis] - 1, Math.floor(share * this.shape[axis])));
      const down = (event.clientY - box.top) / box.height;
      this.at[plane.down] = place(plane.flip ? 1 - down : down, plane.down);
      this.at[plane.across] = place((event.clientX - box.left) / box.width, plane.across);
      this.paint();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener("pointermove", go);
  }

  open(index) {
    this.viewer = this.viewers[index];
    this.strip.replaceChildren();
    if (this.viewers.length > 1) {
      const options = this.viewers.map((v, i) => {
        const option = make("option", { value: i }, v.run);
        option.selected = i === index;
        return option;
      });
      const select = make("select", { "aria-label": "run" }, ...options);
      select.addEventListener("change", () => this.open(Number(select.value)));
      this.strip.append(select);
    }
    this.buttons = this.viewer.samples.map((sample, i) => {
      const canvas = make("canvas");
      const button = make("button", { type: "button", title: sample.name, "aria-label": sample.name }, canvas);
      button.addEventListener("click", () => this.choose(i));
      this.strip.append(button);
      this.load(sample).then((volumes) => this.thumbnail(canvas, sample, volumes[2]));
      return button;
    });
    if (this.viewer.samples.length < 2) this.buttons.forEach((b) => b.remove());
    this.legend();
    this.choose(this.viewer.first);
  }

  load(sample) {
    sample.loaded = sample.loaded || unpack(sample);
    return sample.loaded;
  }

  async choose(index) {
    const sample = this.viewer.samples[index];
    this.buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === index)));
    const volumes = await this.load(sample);
    this.sample = sample;
    this.volumes = volumes;
    this.shape = sample.shape;
    // Where the part was cut from is in the first slices that are shown.
    this.at = sample.shape.map((n, i) => Math.min(n - 1, Math.floor(sample.box ? (sample.box[i][0] + sample.box[i][1]) / 2 : n / 2)));
    for (const plane of this.planes) {
      plane.slider.max = this.shape[plane.axis] - 1;
      plane.tiles[0].caption.textContent = sample.seen;
      plane.tiles[0].canvas.setAttribute("aria-label", `${sample.seen}, ${plane.name}`);
      for (const { canvas, marks } of plane.tiles) {
        canvas.width = this.shape[plane.across];
        canvas.height = this.shape[plane.down];
        marks.setAttribute("viewBox", `0 0 ${canvas.width} ${canvas.height}`);
      }
    }
    const own = sample.loss === null ? "" : `error of this sample ${number(sample.loss, false)}`;
    const input = sample.seen === "Part" ? "its stretched part" : "what the network sees";
    const part = !sample.untouched ? "" : `, of ${input} ${number(sample.untouched, false)}`;
    const thin = sample.thinned > 1 ? `; one voxel in ${sample.thinned} along every axis, to fit the page` : "";
    this.about.replaceChildren(make("b", {}, sample.name), make("span", {}, own + part + (sample.rank && `; ${sample.rank}`) + thin));
    this.size();
    this.paint();
  }

  // One scale in mm for all planes, so that they can be compared.
  size() {
    if (!this.shape) return;
    const column = this.planes[0].tiles[0].tile.clientWidth;
    const mm = this.shape.map((n, i) => n * this.sample.spacing[i]);
    const wide = Math.max(...this.planes.map((p) => mm[p.across]));
    const high = Math.max(...this.planes.map((p) => mm[p.down]));
    const scale = Math.min(column / wide, 340 / high);
    for (const plane of this.planes)
      for (const { canvas } of plane.tiles) {
        canvas.style.width = `${Math.max(1, Math.round(mm[plane.across] * scale))}px`;
        canvas.style.aspectRatio = `${mm[plane.across]} / ${mm[plane.down]}`; // on paper it may be narrower
      }
  }

  paint() {
    for (const plane of this.planes) {
      plane.slider.value = this.at[plane.axis];
      plane.output.textContent = `slice ${this.at[plane.axis] + 1} of ${this.shape[plane.axis]}`;
      plane.tiles.forEach(({ canvas, marks }, column) => {
        this.slice(canvas, plane, column);
        this.mark(marks, plane, column);
      });
    }
  }

  slice(canvas, plane, column) {
    const [, y, x] = this.shape;
    const stride = [y * x, x, 1];
    const start = this.at[plane.axis] * stride[plane.axis];
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const [, reconstruction, whole] = this.volumes;
    const top = 255 * this.viewer.errorMax;
    for (let r = 0, p = 0; r < canvas.height; r++) {
      const row = start + (plane.flip ? canvas.height - 1 - r : r) * stride[plane.down];
      for (let c = 0; c < canvas.width; c++, p += 4) {
        const i = row + c * stride[plane.across];
        if (column < 3) image.data.fill(this.volumes[column][i], p, p + 3);
        else {
          const level = Math.min(255, Math.round((255 * Math.abs(reconstruction[i] - whole[i])) / top));
          image.data.set(heat.subarray(3 * level, 3 * level + 3), p);
        }
        image.data[p + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  }

  mark(marks, plane, column) {
    marks.replaceChildren();
    if (!column) return;
    const width = this.shape[plane.across];
    const height = this.shape[plane.down];
    const at = this.at[plane.down] + 0.5;
    const down = plane.flip ? height - at : at;
    const across = this.at[plane.across] + 0.5;
    draw(marks, "line", { x1: 0, x2: width, y1: down, y2: down });
    draw(marks, "line", { x1: across, x2: across, y1: 0, y2: height });
    const box = this.sample.box;
    if (!box || column !== 2) return;
    const [low, high] = box[plane.axis];
    if (this.at[plane.axis] + 1 <= low || this.at[plane.axis] >= high) return;
    const [top, bottom] = plane.flip ? box[plane.down].map((v) => height - v).reverse() : box[plane.down];
    const [left, right] = box[plane.across];
    draw(marks, "rect", { x: left, y: top, width: right - left, height: bottom - top });
  }

  legend() {
    const ramp = (paint) => {
      const canvas = make("canvas", { width: 256, height: 1 });
      const context = canvas.getContext("2d");
      const image = context.createImageData(256, 1);
      for (let i = 0; i < 256; i++) image.data.set([...paint(i), 255], 4 * i);
      context.putImageData(image, 0, 0);
      return canvas;
    };
    const top = number(this.viewer.errorMax, false);
    this.ramps.replaceChildren(
      make("div", {}, "grey 0", ramp((i) => [i, i, i]), "1"),
      make("div", {}, "error 0", ramp((i) => heat.subarray(3 * i, 3 * i + 3)), `${top} and above`),
    );
    if (this.viewer.samples.some((s) => s.box))
      this.ramps.append(make("div", {}, make("span", { class: "dash" }), "where the part was cut from"));
    if (this.viewer.left) this.ramps.append(make("div", {}, `${this.viewer.left} more samples left out to fit the page`));
  }

  thumbnail(canvas, sample, whole) {
    const [z, y, x] = sample.shape;
    canvas.width = x;
    canvas.height = y;
    canvas.style.aspectRatio = `${x * sample.spacing[2]} / ${y * sample.spacing[1]}`;
    const context = canvas.getContext("2d");
    const image = context.createImageData(x, y);
    const start = Math.floor(z / 2) * y * x;
    for (let i = 0; i < y * x; i++) {
      image.data.fill(whole[start + i], 4 * i, 4 * i + 3);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }
}

if (data.viewers.length) new Viewer(data.viewers, document.querySelector(".viewer"));
