/** The text of a token as signs that can be seen, and as words that can be heard. */

/** A line may break here, as it might at the blank itself. */
export const BREAK = "\u200b";
const SIGNS = { " ": `${BREAK}·`, "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
const NAMES = { " ": " blank ", "\n": " newline ", "\t": " tab ", "\r": " return ", "\u00a0": " hard blank " };
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}]/u;
const JOINS = /\u200c|\u200d|[\u{e0020}-\u{e007f}]/u; // within a word or a sign they are how it is written: a family, a flag

export function visible(record) {
  if (record.text) return [...record.text].map(sign).join("").replace(/^\u200b/, "");
  return record.bytes?.length ? record.bytes.map((byte) => `‹${hex(byte)}›`).join("") : "∎";
}

export function spoken(record) {
  if (!record.text) return record.bytes?.length ? "part of a character" : "end of the reply";
  return Array.from(record.text, (c) => NAMES[c] ?? c).join("").trim();
}

/** Whether a new line begins after it. */
export const endsLine = (record) => record.text.endsWith("\n");

function sign(character, index, all) {
  if (character in SIGNS) return SIGNS[character];
  const isHidden = HIDDEN.test(character) && !(all[index - 1]?.trim() && JOINS.test(character));
  return isHidden ? `‹${hex(character.codePointAt(0))}›` : character;
}

function hex(byte) {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}
