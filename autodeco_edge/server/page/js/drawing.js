/** A reply being drawn: the stream of the server into it, until its end, the user's word or a fault. */

const CHAT = "v1/chat/completions";
const SLICE = 8; // ms that may go into chunks that came at once before the browser draws a frame

/** onChange(): something of the reply is new. Never raises: what went wrong stands in the reply. */
export async function draw(server, body, reply, signal, onChange) {
  onChange();
  let last = performance.now();
  try {
    for await (const chunk of server.stream(CHAT, body, signal)) {
      reply.add(chunk);
      onChange();
      if (performance.now() - last < SLICE) continue;
      await nextTask();
      last = performance.now();
    }
    if (reply.finish) reply.end("done");
    else reply.end("failed", "The reply broke off.");
  } catch (error) {
    if (signal.aborted) reply.end("stopped");
    else reply.end("failed", error.message);
  }
  onChange();
}

/** After what else waits, such as a frame or a key. Unlike a timer's it is not put off where the page is hidden. */
function nextTask() {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}
