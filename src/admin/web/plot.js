// A moving plot over the last minutes: areas on top of each other, or two that face each other.

import { count, make, say } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
/** Milliseconds that are shown. */
const WINDOW = 300_000;
const HEIGHT = matchMedia("(max-width: 700px)").matches ? 76 : 96;
/** Above the highest value, for the scale. */
const HEAD = 14;
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
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class Plot {
  /**
   * `series` is a list of {key, label} to begin with; others join as they come, where `grows` names them. `headline` makes the
   * large text of the values now, `format` the others. `least` is the lowest top of the scale. Of two that are `facing`, the second
   * goes downwards.
   */
  constructor({ id, title, series = [], grows = null, facing = false, format, headline, least = 1 }) {
    Object.assign(this, { title, grows, facing, format, headline, least });
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
    this.none = make("li", { hidden: true }, "none in five minutes");
    this.legend.append(this.none);
    series.forEach(({ key, label }) => this.join(key, label));
    this.listen();
  }

  join(key, label) {
    const colour = Math.min(this.series.length, COLOURS);
    const shown = make("span", { className: "figure" });
    const item = make("li", {}, make("i", { className: `swatch c${colour}` }), make("span", {}, label), shown);
    const area = svg("path", { class: `area c${colour}` });
    const line = svg("path", { class: `line c${colour}` });
    // The line of what lies below stays in sight where nothing lies on it.
    this.shapes.prepend(area, line);
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

  /** Adds the values of one moment, by key; rates are those of the `seconds` before. */
  add(time, values, seconds = 0) {
    if (this.grows) {
      for (const [key, value] of Object.entries(values)) {
        if (value > 0 && !this.series.some((series) => series.key === key)) {
          this.join(key, this.grows(key));
        }
      }
    }
    this.points.push({ time, values, seconds });
    while (this.points[0].time < time - WINDOW - 5000) {
      this.points.shift();
    }
    this.now = time;
    this.draw();
  }

  /** Leaves a gap, where it is not known how it went on. */
  interrupt(time) {
    if (this.points.length > 0) {
      this.points.push({ time, values: null, seconds: 0 });
      this.now = time;
      this.draw();
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
    const top = (point) => (this.facing ? Math.max(...series.map((one) => of(point, one))) : sum(point));
    const highest = ceiling(Math.max(...points.map(top)), this.least);
    const x = (point) => (width * (1 - (this.now - point.time) / WINDOW)).toFixed(1);
    const zero = this.facing ? (HEIGHT - 1 + HEAD) / 2 : HEIGHT - 1;
    const y = (value) => (zero - (value / highest) * (zero - HEAD)).toFixed(1);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.rule(width, highest, y);

    const below = new Map();
    for (const [place, one] of series.entries()) {
      const sign = this.facing && place > 0 ? -1 : 1;
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
        const low = this.facing ? 0 : below.get(point) ?? 0;
        const high = low + sign * of(point, one);
        below.set(point, high);
        run.push({ x: x(point), low: y(low), high: y(high) });
      }
      finish();
      // What is nothing at all does not cover what is.
      const is_empty = !this.facing && points.every((point) => of(point, one) === 0);
      one.line.setAttribute("d", is_empty ? "" : line);
      one.area.setAttribute("d", is_empty ? "" : area);
    }
    this.tell(x, sum);
  }

  rule(width, highest, y) {
    this.grid.replaceChildren();
    const bottom = this.facing ? -1 : 0;
    for (const part of this.facing ? [-1, 0, 1] : [0, 0.5, 1]) {
      const at = y(highest * part);
      this.grid.append(svg("line", { x1: 0, x2: width, y1: at, y2: at }));
    }
    const label = (words, attributes) => {
      const text = svg("text", { y: HEAD - 4, ...attributes });
      text.textContent = words;
      this.grid.append(text);
    };
    label(this.format(highest).replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, ""), { x: 0 });
    label("5 min", { x: width, "text-anchor": "end" });
    for (let minutes = 1; minutes < WINDOW / 60_000; minutes += 1) {
      const at = width * (1 - (minutes * 60_000) / WINDOW);
      this.grid.append(svg("line", { class: "minute", x1: at, x2: at, y1: y(highest), y2: y(highest * bottom) }));
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
      if (this.grows) {
        // What is rare is seen in how often it was.
        const amounts = this.points.map(({ values, seconds }) => (values?.[one.key] ?? 0) * seconds);
        const amount = Math.round(amounts.reduce((total, more) => total + more, 0));
        one.item.hidden = amount === 0;
        say(one.shown, is_marked ? this.format(point.values[one.key] ?? 0) : count(amount));
      } else {
        say(one.shown, this.format(point.values[one.key] ?? 0));
      }
    }
    if (this.grows) {
      this.none.hidden = this.series.some((one) => !one.item.hidden);
    }
    const most = Math.max(...this.points.map(sum));
    const parts = this.series.filter((one) => !one.item.hidden).map((one) => `${one.label} ${one.shown.textContent}`);
    const label = `${this.title}: ${this.value.textContent}. ${parts.join(", ")}. Most in five minutes: ${this.format(most)}.`;
    this.picture.setAttribute("aria-label", label);
  }
}
