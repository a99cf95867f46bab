/** Replies as JSON lines, the form of `autodeco-edge run --jsonl`: a line a token, and one at the end of each reply. */

import { Reply } from "./reply.js";
import { SIGNALS, spread } from "./signals.js";

const LARGEST = 2 ** 28; // bytes
const NUMBERS = ["temperature", "top_p", "temperature_eff", "top_p_eff", "entropy", "logprob", "n_kept", "id"];

export function toLines(replies) {
  return replies.map((reply) => `${[...reply.records, ending(reply)].map((record) => JSON.stringify(record)).join("\n")}\n`).join("");
}

function ending(reply) {
  return {
    done: true,
    finish_reason: reply.finish,
    n_tokens: reply.records.length,
    mean_temperature: spread(headOf("temperature"), reply.records)?.mean ?? null,
    mean_top_p: spread(headOf("top_p"), reply.records)?.mean ?? null,
    seed: reply.seed,
    timings: reply.timings ?? {},
  };
}

/** The head's word alone, as `run` has it. */
function headOf(name) {
  return { ...SIGNALS[name], value: (record) => record[name] };
}

/** Raises Error with one clear line. */
export async function readTrace(file) {
  if (file.size > LARGEST) throw new Error(`${file.name}: larger than ${LARGEST / 2 ** 20} MiB; open a shorter trace.`);
  return fromLines(await file.text(), file.name);
}

export function fromLines(text, name) {
  const replies = [];
  let records = [];
  text.split("\n").forEach((line, i) => {
    if (!line.trim()) return;
    const record = parsed(line, `${name}, line ${i + 1}`);
    if (record.done !== true) return records.push(tidy(record, records.length));
    replies.push(replyOf(records, record));
    records = [];
  });
  if (records.length) replies.push(replyOf(records, {})); // cut off by a kill
  if (!replies.some((reply) => reply.records.length)) throw new Error(`${name}: holds no token; choose a file that run --trace wrote.`);
  return replies;
}

function parsed(line, place) {
  try {
    const record = JSON.parse(line);
    if (record.done === true || isToken(record)) return record;
  } catch {
    // said below
  }
  throw new Error(`${place}: no record of a token; choose a file that run --trace wrote.`);
}

function isToken(record) {
  const numbers = NUMBERS.every((name) => record[name] == null || Number.isFinite(record[name]));
  return numbers && typeof record.text === "string" && "temperature" in record && "top_p" in record;
}

/** Only what is known, so that nothing else of a file is kept. */
function tidy(record, index) {
  const found = { index, text: record.text, bytes: bytesOf(record.bytes), top: topOf(record.top) };
  for (const name of NUMBERS) found[name] = record[name] ?? null;
  return record.thought === true ? { ...found, thought: true } : found;
}

function bytesOf(bytes) {
  return Array.isArray(bytes) ? bytes.filter((b) => Number.isInteger(b) && b >= 0 && b < 256) : [];
}

function topOf(top) {
  const isCandidate = (c) => Number.isFinite(c?.id) && typeof c.text === "string" && Number.isFinite(c.logprob);
  const plain = ({ id, text, logprob, kept }) => ({ id, text, logprob, kept: kept === true });
  return Array.isArray(top) ? top.filter(isCandidate).map(plain) : [];
}

function replyOf(records, end) {
  const content = records.filter((r) => !r.thought).map((r) => r.text).join("");
  const reasoning = records.filter((r) => r.thought).map((r) => r.text).join("");
  const timings = end.timings && typeof end.timings === "object" ? end.timings : null;
  const seed = Number.isFinite(end.seed) ? end.seed : null;
  return new Reply({ records, content, reasoning, seed, timings, finish: String(end.finish_reason ?? ""), state: "done" });
}
