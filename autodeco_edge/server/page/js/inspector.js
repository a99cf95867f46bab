/** Beside the text: which signal, its scale, the figures and the plot of the replies that are looked at, and one token's card. */

import { announce } from "./announcer.js";
import { el } from "./dom.js";
import { Plot } from "./plot.js";
import { SIGNALS, N_BINS, inDigits } from "./signals.js";
import { figuresOf } from "./summary.js";
import { tokenCard } from "./token_card.js";
import { tokenInWords } from "./token_view.js";

const PAUSE = 150; // milliseconds between two drawings of a reply that grows

export class Inspector {
  /** shown: [{name, reply, view, onTry}], the replies beside it */
  constructor(element, settings) {
    this.settings = settings;
    this.shown = [];
    this.last = 0;
    this.plot = new Plot((index) => this.#fromPlot(index));
    this.legend = el("div", { class: "legend" });
    this.figures = el("div", { class: "figures" });
    this.card = el("div", { class: "card-place" });
    element.append(this.#choice(), this.legend, this.#fold(this.plot.element, this.figures), this.card);
    this.#drawLegend();
  }

  /** Until somebody opens or closes it, it is open where there is room. */
  #fold(...parts) {
    const isOpen = this.settings.plot ? this.settings.plot === "open" : !matchMedia("(max-width: 600px)").matches;
    const fold = el("details", { class: "fold", open: isOpen }, el("summary", {}, "Plot and figures"), ...parts);
    fold.firstChild.addEventListener("click", () => this.settings.set({ plot: fold.open ? "closed" : "open" }));
    return fold;
  }

  get signal() {
    return SIGNALS[this.settings.signal] ?? SIGNALS.temperature;
  }

  show(shown) {
    this.shown = shown;
    this.at = null;
    this.card.replaceChildren();
    for (const each of shown) this.#wire(each);
    this.draw();
  }

  /** Not more often than the eye can follow. */
  drawSoon() {
    if (this.waiting) return;
    this.waiting = setTimeout(() => this.draw(), PAUSE);
  }

  draw() {
    clearTimeout(this.waiting);
    this.waiting = null;
    const series = this.shown.map(({ name, reply }) => ({ name, records: reply.records }));
    this.plot.show(series, this.signal);
    this.figures.replaceChildren(...(series.length ? [figuresOf(this.shown)] : []));
  }

  restyle() {
    this.plot.restyle();
    this.draw();
  }

  // ---- one token

  #wire(each) {
    if (!each.view) return;
    each.view.point(-1);
    each.view.setSignal(this.signal);
    each.view.onPoint = (index) => this.#look(each, index, { tell: true });
    each.view.onPick = (index) => {
      this.#look(each, index, {});
      this.card.querySelector("button")?.focus();
    };
  }

  #look(each, index, { tell }) {
    const record = each.reply.records[index];
    if (!record) return;
    this.at = { each, index };
    this.plot.point(index);
    this.card.replaceChildren(tokenCard(record, each.onTry));
    for (const other of this.shown) if (other !== each) other.view?.point(-1);
    if (tell) announce(tokenInWords(record));
  }

  #fromPlot(index) {
    const each = this.at?.each ?? this.shown[0];
    if (!each?.reply.records[index] || this.at?.index === index) return;
    each.view?.point(index);
    each.view?.reveal();
    this.#look(each, index, {});
  }

  // ---- the signal

  #choice() {
    const radios = Object.entries(SIGNALS).map(([name, signal]) => this.#radio(name, signal));
    return el("fieldset", { class: "signals" }, el("legend", {}, "Shown"), ...radios);
  }

  #radio(name, signal) {
    const input = el("input", { type: "radio", name: "signal", value: name, onchange: () => this.#choose(name) });
    input.checked = signal === this.signal;
    return el("label", {}, input, el("span", { title: signal.name }, signal.short));
  }

  #choose(name) {
    this.settings.set({ signal: name });
    for (const { view } of this.shown) view?.setSignal(this.signal);
    this.#drawLegend();
    this.draw();
    if (this.at) this.plot.point(this.at.index);
  }

  #drawLegend() {
    const { name, low, high } = this.signal;
    const bins = Array.from({ length: N_BINS }, (_, i) => el("i", { class: `bin-${i}` }));
    const scale = el("span", { class: "scale", role: "img", "aria-label": `from ${low} to ${high}` }, ...bins);
    this.legend.replaceChildren(el("span", {}, name), el("span", {}, inDigits(low, 1)), scale, el("span", {}, inDigits(high, 1)));
  }
}
