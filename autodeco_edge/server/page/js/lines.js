/** The lines of a body, as they come. */

const LONGEST = 2 ** 24; // characters: what has no line break at all is none of ours

/** name: of the body, for whoever reads that it is too long */
export async function* linesOf(body, name) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const found = (rest + part.value).split("\n");
      rest = found.pop();
      if (rest.length > LONGEST) throw new Error(`${name}: a line is longer than ${LONGEST} characters.`);
      yield* found;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}
