/** A file for the user to keep. */

import { el } from "./dom.js";

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function downloadText(text, name) {
  download(new Blob([text], { type: "application/x-ndjson" }), name);
}
