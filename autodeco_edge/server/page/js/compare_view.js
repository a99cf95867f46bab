/** The comparison on the page: the prompt, the setups, and the replies beside each other. */

import { announce } from "./announcer.js";
import { Comparison, PRESETS, byHeads } from "./compare.js";
import { button, el, field, select } from "./dom.js";
import { downloadPicture, downloadText } from "./download.js";
import { notice } from "./notice.js";
import { ReplyView } from "./reply_view.js";
import { HEADS } from "./settings_dialog.js";
import { toLines } from "./trace_file.js";
import { pickTrace } from "./trace_opener.js";

export class CompareView {
  constructor(element, server, facts, settings, inspector) {
    this.comparison = new Comparison(server, facts, settings);
    this.facts = facts;
    this.inspector = inspector;
    this.views = new Map(); // column: ReplyView
    this.prompt = el("textarea", { rows: 2, id: "compare-prompt", placeholder: "One prompt for all" });
    this.chosen = []; // setups
    this.preset = select({}, "", () => this.#usePreset());
    this.setups = el("div", { class: "setups" });
    this.more = el("details", { open: true }, el("summary", {}, "What differs"), this.setups);
    this.replies = el("div", { class: "beside" });
    element.append(this.#form(), this.replies);
    this.offer();
  }

  /** The setups that this server can have. */
  offer() {
    const { sets } = this.facts;
    const { value } = this.preset;
    this.presets = Object.keys(sets).length ? { ...PRESETS, byHeads: byHeads(sets) } : PRESETS;
    this.preset.replaceChildren(...Object.entries(this.presets).map(([name, { text }]) => el("option", { value: name }, text)));
    this.preset.value = value in this.presets ? value : "constant";
    for (const setup of this.chosen) if (!(setup.model in sets)) setup.model = "";
    if (this.preset.value === value && value !== "byHeads") this.#drawSetups();
    else this.#usePreset();
  }

  /** A trace as a further column, or several. */
  add({ name, replies }) {
    const some = replies.slice(0, Math.max(this.comparison.room, 0));
    for (const reply of some) this.comparison.add(name, reply);
    if (some.length < replies.length) notice("trace", `${name}: ${some.length} of ${replies.length} replies added; three stand beside each other at the most.`);
    this.#draw();
  }

  /** Shows its replies in the inspector. */
  look() {
    const shown = this.comparison.columns.map((column) => ({ name: column.name, reply: column.reply, view: this.views.get(column)?.tokens, onTry: null }));
    this.inspector.show(shown);
  }

  // ---- what is compared

  #form() {
    this.saving = [
      button("JSONL", () => this.#saveLines(), { "aria-label": "Save all as JSONL", disabled: true }),
      button("PNG", () => this.#savePicture(), { "aria-label": "Save all as PNG", disabled: true }),
    ];
    this.runButton = el("button", { type: "submit" }, "Compare them");
    this.stopButton = button("Stop", () => this.comparison.stop(), { hidden: true });
    const row = el("div", { class: "actions" }, this.runButton, this.stopButton,
      button("Add a trace", () => this.#addTrace()), ...this.saving);
    return el("form", { onsubmit: (event) => (event.preventDefault(), this.#run()) },
      field("Prompt", this.prompt), field("Setups", this.preset), this.more, row);
  }

  #usePreset() {
    this.more.open = true;
    this.chosen = this.presets[this.preset.value].setups.map((setup) => ({ ...setup }));
    this.#drawSetups();
  }

  #drawSetups() {
    this.setups.replaceChildren(...this.chosen.map((setup, i) => this.#setup(setup, i)));
  }

  #setup(setup, i) {
    const text = (name, label, more = {}) => {
      const input = el("input", { ...more, oninput: () => input.checkValidity() && (setup[name] = input.value) });
      input.value = setup[name];
      return field(label, input);
    };
    return el("fieldset", {}, el("legend", {}, `Setup ${i + 1}`), text("name", "Name", { maxlength: 40 }),
      field("Heads", select(HEADS, setup.heads, (value) => (setup.heads = value))),
      this.presets.byHeads ? field("Set of heads", select({ "": "The server's own", ...this.facts.sets }, setup.model, (value) => (setup.model = value))) : null,
      el("div", { class: "pairs" }, text("temperature", "Temperature", { type: "number", min: 0, max: 100, step: "any" }),
        text("top_p", "Top-p", { type: "number", min: 0, max: 1, step: "any" })),
      text("command", "After the prompt"));
  }

  // ---- replies

  async #run() {
    if (this.comparison.isRunning) return;
    if (!this.prompt.value.trim()) return this.prompt.focus();
    this.more.open = false;
    const run = this.comparison.run(this.prompt.value, this.chosen, (column) => this.#changed(column));
    this.#buttons();
    this.facts.ask().catch(() => {}); // the server may be another one since; what is wrong with it stands in the replies
    const isWhole = await run;
    this.#buttons();
    this.inspector.draw();
    announce(isWhole ? "The comparison is complete." : "The comparison was stopped.");
  }

  #buttons() {
    const { isRunning, columns } = this.comparison;
    const hadFocus = document.activeElement === (isRunning ? this.runButton : this.stopButton);
    this.runButton.hidden = isRunning;
    this.stopButton.hidden = !isRunning;
    if (hadFocus) (isRunning ? this.stopButton : this.runButton).focus();
    for (const node of this.saving) node.disabled = isRunning || !columns.some(({ reply }) => reply.records.length);
  }

  #changed(column) {
    if (column === null) return this.#draw();
    this.views.get(column).update();
    this.inspector.drawSoon();
  }

  #draw() {
    const { columns } = this.comparison;
    this.views = new Map(columns.map((column) => [column, new ReplyView(column.reply, { name: column.name, signal: this.inspector.signal })]));
    columns.forEach((column) => this.views.get(column).showTokens(true));
    this.replies.replaceChildren(...columns.map((column, i) => el("section", {}, this.#heading(column, i), this.views.get(column).element)));
    this.#buttons();
    this.look();
  }

  #heading(column, i) {
    return el("h2", {}, el("i", { class: `mark series-${i}` }), column.name);
  }

  async #addTrace() {
    const found = await pickTrace();
    if (found) this.add(found);
  }

  // ---- files

  #saveLines() {
    downloadText(toLines(this.comparison.columns.map((column) => column.reply)), "comparison.jsonl");
  }

  #savePicture() {
    return downloadPicture(this.comparison.columns, this.inspector.signal, "comparison.png");
  }
}
