/** The line plot in step with the text: one signal over the tokens of one reply or of several. */

import uPlot from "../vendor/uPlot.esm.js";
import { el } from "./dom.js";

const HEIGHT = 170;
const DASHES = [[], [6, 3], [2, 3]];

export class Plot {
  /** onPoint(index): the token under the pointer */
  constructor(onPoint) {
    this.onPoint = onPoint;
    this.element = el("div", { class: "plot", role: "img" });
    this.drawn = null;
    this.isQuiet = false;
    new ResizeObserver(() => this.#fit()).observe(this.element);
  }

  /** series: [{name, records}]; signal: of signals.js */
  show(series, signal) {
    const data = columns(series, signal);
    const shape = JSON.stringify([series.map((s) => s.name), signal.name, axisOf(signal, data)]);
    if (this.drawn && shape === this.shape) this.drawn.setData(data);
    else this.#draw(series, signal, data);
    this.shape = shape;
    this.element.setAttribute("aria-label", described(series, signal));
  }

  /** In other colours. */
  restyle() {
    this.shape = null;
  }

  point(index) {
    if (!this.drawn) return;
    this.isQuiet = true;
    const left = index < 0 ? -10 : this.drawn.valToPos(index, "x");
    this.drawn.setCursor({ left, top: 10 });
    this.isQuiet = false;
  }

  #draw(series, signal, data) {
    this.drawn?.destroy();
    this.element.replaceChildren();
    const size = { width: this.element.clientWidth || 300, height: HEIGHT, scale: 1 };
    const options = optionsOf(this.element, series, axisOf(signal, data), size);
    options.hooks = { setCursor: [(plot) => this.isQuiet || (plot.cursor.idx != null && plot.cursor.left >= 0 && this.onPoint(plot.cursor.idx))] };
    this.drawn = new uPlot(options, data, this.element);
  }

  #fit() {
    const width = this.element.clientWidth;
    if (this.drawn && width && width !== this.drawn.width) this.drawn.setSize({ width, height: HEIGHT });
  }
}

/** The plot alone on a canvas: for a picture. */
export async function plotCanvas(series, signal, size) {
  const place = el("div", { class: "hidden-label" });
  document.body.append(place);
  const data = columns(series, signal);
  const drawn = new uPlot(optionsOf(place, series, axisOf(signal, data), size), data, place);
  await new Promise(requestAnimationFrame);
  drawn.destroy();
  place.remove();
  return drawn.ctx.canvas;
}

/** scale: of lines and letters */
function optionsOf(element, series, range, { width, height, scale }) {
  const ink = inkOf(element, "--quiet-ink");
  const hair = { stroke: inkOf(element, "--line"), width: scale };
  const axis = { stroke: ink, grid: hair, ticks: { ...hair, size: 6 * scale }, gap: 4 * scale, font: `${12 * scale}px system-ui` };
  const line = (i) => ({ stroke: inkOf(element, `--series-${i}`), width: 1.5 * scale, dash: DASHES[i].map((n) => n * scale), points: { show: false } });
  return {
    width,
    height,
    legend: { show: false },
    cursor: { drag: { x: true, y: false }, points: { size: 7 }, y: false },
    scales: { x: { time: false, range: (_, low, high) => [low, Math.max(high, low + 1)] }, y: { range } },
    axes: [{ ...axis, size: 30 * scale, space: 50 * scale }, { ...axis, size: 44 * scale, space: 28 * scale }],
    series: [{}, ...series.map((_, i) => line(i))],
  };
}

function columns(series, signal) {
  const n = Math.max(0, ...series.map((s) => s.records.length));
  const values = series.map((s) => Array.from({ length: n }, (_, i) => valueAt(signal, s.records[i])));
  return [Array.from({ length: n }, (_, i) => i), ...values];
}

function valueAt(signal, record) {
  const value = record && signal.value(record);
  return Number.isFinite(value) ? value : null;
}

/** The signal's own ends, further out only where a value lies there. */
function axisOf(signal, [, ...values]) {
  let [low, high] = signal.axis;
  for (const value of values.flat()) {
    if (value !== null && value < low) low = Math.floor(value);
    if (value !== null && value > high) high = Math.ceil(value);
  }
  return [low, high];
}

/** A colour of the theme, as a canvas can take it. */
export function inkOf(element, name) {
  const probe = el("span", { hidden: true });
  element.append(probe);
  probe.style.color = `var(${name})`;
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function described(series, signal) {
  return `${signal.name} over ${series.map((s) => `${s.records.length} tokens of ${s.name}`).join(", ")}`;
}
