/** The form of the settings. Each takes hold when it is changed. */

import { byId, button, el, field, select } from "./dom.js";

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

export class SettingsDialog {
  constructor(settings, facts) {
    this.settings = settings;
    this.facts = facts;
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
        el("div", { class: "pairs" }, ...this.#pairs()),
        el("p", { class: "hint" }, "Conversations and settings stay in this browser."),
        el("div", { class: "actions" }, button("Close", () => this.dialog.close()))),
    );
    this.dialog.showModal();
  }

  #pairs() {
    return NUMBERS.map(([label, name, min, max, step]) => field(label, this.#number(name, min, max, step)));
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
