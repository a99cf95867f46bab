/** One reply: its text, its tokens, and how it stands. What it holds can be kept as it is (structured clone). */

import { newId } from "./dom.js";

const CUTS = { time: "Cut off: its time on the server was over.", shutdown: "Cut off: the server was told to end." };

export class Reply {
  constructor(properties = {}) {
    this.id = newId();
    this.content = "";
    this.reasoning = "";
    this.records = [];
    this.state = "waiting"; // waiting, drawing, done, stopped, failed
    this.error = "";
    this.note = "";
    this.seed = null;
    this.finish = null;
    this.cutBy = null; // what the server says that ended it before its end
    this.timings = null;
    this.usage = null;
    this.model = ""; // who drew it
    this.context = null; // tokens that its server can remember
    Object.assign(this, properties);
  }

  get isOpen() {
    return this.state === "waiting" || this.state === "drawing";
  }

  /** One chunk of the stream. */
  add(chunk) {
    this.state = "drawing";
    this.timings = chunk.timings ?? this.timings;
    this.usage = chunk.usage ?? this.usage;
    this.model = chunk.model ?? this.model;
    for (const choice of chunk.choices ?? []) this.#choice(choice);
  }

  #choice({ delta, logprobs, autodeco, finish_reason }) {
    this.content += delta.content ?? "";
    this.reasoning += delta.reasoning_content ?? "";
    this.seed = autodeco?.seed ?? this.seed;
    this.finish = finish_reason ?? this.finish;
    this.cutBy = autodeco?.cut_by ?? this.cutBy;
    for (const record of joined(autodeco?.trace ?? [], logprobs?.content ?? [])) {
      this.records.push({ ...record, index: this.records.length });
    }
  }

  end(state, error = "") {
    this.state = state;
    this.error = error;
  }

  /** How it stands, in words; "" where it is whole. */
  get words() {
    if (this.state === "waiting") return "Waiting for its turn …";
    if (this.state === "stopped") return "Stopped.";
    if (this.state === "failed") return this.error;
    if (this.state === "drawing") return this.records.length ? "" : "Reading the prompt …";
    if (this.finish === "length") return this.#limit();
    return this.content || this.reasoning ? "" : "It ended without a word.";
  }

  #limit() {
    if (this.cutBy) return CUTS[this.cutBy] ?? `Cut off by the server: ${this.cutBy}.`;
    return this.#isFull ? "Cut off: the context is full. A new conversation has room again." : "Cut off at the limit of tokens.";
  }

  get #isFull() {
    return this.context !== null && this.usage?.total_tokens >= this.context;
  }

  /** Whether its last token was not its end: more could follow. */
  get isCut() {
    return !this.isOpen && this.records.length > 0 && !this.#isFull && (this.state !== "done" || this.finish === "length");
  }

  /** Drawn further, from the last token on. The ids to begin with. */
  reopen() {
    Object.assign(this, { state: "waiting", error: "", finish: null, cutBy: null, timings: null, usage: null });
    return this.records.map(({ id }) => id);
  }

  /** The beginning of another reply: these tokens up to index, then the candidate in that one's place. */
  upTo(index, candidate) {
    const before = this.records.slice(0, index);
    const old = this.records[index];
    const { id, text, logprob } = candidate;
    const chosen = { ...old, id, text, bytes: [...new TextEncoder().encode(text)], logprob, chosen: true };
    const records = [...before, chosen];
    const note = `From token ${index} on, with “${text}” in place of “${old.text}”.`;
    return new Reply({ records, note, content: this.#answerOf(records), reasoning: textOf(records, true) });
  }

  /** What of these tokens is answer: without the marks of a thought, which the server leaves out of content. */
  #answerOf(records) {
    const text = textOf(records, false);
    if (!this.reasoning) return text;
    const known = textOf(records.slice(0, -1), false);
    for (let i = 0; i <= known.length; i++) if (this.content.startsWith(known.slice(i))) return text.slice(i);
    return text;
  }
}

function textOf(records, thought) {
  return records.filter((r) => Boolean(r.thought) === thought).map((r) => r.text).join("");
}

/** The trace's records with the likeliest tokens from the logprobs: these lack the end token. */
function joined(trace, entries) {
  let next = 0;
  return trace.map((record) => {
    const entry = entries[next]?.id === record.id ? entries[next++] : null;
    const top = candidatesOf(entry?.top_logprobs ?? [], record.n_kept);
    return entry?.reasoning ? { ...record, top, thought: true } : { ...record, top };
  });
}

/** As `run --trace-top` writes them. */
function candidatesOf(top, nKept) {
  return top.map(({ id, token, logprob }, i) => ({ id, text: token, logprob, kept: i < nKept }));
}
