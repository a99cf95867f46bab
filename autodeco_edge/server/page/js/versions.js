/** Steps between several of a kind, one of which is shown: "‹ 2 of 3 ›". */

import { button, el } from "./dom.js";

/** of: "reply" or "message"; onStep(index) */
export function versionSteps(of, at, n, onStep) {
  const step = (index, sign, word) => button(sign, () => onStep(index), { "aria-label": `${word} ${of}`, disabled: index < 0 || index >= n });
  return el("div", { class: "variants" }, step(at - 1, "‹", "Earlier"), `${at + 1} of ${n}`, step(at + 1, "›", "Later"));
}
