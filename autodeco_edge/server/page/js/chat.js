/** The chat: sends, stops, regenerates, edits, and goes on from another token. One reply is drawn at a time. */

import { Conversation } from "./conversation.js";
import { draw } from "./drawing.js";
import { Reply } from "./reply.js";
import { randomSeed, requestOf, seedOf, withSystem } from "./settings.js";

export class Chat {
  /** onChange(what): "turns" (another shape), "reply" (the one being drawn has grown), "end"; save(conversation) */
  constructor(server, settings, onChange, save) {
    this.server = server;
    this.settings = settings;
    this.onChange = onChange;
    this.save = save;
    this.conversation = new Conversation();
    this.drawing = null; // {turn, reply, abort}
  }

  open(conversation) {
    this.stop();
    this.drawing = null; // its end is nothing to the other conversation
    this.conversation = conversation;
    this.onChange("turns");
  }

  send(text) {
    if (this.conversation.isTrace) this.open(new Conversation());
    return this.#reply(this.conversation.ask(text));
  }

  stop() {
    this.drawing?.abort.abort();
  }

  regenerate(turn) {
    return this.#reply(turn, this.conversation.turns[turn].replies.length);
  }

  edit(turn, text) {
    return this.#reply(this.conversation.edit(turn, text));
  }

  showReply(turn, index) {
    this.conversation.turns[turn].shown = index;
    this.onChange("turns");
    this.save(this.conversation);
  }

  /** What if another token had been drawn? */
  continueFrom(turn, index, candidate) {
    const reply = this.conversation.shown(turn).upTo(index, candidate);
    return this.#draw(turn, reply, randomSeed(), reply.records.map((record) => record.id));
  }

  #reply(turn, more = 0) {
    return this.#draw(turn, new Reply(), seedOf(this.settings, more), null);
  }

  async #draw(turn, reply, seed, begun) {
    this.stop();
    const { conversation } = this;
    const messages = withSystem(this.settings, conversation.messages(turn));
    const body = requestOf(this.settings, messages, seed);
    if (begun) body.autodeco.reply_start = begun;
    reply.seed = seed;
    conversation.add(turn, reply);
    const drawing = { turn, reply, abort: new AbortController() };
    this.drawing = drawing;
    this.onChange("turns");
    this.save(conversation);
    await draw(this.server, body, reply, drawing.abort.signal, () => this.drawing === drawing && this.onChange("reply"));
    this.save(conversation);
    if (this.drawing !== drawing) return;
    this.drawing = null;
    this.onChange("end", reply);
  }
}
