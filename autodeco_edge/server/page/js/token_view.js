/**
 * The tokens of a reply as text, each on the tint of the one signal that is shown.
 *
 * A list box of options in lines, so that keys and screen readers go through it as through any list. Tokens are added as
 * they come and never drawn again: another signal changes classes alone. At most MAX of them stand in the page at once.
 */

import { button, el, newId } from "./dom.js";
import { BREAK, endsLine, spoken, visible } from "./glyphs.js";
import { SIGNALS, binOf, inDigits } from "./signals.js";

const MAX = 5000;
const SOME = 200; // tokens that are added at least before a frame is drawn
const SLICE = 8; // ms that adding more may take

export class TokenView {
  /** onPoint(index): a token is looked at; onPick(index): it is chosen. signal: of signals.js */
  constructor({ name, signal, onPoint, onPick }) {
    this.signal = signal;
    this.onPoint = onPoint;
    this.onPick = onPick;
    this.records = [];
    this.options = [];
    this.first = 0;
    this.current = -1;
    this.list = el("div", { role: "listbox", tabindex: 0, class: "tokens", "aria-label": name });
    this.more = el("p", { class: "more", hidden: true });
    this.element = el("div", { class: "token-view" }, this.list, this.more);
    this.#listen();
  }

  show(records) {
    this.records = records;
    this.#restart(0);
  }

  /** What has come since, or as much of it as a frame bears; whether that is all. */
  grow() {
    const isAll = this.options.length >= MAX || this.#append(performance.now() + SLICE);
    this.#offerMore();
    return isAll;
  }

  setSignal(signal) {
    this.signal = signal;
    this.options.forEach((option, i) => this.#tint(option, this.records[this.first + i]));
  }

  /** Makes a token the current one, without a word to others. */
  point(index) {
    this.#option(this.current)?.setAttribute("aria-selected", "false");
    if (index >= 0 && (index < this.first || index >= this.first + MAX)) this.#restart(index - (index % MAX));
    this.current = index;
    const option = this.#option(index);
    if (!option) return this.list.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", option.id);
  }

  reveal() {
    this.#option(this.current)?.scrollIntoView({ block: "nearest" });
  }

  // ---- elements

  #restart(first) {
    this.first = first;
    this.options = [];
    this.current = -1;
    this.list.replaceChildren();
    this.list.removeAttribute("aria-activedescendant");
    this.#append();
    this.#offerMore();
  }

  #append(until = Infinity) {
    const end = Math.min(this.records.length, this.first + MAX);
    for (let i = this.first + this.options.length; i < end; i++) {
      if (i % SOME === 0 && performance.now() > until) return false;
      this.#add(this.records[i], i);
    }
    return true;
  }

  #add(record, index) {
    const option = el("span", { role: "option", id: `${this.#prefix}${index}`, "aria-label": spoken(record), "aria-selected": "false" });
    option.textContent = visible(record);
    option.index = index;
    this.#tint(option, record);
    this.#line().append(record.text.startsWith(" ") ? BREAK : "", option);
    this.options.push(option);
  }

  /** Lines are boxes of their own, so that those out of sight cost the browser nothing. */
  #line() {
    const last = this.options.at(-1);
    const isBegun = last && !endsLine(this.records[last.index]);
    if (!isBegun) this.list.append(el("div", { role: "presentation", class: "line" }));
    return this.list.lastElementChild;
  }

  #tint(option, record) {
    const bin = binOf(this.signal, record);
    const kind = `${record.thought ? " thought" : ""}${record.chosen ? " chosen" : ""}`;
    option.className = `token ${bin === null ? "bare" : `bin-${bin}`}${kind}`;
  }

  #offerMore() {
    const [end, n] = [this.first + this.options.length, this.records.length];
    this.more.hidden = n <= MAX;
    if (n <= MAX) return;
    const next = end < n ? button(`Next ${Math.min(MAX, n - end)}`, () => this.#restart(end)) : null;
    const back = this.first ? button("Back", () => this.#restart(this.first - MAX)) : null;
    this.more.replaceChildren(`Tokens ${this.first} to ${end - 1} of ${n}. `, ...[back, next].filter(Boolean));
  }

  #option(index) {
    return this.options[index - this.first];
  }

  #prefix = `token-${newId()}-`;

  // ---- pointer and keys

  #listen() {
    const indexOf = (event) => event.target.closest?.("[role=option]")?.index;
    this.list.addEventListener("pointerover", (event) => this.#look(indexOf(event)));
    this.list.addEventListener("click", (event) => {
      const index = indexOf(event);
      if (index === undefined) return;
      this.#look(index);
      this.onPick(index);
    });
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("focus", () => this.current < 0 && this.options.length && this.#look(this.first));
  }

  #look(index) {
    if (index === undefined || index === this.current) return;
    this.point(index);
    this.onPoint(index);
  }

  #key(event) {
    if (event.key === "Enter" && this.current >= 0) {
      event.preventDefault();
      this.onPick(this.current);
      return;
    }
    const target = this.#target(event.key);
    if (target === null || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.#look(Math.min(Math.max(target, this.first), this.first + this.options.length - 1));
    this.reveal();
  }

  #target(key) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (key in steps) return this.current + steps[key];
    if (key === "Home") return this.first;
    if (key === "End") return this.first + this.options.length - 1;
    if (key === "ArrowUp") return this.#rowFrom(-1);
    if (key === "ArrowDown") return this.#rowFrom(1);
    return null;
  }

  /** The token of the row above or below that is nearest to the current one. */
  #rowFrom(step) {
    const here = this.#option(this.current)?.getBoundingClientRect();
    if (!here) return this.first;
    let best = this.current;
    let [row, distance] = [null, Infinity];
    for (let i = this.current + step; this.#option(i); i += step) {
      const box = this.#option(i).getBoundingClientRect();
      if (Math.abs(box.top - here.top) < here.height / 2) continue;
      row ??= box.top;
      if (Math.abs(box.top - row) > here.height / 2) break;
      if (Math.abs(box.left - here.left) < distance) [best, distance] = [i, Math.abs(box.left - here.left)];
    }
    return best;
  }
}

/** One token in a sentence, for the ear. */
export function tokenInWords(record) {
  const values = Object.entries({ T: SIGNALS.temperature, P: SIGNALS.top_p, "log-probability": SIGNALS.logprob });
  return `${spoken(record)}: ${values.map(([name, signal]) => `${name} ${inDigits(signal.value(record))}`).join(", ")}`;
}
