/** All that is known of one token: its numbers, and the likeliest in its place, those that the nucleus cut struck through. */

import { button, el } from "./dom.js";
import { spoken, visible } from "./glyphs.js";
import { inDigits } from "./signals.js";

const N_SHOWN = 5;

/** onTry(index, candidate): go on from another token; null where nothing can go on. */
export function tokenCard(record, onTry) {
  return el(
    "section", { class: "card", "aria-label": `Token ${record.index}` },
    el("h3", {}, `Token ${record.index} `, el("code", { title: spoken(record) }, visible(record))),
    figures(record),
    record.top?.length ? candidates(record, onTry) : null,
  );
}

/** Place among the likeliest; what was not asked for is beyond the last. */
function rankOf(record) {
  const place = (record.top ?? []).findIndex(({ id }) => id === record.id);
  if (place >= 0) return String(place + 1);
  return record.top?.length ? `over ${record.top.length}` : "–";
}

function figures(record) {
  const rows = [
    ["id", record.id],
    ["T", withApplied(record.temperature, record.temperature_eff)],
    ["P", withApplied(record.top_p, record.top_p_eff)],
    ["log-probability", inDigits(record.logprob)],
    ["probability", share(record.logprob)],
    ["rank", rankOf(record)],
    ["nucleus", record.n_kept === undefined ? "–" : `${record.n_kept} ${record.n_kept === 1 ? "token" : "tokens"}`],
    ["entropy", inDigits(record.entropy)],
  ];
  return el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

/** What the head said, and what came of it where that is something else. */
function withApplied(said, applied) {
  if (said === null || said === undefined) return `${inDigits(applied, 3)} (constant)`;
  return Math.abs(said - applied) < 5e-4 ? inDigits(said, 3) : `${inDigits(said, 3)}, applied ${inDigits(applied, 3)}`;
}

function share(logprob) {
  return Number.isFinite(logprob) ? `${(100 * Math.exp(logprob)).toFixed(logprob > -4.6 ? 1 : 3)} %` : "–";
}

function candidates(record, onTry) {
  const rows = record.top.slice(0, N_SHOWN).map((candidate) => row(record, candidate, onTry));
  return el(
    "table", {}, el("caption", {}, "Likeliest here (at temperature 1)"),
    el("thead", {}, el("tr", {}, ...["token", "probability", "what if"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows),
  );
}

function row(record, candidate, onTry) {
  const { id, text, logprob } = candidate;
  const shown = el(candidate.kept ? "span" : "s", { class: "candidate" }, visible({ text, bytes: [] }));
  const isDrawn = id === record.id;
  const words = `Continue from ${spoken({ text, bytes: [] })}`;
  return el(
    "tr", { class: isDrawn ? "drawn" : null },
    el("td", {}, shown, candidate.kept ? null : el("span", { class: "hidden-label" }, " (cut)")),
    el("td", {}, share(logprob)),
    el("td", {}, isDrawn ? "drawn" : onTry && button("continue", () => onTry(record.index, candidate), { "aria-label": words })),
  );
}
