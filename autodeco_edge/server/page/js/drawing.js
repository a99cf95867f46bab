/** A reply being drawn: the stream of the server into it, until its end, the user's word or a fault. */

const CHAT = "v1/chat/completions";

/** onChange(): something of the reply is new. Never raises: what went wrong stands in the reply. */
export async function draw(server, body, reply, signal, onChange) {
  onChange();
  try {
    for await (const chunk of server.stream(CHAT, body, signal)) {
      reply.add(chunk);
      onChange();
    }
    if (reply.finish) reply.end("done");
    else reply.end("failed", "The reply broke off.");
  } catch (error) {
    if (signal.aborted) reply.end("stopped");
    else reply.end("failed", error.message);
  }
  onChange();
}
