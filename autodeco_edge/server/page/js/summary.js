/** The figures of replies, one column a reply. */

import { el } from "./dom.js";
import { shortName } from "./facts.js";
import { SIGNALS, inDigits, spread } from "./signals.js";

export function figuresOf(shown) {
  const rows = ROWS.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), ...shown.map(({ reply }) => el("td", {}, value(reply)))));
  const names = shown.map(({ name }, i) => el("th", { scope: "col" }, el("i", { class: `mark series-${i}` }), name));
  const head = shown.length > 1 ? el("thead", {}, el("tr", {}, el("td", {}), ...names)) : null;
  return el("table", { class: "summary" }, el("caption", { class: "hidden-label" }, "Figures"), head, el("tbody", {}, ...rows));
}

const ROWS = [
  ["tokens", (reply) => String(reply.records.length)],
  ["T", (reply) => inWords(spread(SIGNALS.temperature, reply.records))],
  ["P", (reply) => inWords(spread(SIGNALS.top_p, reply.records))],
  ["log p, mean", (reply) => inDigits(spread(SIGNALS.logprob, reply.records)?.mean)],
  ["seed", (reply) => String(reply.seed ?? "–")],
  ["context", (reply) => (reply.usage && reply.context ? `${reply.usage.total_tokens} of ${reply.context}` : "–")],
  ["model", (reply) => shortName(reply.model) || "–"],
  ["tokens/s", (reply) => inDigits(reply.timings?.predicted_per_second, 1)],
];

function inWords(found) {
  return found ? `${inDigits(found.mean)} (${inDigits(found.min)} to ${inDigits(found.max)})` : "–";
}
