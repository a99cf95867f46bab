/** The turns of a conversation with all versions of their questions: a turn may be reached in several ways, and is one. */

/** The same turns with other replies; change(reply) gives each. */
export function mapReplies(turns, change, known = new Map()) {
  return turns.map((turn) => known.get(turn) ?? mapped(turn, change, known));
}

function mapped(turn, change, known) {
  const found = { ...turn, replies: turn.replies.map(change) };
  known.set(turn, found);
  if (turn.versions) found.versions = known.get(turn.versions) ?? mappedVersions(turn.versions, change, known);
  return found;
}

function mappedVersions(versions, change, known) {
  const found = [];
  known.set(versions, found);
  for (const turns of versions) found.push(mapReplies(turns, change, known));
  return found;
}

export function repliesOf(turns) {
  const found = [];
  mapReplies(turns, (reply) => found.push(reply));
  return found;
}
