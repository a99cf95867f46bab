/** Server-sent events out of a response's body: the JSON of every `data:` line, up to [DONE]. */

export async function* readEvents(body) {
  for await (const line of lines(body)) {
    if (!line.startsWith("data: ")) continue; // blank lines, and the comments that keep a connection alive
    const data = line.slice(6);
    if (data === "[DONE]") return;
    yield JSON.parse(data);
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const found = (rest + part.value).split("\n");
      rest = found.pop();
      yield* found;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
