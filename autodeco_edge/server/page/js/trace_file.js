/** Replies as JSON lines, the form of `autodeco-edge run --jsonl`: a line a token, and one at the end of each reply. */

import { linesOf } from "./lines.js";
import { Reply } from "./reply.js";
import { SIGNALS, spread } from "./signals.js";

const LARGEST = 2 ** 28; // bytes
const MOST_TOKENS = 100_000; // of a reply
const MOST_REPLIES = 200;
const LONGEST = 10_000; // characters of a token
const MOST_BYTES = 100; // of it
const MOST_CANDIDATES = 100;
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

/** The replies of a file. Raises Error with one clear line. */
export async function readTrace(file) {
  if (file.size > LARGEST) throw new Error(`${file.name}: larger than ${LARGEST / 2 ** 20} MiB; open a shorter trace.`);
  const replies = [];
  let records = [];
  for await (const [record, place] of recordsIn(file)) {
    if (record.done !== true) records.push(tidy(record, records.length));
    else replies.push(replyOf(records, record));
    if (record.done === true) records = [];
    if (replies.length > MOST_REPLIES || records.length > MOST_TOKENS) throw new Error(`${place}: more than ${MOST_TOKENS} tokens or ${MOST_REPLIES} replies; open a shorter trace.`);
  }
  if (records.length) replies.push(replyOf(records, {})); // cut off by a kill
  if (!replies.some((reply) => reply.records.length)) throw new Error(`${file.name}: holds no token; choose a file that run --trace wrote.`);
  return replies;
}

async function* recordsIn(file) {
  let n = 0;
  for await (const line of linesOf(file.stream(), file.name)) {
    n += 1;
    const place = `${file.name}, line ${n}`;
    if (line.trim()) yield [parsed(line, place), place];
  }
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
  return numbers && isText(record.text) && "temperature" in record && "top_p" in record;
}

const isText = (text) => typeof text === "string" && text.length <= LONGEST;

/** Only what is known, so that nothing else of a file is kept. */
function tidy(record, index) {
  const found = { index, text: record.text, bytes: bytesOf(record.bytes), top: topOf(record.top) };
  for (const name of NUMBERS) found[name] = record[name] ?? null;
  return record.thought === true ? { ...found, thought: true } : found;
}

function bytesOf(bytes) {
  return Array.isArray(bytes) ? bytes.slice(0, MOST_BYTES).filter((b) => Number.isInteger(b) && b >= 0 && b < 256) : [];
}

function topOf(top) {
  const isCandidate = (c) => Number.isFinite(c?.id) && isText(c.text) && Number.isFinite(c.logprob);
  const plain = ({ id, text, logprob, kept }) => ({ id, text, logprob, kept: kept === true });
  return Array.isArray(top) ? top.slice(0, MOST_CANDIDATES).filter(isCandidate).map(plain) : [];
}

function replyOf(records, end) {
  const content = records.filter((r) => !r.thought).map((r) => r.text).join("");
  const reasoning = records.filter((r) => r.thought).map((r) => r.text).join("");
  const timings = end.timings && typeof end.timings === "object" ? end.timings : null;
  const seed = Number.isFinite(end.seed) ? end.seed : null;
  return new Reply({ records, content, reasoning, seed, timings, finish: String(end.finish_reason ?? ""), state: "done" });
}
