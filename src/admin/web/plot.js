// A moving plot: lines, or areas on top of each other, over the last minutes.

import { make, say } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
/** Milliseconds that are shown. */
const WINDOW = 300_000;
const HEIGHT = 92;
/** Colours for series that are not known beforehand; the rest share the last. */
const COLOURS = 6;

function svg(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  return element;
}

/** The next round number. */
function ceiling(value, least) {
  if (value <= least) {
    return least;
  }
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Plot {
  /**
   * `series` is a list of {key, label} to begin with; others join as they come, where `grows` names them. `headline` makes the
   * large text of the values now, `format` the others. `least` is the lowest top of the scale.
   */
  constructor({ id, title, series = [], grows = null, stacked = false, format, headline, least = 1 }) {
    Object.assign(this, { title, grows, stacked, format, headline, least });
    this.series = [];
    this.points = [];
    this.marked = null;
    this.value = make("strong", { className: "value" }, "–");
    this.legend = make("ul", { className: "legend" });
    this.picture = svg("svg", { role: "img", tabindex: "0", height: HEIGHT, class: "plot" });
    this.grid = svg("g", { class: "grid" });
    this.shapes = svg("g");
    this.mark = svg("line", { class: "mark", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.picture.append(this.grid, this.shapes, this.mark);
    this.element = make("figure", { id, className: "card plot-card" },
      make("figcaption", {}, make("span", { className: "label" }, title), this.value), this.picture, this.legend);
    series.forEach(({ key, label }) => this.join(key, label));
    this.listen();
  }

  join(key, label) {
    const colour = Math.min(this.series.length, COLOURS);
    const shown = make("span", { className: "figure" });
    const item = make("li", {}, make("i", { className: `swatch c${colour}` }), make("span", {}, label), shown);
    const area = svg("path", { class: `area c${colour}` });
    const line = svg("path", { class: `line c${colour}` });
    this.shapes.append(area, line);
    this.legend.append(item);
    this.series.push({ key, label, shown, item, area, line });
  }

  listen() {
    new ResizeObserver(() => this.draw()).observe(this.element);
    const at = (x) => {
      const width = this.picture.clientWidth || 1;
      const time = this.now - WINDOW + (x / width) * WINDOW;
      const near = (best, point) => (Math.abs(point.time - time) < Math.abs(best.time - time) ? point : best);
      this.marked = this.points.length > 0 ? this.points.reduce(near).time : null;
      this.draw();
    };
    const leave = () => {
      this.marked = null;
      this.draw();
    };
    this.picture.addEventListener("pointermove", (event) => at(event.offsetX));
    this.picture.addEventListener("pointerleave", leave);
    this.picture.addEventListener("blur", leave);
    this.picture.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") {
        leave();
      } else if (step && this.points.length > 0) {
        event.preventDefault();
        const last = this.points.length - 1;
        const from = this.marked === null ? last : this.points.findIndex((point) => point.time === this.marked);
        this.marked = this.points[Math.min(last, Math.max(0, from + step))].time;
        this.draw();
      }
    });
  }

  /** Adds the values of one moment, by key. */
  add(time, values) {
    if (this.grows) {
      for (const [key, value] of Object.entries(values)) {
        if (value > 0 && !this.series.some((series) => series.key === key)) {
          this.join(key, this.grows(key));
        }
      }
    }
    this.points.push({ time, values });
    while (this.points[0].time < time - WINDOW - 5000) {
      this.points.shift();
    }
    this.now = time;
    this.draw();
  }

  /** Forgets everything, where it cannot be told how it went on. */
  interrupt(time) {
    if (this.points.length > 0) {
      this.points.push({ time, values: null });
      this.now = time;
    }
  }

  draw() {
    const width = this.picture.clientWidth;
    const last = this.points.at(-1);
    if (!last || !width) {
      return;
    }
    const { points, series } = this;
    const of = (point, one) => point.values?.[one.key] ?? 0;
    const sum = (point) => series.reduce((total, one) => total + of(point, one), 0);
    const top = (point) => (this.stacked ? sum(point) : Math.max(0, ...series.map((one) => of(point, one))));
    const highest = ceiling(Math.max(...points.map(top)), this.least);
    const x = (point) => (width * (1 - (this.now - point.time) / WINDOW)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (value / highest) * (HEIGHT - 14)).toFixed(1);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.rule(width, highest, y);

    const below = new Map();
    for (const one of series) {
      let line = "";
      let area = "";
      let run = [];
      const finish = () => {
        if (run.length > 0) {
          line += `M${run.map(({ x, high }) => `${x} ${high}`).join("L")}`;
          const back = [...run].reverse().map(({ x, low }) => `${x} ${low}`);
          area += `M${run.map(({ x, high }) => `${x} ${high}`).join("L")}L${back.join("L")}Z`;
        }
        run = [];
      };
      for (const point of points) {
        if (point.values === null) {
          finish();
          continue;
        }
        const low = this.stacked ? below.get(point) ?? 0 : 0;
        const high = low + of(point, one);
        below.set(point, high);
        run.push({ x: x(point), low: y(low), high: y(high) });
      }
      finish();
      one.line.setAttribute("d", line);
      one.area.setAttribute("d", area);
    }
    this.tell(x, sum);
  }

  rule(width, highest, y) {
    this.grid.replaceChildren();
    for (const part of [0, 0.5, 1]) {
      const at = y(highest * part);
      this.grid.append(svg("line", { x1: 0, x2: width, y1: at, y2: at }));
    }
    const text = svg("text", { x: 2, y: Number(y(highest)) - 3 });
    text.textContent = this.format(highest);
    this.grid.append(text);
    for (let minutes = 1; minutes < WINDOW / 60_000; minutes += 1) {
      const at = width * (1 - (minutes * 60_000) / WINDOW);
      this.grid.append(svg("line", { class: "minute", x1: at, x2: at, y1: y(highest), y2: y(0) }));
    }
  }

  /** Says in figures what is now, or where the mark is. */
  tell(x, sum) {
    const point = this.points.find((one) => one.time === this.marked) ?? this.points.at(-1);
    const is_marked = this.marked !== null && point.time === this.marked;
    this.mark.setAttribute("visibility", is_marked ? "visible" : "hidden");
    this.mark.setAttribute("x1", x(point));
    this.mark.setAttribute("x2", x(point));
    if (point.values === null) {
      say(this.value, "–");
      return;
    }
    const ago = Math.round((this.now - point.time) / 1000);
    const headline = this.headline(point.values, sum(point));
    say(this.value, is_marked && ago > 0 ? `${headline} · ${ago} s ago` : headline);
    for (const one of this.series) {
      say(one.shown, this.format(point.values[one.key] ?? 0));
      if (this.grows) {
        one.item.hidden = !this.points.some((other) => (other.values?.[one.key] ?? 0) > 0);
      }
    }
    const most = Math.max(...this.points.map(sum));
    const parts = this.series.filter((one) => !one.item.hidden).map((one) => `${one.label} ${one.shown.textContent}`);
    const label = `${this.title}: ${this.value.textContent}. ${parts.join(", ")}. Most in five minutes: ${this.format(most)}.`;
    this.picture.setAttribute("aria-label", label);
  }
}
