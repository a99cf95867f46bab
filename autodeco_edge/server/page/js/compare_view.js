/** The comparison on the page: the prompt, the setups, and the replies beside each other. */

import { announce } from "./announcer.js";
import { Comparison, PRESETS, byHeads } from "./compare.js";
import { button, el, field, select } from "./dom.js";
import { download, downloadText } from "./download.js";
import { pictureOf } from "./picture.js";
import { ReplyView } from "./reply_view.js";
import { HEADS } from "./settings_dialog.js";
import { toLines } from "./trace_file.js";

const MOST = 3; // columns

export class CompareView {
  /** pickTrace(): a promise of {name, replies} */
  constructor(element, server, settings, inspector, pickTrace) {
    this.comparison = new Comparison(server, settings);
    this.inspector = inspector;
    this.pickTrace = pickTrace;
    this.views = new Map(); // column: ReplyView
    this.prompt = el("textarea", { rows: 2, id: "compare-prompt", placeholder: "One prompt for all" });
    this.presets = { ...PRESETS };
    this.models = {}; // {name of the model with certain heads: name of the heads}
    this.preset = select(Object.fromEntries(Object.entries(PRESETS).map(([name, { text }]) => [name, text])), "constant", () => this.#usePreset());
    this.setups = el("div", { class: "setups" });
    this.more = el("details", { open: true }, el("summary", {}, "What differs"), this.setups);
    this.replies = el("div", { class: "beside" });
    element.append(this.#form(), this.replies);
    this.#usePreset();
  }

  /** The server has several heads; models: as above. */
  offer(models) {
    if (Object.keys(models).length < 2 || this.presets.byHeads) return;
    this.models = models;
    this.presets.byHeads = byHeads(models);
    this.preset.append(el("option", { value: "byHeads" }, this.presets.byHeads.text));
    this.#drawSetups();
  }

  /** Shows its replies in the inspector. */
  look() {
    const shown = this.comparison.columns.map((column) => ({ name: column.name, reply: column.reply, view: this.views.get(column)?.tokens, onTry: null }));
    this.inspector.show(shown);
  }

  // ---- what is compared

  #form() {
    this.runButton = el("button", { type: "submit" }, "Compare them");
    this.stopButton = button("Stop", () => this.comparison.stop(), { hidden: true });
    const row = el("div", { class: "actions" }, this.runButton, this.stopButton,
      button("Add a trace", () => this.#addTrace()), button("JSONL", () => this.#saveLines(), { "aria-label": "Save all as JSONL" }),
      button("PNG", () => this.#savePicture(), { "aria-label": "Save all as PNG" }));
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
      this.presets.byHeads ? field("Set of heads", select({ "": "The server's own", ...this.models }, setup.model, (value) => (setup.model = value))) : null,
      el("div", { class: "pairs" }, text("temperature", "Temperature", { type: "number", min: 0, max: 100, step: "any" }),
        text("top_p", "Top-p", { type: "number", min: 0, max: 1, step: "any" })),
      text("command", "After the prompt"));
  }

  // ---- replies

  async #run() {
    if (!this.prompt.value.trim()) return this.prompt.focus();
    this.#running(true);
    this.more.open = false;
    await this.comparison.run(this.prompt.value, this.chosen, (column) => this.#changed(column));
    this.#running(false);
    this.inspector.draw();
    announce("The comparison is complete.");
  }

  #running(yes) {
    this.runButton.hidden = yes;
    this.stopButton.hidden = !yes;
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
    this.look();
  }

  #heading(column, i) {
    return el("h2", {}, el("i", { class: `mark series-${i}` }), column.name);
  }

  async #addTrace() {
    const found = await this.pickTrace();
    if (!found) return;
    for (const reply of found.replies.slice(0, MOST - this.comparison.columns.length)) this.comparison.add(found.name, reply);
    this.#draw();
  }

  // ---- files

  #saveLines() {
    downloadText(toLines(this.comparison.columns.map((column) => column.reply)), "comparison.jsonl");
  }

  async #savePicture() {
    download(await pictureOf(this.comparison.columns, this.inspector.signal), "comparison.png");
  }
}
