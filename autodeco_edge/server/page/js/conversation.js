/** A conversation: turns of one question and its replies, of which one is shown. */

import { newId } from "./dom.js";
import { Reply } from "./reply.js";

const TITLE = 60; // characters

export class Conversation {
  constructor(properties = {}) {
    this.id = newId();
    this.title = "New conversation";
    this.changed = Date.now();
    this.isTrace = false; // read from a file: nothing to go on from
    this.turns = []; // {text, replies, shown}
    Object.assign(this, properties);
  }

  /** As it was kept. */
  static of(data) {
    const conversation = new Conversation(data);
    for (const turn of conversation.turns) turn.replies = turn.replies.map((reply) => settled(new Reply(reply)));
    return conversation;
  }

  ask(text) {
    if (!this.turns.length && !this.isTrace) this.title = text.trim().slice(0, TITLE);
    this.turns.push({ text, replies: [], shown: 0 });
    return this.turns.length - 1;
  }

  /** Another question in a turn's place; what came after it answered the old one. */
  edit(index, text) {
    this.turns.length = index;
    return this.ask(text);
  }

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

/** A reply that was being drawn when the page was closed. */
function settled(reply) {
  if (reply.isOpen) reply.end("stopped");
  return reply;
}
