/** Text for the user to paste. The browser's own way is not there on plain HTTP from another machine. */

import { announce } from "./announcer.js";
import { button, el } from "./dom.js";

const SHOWN = 1500; // milliseconds

export function copyButton(label, textOf, properties = {}) {
  const node = button(label, async () => {
    const words = (await copied(textOf())) ? "Copied" : "Not copied: the browser forbids it";
    announce(words);
    node.textContent = words;
    setTimeout(() => (node.textContent = label), SHOWN);
  }, properties);
  return node;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return selected(text);
  }
}

function selected(text) {
  const held = document.activeElement;
  const place = el("textarea", { class: "hidden-label", "aria-hidden": "true" });
  place.value = text;
  document.body.append(place);
  place.select();
  const isCopied = document.execCommand("copy");
  place.remove();
  held?.focus();
  return isCopied;
}
