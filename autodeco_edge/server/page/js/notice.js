/** The line at the top: what is amiss. One sentence a cause, so that one that is mended leaves the others. */

import { byId } from "./dom.js";

const amiss = new Map();

/** words: "" where nothing is amiss any more. */
export function notice(cause, words) {
  if (words) amiss.set(cause, words);
  else amiss.delete(cause);
  const text = [...amiss.values()].join(" ");
  const line = byId("notice");
  if (line.textContent === text) return;
  line.textContent = text;
  line.hidden = !text;
}
