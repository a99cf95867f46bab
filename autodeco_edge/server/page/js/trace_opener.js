/** Traces that the user chooses or drops: read, or refused in one line. */

import { byId } from "./dom.js";
import { notice } from "./notice.js";
import { readTrace } from "./trace_file.js";

/** {name, replies} of the file that the user chooses; null where it is none, which is said. */
export function pickTrace() {
  const input = byId("trace-file");
  input.value = "";
  return new Promise((resolve) => {
    input.onchange = async () => resolve(await traceOf(input.files[0]));
    input.oncancel = () => resolve(null);
    input.click();
  });
}

export async function traceOf(file) {
  notice("trace", "");
  try {
    return { name: file.name, replies: await readTrace(file) };
  } catch (error) {
    notice("trace", error.message);
    return null;
  }
}
