/** One prompt under two or three setups, drawn side by side with the same seed. */

import { draw } from "./drawing.js";
import { Reply } from "./reply.js";
import { requestOf, seedOf, withSystem } from "./settings.js";

/** A setup: name; heads, temperature, top_p as in the settings; command: put after the prompt; model: under the name of
 *  which the server has certain heads, "" = its own. */
const plain = { heads: "both", temperature: "", top_p: "", command: "", model: "" };

export const PRESETS = {
  constant: {
    text: "The heads against a constant",
    setups: [
      { ...plain, name: "Heads" },
      { ...plain, name: "Constant", heads: "none", temperature: "0.7", top_p: "0.95" },
    ],
  },
  diversity: {
    text: "Low against high diversity, by command",
    setups: [
      { ...plain, name: "As it is" },
      { ...plain, name: "Low", command: "Please ensure that the diversity of your output is low." },
      { ...plain, name: "High", command: "Please ensure that the diversity of your output is high." },
    ],
  },
  factors: {
    text: "The heads, cooler and warmer",
    setups: [
      { ...plain, name: "T × 0.5", temperature: "0.5" },
      { ...plain, name: "T × 1", temperature: "1" },
      { ...plain, name: "T × 1.5", temperature: "1.5" },
    ],
  },
};

/** Of the heads that a server has under names; models: {name of the model with them: name of the heads} */
export function byHeads(models) {
  const setups = Object.entries(models).slice(0, 3).map(([model, name]) => ({ ...plain, name, model }));
  return { text: "The heads that this server has", setups };
}

export class Comparison {
  constructor(server, settings) {
    this.server = server;
    this.settings = settings;
    this.columns = []; // {name, reply}
    this.abort = null;
  }

  /** onChange(column): its reply has grown. */
  async run(prompt, setups, onChange) {
    this.stop();
    const abort = new AbortController();
    this.abort = abort;
    const seed = seedOf(this.settings);
    this.columns = setups.map((setup) => ({ name: setup.name, setup, reply: new Reply({ seed }) }));
    onChange(null);
    await Promise.all(this.columns.map((column) => this.#draw(column, prompt, seed, abort, onChange)));
    if (this.abort === abort) this.abort = null;
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
  }

  #draw(column, prompt, seed, abort, onChange) {
    const { heads, temperature, top_p, command, model } = column.setup;
    const text = command ? `${prompt}\n\n${command}` : prompt;
    const messages = withSystem(this.settings, [{ role: "user", content: text }]);
    const body = requestOf({ ...this.settings, heads, temperature, top_p }, messages, seed);
    if (model) body.model = model;
    return draw(this.server, body, column.reply, abort.signal, () => onChange(column));
  }

  /** A reply from a file as a further column, such as one drawn with other heads. */
  add(name, reply) {
    this.columns.push({ name, reply });
  }
}
