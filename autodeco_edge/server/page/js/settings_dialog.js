/** The form of the settings. Each takes hold when it is changed. */

import { byId, button, el, field, select } from "./dom.js";
import { THEMES } from "./theme.js";

export const HEADS = { both: "temperature and top-p", temperature: "temperature alone", top_p: "top-p alone", none: "off: constants" };

const HINT =
  "With heads, the two values multiply what they say at every token (1 leaves it, temperature 0 is greedy). " +
  "Without heads they are the temperature and the top-p. Empty: the server's own.";

const NUMBERS = [
  ["Temperature", "temperature", 0, 100, "any"], ["Top-p", "top_p", 0, 1, "any"],
  ["T at least", "temperature_low", 0, 100, "any"], ["T at most", "temperature_high", 0, 100, "any"],
  ["P at least", "top_p_low", 0, 1, "any"], ["P at most", "top_p_high", 0, 1, "any"],
  ["Longest reply, tokens", "max_tokens", 1, 2 ** 31 - 1, 1], ["Seed (empty: any)", "seed", 0, 2 ** 32 - 1, 1],
];

const MORE = [
  ["Top-k (0: off)", "top_k", 0, 2 ** 31 - 1, 1], ["Min-p (0: off)", "min_p", 0, 1, "any"],
  ["Repeat penalty (1: off)", "repeat_penalty", 0.01, 10, "any"], ["Frequency penalty (0: off)", "frequency_penalty", -2, 2, "any"],
  ["Presence penalty (0: off)", "presence_penalty", -2, 2, "any"],
];

const VIEWS = { tokens: "as tokens, tinted", text: "as text" };

export class SettingsDialog {
  /** onView(): replies are looked at otherwise */
  constructor(settings, facts, theme, onView) {
    this.settings = settings;
    this.facts = facts;
    this.theme = theme;
    this.onView = onView;
    this.dialog = byId("settings");
    byId("open-settings").addEventListener("click", () => this.open());
  }

  open() {
    this.dialog.replaceChildren(
      el("form", { method: "dialog" },
        el("h2", { id: "settings-title" }, "Settings"),
        field("System prompt", this.#text("system", 3)),
        field("Heads", select(HEADS, this.settings.heads, (value) => this.settings.set({ heads: value }))),
        this.#sets(),
        el("p", { class: "hint" }, HINT),
        el("div", { class: "pairs" }, ...this.#numbers(NUMBERS)),
        this.#more(),
        el("div", { class: "pairs" },
          field("Replies", select(VIEWS, this.settings.view, (view) => (this.settings.set({ view }), this.onView()))),
          field("Theme", select(THEMES, this.settings.theme, (name) => this.theme.choose(name)))),
        el("p", { class: "hint" }, "Conversations and settings stay in this browser."),
        el("div", { class: "actions" }, button("Close", () => this.dialog.close()))),
    );
    this.dialog.showModal();
  }

  /** What is seldom needed; open where some of it is set. */
  #more() {
    const isSet = [...MORE.map(([, name]) => name), "stop"].some((name) => this.settings[name] !== "");
    return el("details", { open: isSet }, el("summary", {}, "More: top-k, min-p, penalties, stop"),
      el("div", { class: "pairs" }, ...this.#numbers(MORE)),
      field("Stop before (a text a line)", this.#text("stop", 2)));
  }

  #numbers(rows) {
    return rows.map(([label, name, min, max, step]) => field(label, this.#number(name, min, max, step)));
  }

  /** Where the server has several. */
  #sets() {
    const { sets } = this.facts;
    if (!Object.keys(sets).length) return null;
    const value = this.settings.model in sets ? this.settings.model : "";
    return field("Set of heads", select({ "": "The server's own", ...sets }, value, (model) => this.settings.set({ model })));
  }

  #text(name, rows) {
    const input = el("textarea", { rows, oninput: () => this.settings.set({ [name]: input.value }) });
    input.value = this.settings[name];
    return input;
  }

  /** Kept only where it is in its range: a wrong one is marked by the browser. */
  #number(name, min, max, step) {
    const input = el("input", { type: "number", min, max, step, oninput: () => input.checkValidity() && this.settings.set({ [name]: input.value }) });
    input.value = this.settings[name];
    return input;
  }
}
