/** A conversation: turns of one question and its replies, of which one is shown. What it holds can be kept as it is. */

import { newId } from "./dom.js";
import { Reply } from "./reply.js";
import { mapReplies } from "./turns.js";

const TITLE = 60; // characters

export class Conversation {
  constructor(properties = {}) {
    this.id = newId();
    this.title = "New conversation";
    this.changed = Date.now();
    this.kept = 0; // how often
    this.isTrace = false; // read from a file: nothing to go on from
    this.turns = []; // {text, replies, shown, versions}
    Object.assign(this, properties);
  }

  /** As it was kept. */
  static of(data) {
    return new Conversation({ ...data, turns: mapReplies(data.turns, (reply) => settled(new Reply(reply))) });
  }

  ask(text) {
    if (!this.turns.length && !this.isTrace) this.title = Array.from(text.trim()).slice(0, TITLE).join("");
    this.turns.push({ text, replies: [], shown: 0, versions: null });
    return this.turns.length - 1;
  }

  // ---- versions of a question: arrays of the turns from there on, which all of their first turns share

  /** Another question in a turn's place. The old one stays, with what came after it, as another version. */
  edit(index, text) {
    const versions = this.#versionsAt(index);
    this.turns.length = index;
    this.ask(text);
    this.turns[index].versions = versions;
    versions.push([this.turns[index]]);
    return index;
  }

  showVersion(index, which) {
    const versions = this.#versionsAt(index);
    this.turns = [...this.turns.slice(0, index), ...versions[which]];
  }

  /** {at, of}: which one is shown, of how many. */
  version(index) {
    const { versions } = this.turns[index];
    return versions ? { at: placeIn(versions, this.turns[index]), of: versions.length } : { at: 0, of: 1 };
  }

  /** With the one that is shown as it stands now. */
  #versionsAt(index) {
    const turns = this.turns.slice(index);
    const versions = turns[0].versions ?? [turns];
    versions[placeIn(versions, turns[0])] = turns;
    turns[0].versions = versions;
    return versions;
  }

  // ---- replies

  /** A further reply of a turn, which is then the one shown. */
  add(index, reply) {
    const turn = this.turns[index];
    turn.replies.push(reply);
    turn.shown = turn.replies.length - 1;
    this.changed = Date.now();
  }

  shown(index) {
    const turn = this.turns[index];
    return turn.replies[turn.shown];
  }

  /** What a reply to this turn answers: every turn before with its reply, and the question. */
  messages(index) {
    const found = [];
    for (let i = 0; i <= index; i++) {
      found.push({ role: "user", content: this.turns[i].text });
      if (i < index && this.turns[i].replies.length) found.push({ role: "assistant", content: this.shown(i).content });
    }
    return found;
  }
}

const placeIn = (versions, first) => versions.findIndex((turns) => turns[0] === first);

/** A reply that was being drawn when the page was closed. */
function settled(reply) {
  if (reply.isOpen) reply.end("stopped");
  return reply;
}
