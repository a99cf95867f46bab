/** A file for the user to keep. */

import { el } from "./dom.js";
import { notice } from "./notice.js";
import { pictureOf } from "./picture.js";

export function downloadText(text, name) {
  download(new Blob([text], { type: "application/x-ndjson" }), name);
}

/** shown: [{name, reply}] */
export async function downloadPicture(shown, signal, name) {
  const picture = await pictureOf(shown, signal);
  if (picture) download(picture, name);
  notice("picture", picture ? "" : "This browser cannot make a picture of that size.");
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
