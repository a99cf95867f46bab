/** Server-sent events out of a response's body: the JSON of every `data:` line, up to [DONE]. */

import { linesOf } from "./lines.js";

export async function* readEvents(body) {
  for await (const line of linesOf(body, "The reply")) {
    if (!line.startsWith("data: ")) continue; // blank lines, and the comments that keep a connection alive
    const data = line.slice(6);
    if (data === "[DONE]") return;
    yield parsed(data);
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Error("The reply broke off.");
  }
}
