/** One prompt under two or three setups, drawn side by side with the same seed. */

import { draw } from "./drawing.js";
import { Reply } from "./reply.js";
import { requestOf, seedOf, withSystem } from "./settings.js";

const MOST = 3; // columns

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
  constructor(server, facts, settings) {
    this.server = server;
    this.facts = facts;
    this.settings = settings;
    this.columns = []; // {name, setup, reply}; setup null: from a file
    this.abort = null;
  }

  get isRunning() {
    return this.abort !== null;
  }

  get room() {
    return MOST - this.columns.length;
  }

  /** onChange(column): its reply has grown. What was added from files stays where there is room. Whether it was not stopped. */
  async run(prompt, setups, onChange) {
    const abort = new AbortController();
    this.abort = abort;
    const seed = seedOf(this.settings);
    const drawn = setups.map((setup) => ({ name: setup.name, setup, reply: new Reply({ seed, context: this.facts.context }) }));
    this.columns = [...drawn, ...this.columns.filter(({ setup }) => setup === null)].slice(0, MOST);
    onChange(null);
    await Promise.all(drawn.map((column) => this.#draw(column, prompt, seed, abort, onChange)));
    this.abort = null;
    return !abort.signal.aborted;
  }

  stop() {
    this.abort?.abort();
  }

  #draw(column, prompt, seed, abort, onChange) {
    const { heads, temperature, top_p, command, model } = column.setup;
    const text = command ? `${prompt}\n\n${command}` : prompt;
    const messages = withSystem(this.settings, [{ role: "user", content: text }]);
    const body = requestOf({ ...this.settings, heads, temperature, top_p }, messages, seed);
    if (model in this.facts.sets) body.model = model;
    return draw(this.server, body, column.reply, abort.signal, () => onChange(column));
  }

  /** A reply from a file as a further column, such as one drawn with other heads. */
  add(name, reply) {
    this.columns.push({ name, setup: null, reply });
  }
}
