/** The chat: sends, stops, regenerates, edits, and goes on from another token. One reply is drawn at a time. */

import { Conversation } from "./conversation.js";
import { draw } from "./drawing.js";
import { Reply } from "./reply.js";
import { randomSeed, requestOf, seedOf, withSystem } from "./settings.js";

export class Chat {
  /** onChange(what): "open" (another conversation), "turns" (another shape), "reply" (the one being drawn has grown), "end";
   *  save(conversation) */
  constructor(server, facts, settings, onChange, save) {
    this.server = server;
    this.facts = facts;
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
    this.onChange("open");
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
    this.#reshaped();
  }

  /** Another version of a question, with what came after it. */
  showVersion(turn, index) {
    this.stop();
    this.drawing = null;
    this.conversation.showVersion(turn, index);
    this.#reshaped();
  }

  /** What if another token had been drawn? */
  continueFrom(turn, index, candidate) {
    const reply = this.conversation.shown(turn).upTo(index, candidate);
    this.conversation.add(turn, reply);
    return this.#draw(turn, reply, randomSeed(), reply.records.map((record) => record.id));
  }

  /** On with a reply that was cut off. */
  goOn(turn) {
    const reply = this.conversation.shown(turn);
    return this.#draw(turn, reply, randomSeed(), reply.reopen());
  }

  /** Whether a reply's tokens are this server's: other models have other ids. */
  canGoOn(reply) {
    return !this.conversation.isTrace && this.facts.spells(reply.model);
  }

  #reshaped() {
    this.onChange("turns");
    this.save(this.conversation);
  }

  #reply(turn, more = 0) {
    const reply = new Reply();
    this.conversation.add(turn, reply);
    return this.#draw(turn, reply, seedOf(this.settings, more), null);
  }

  async #draw(turn, reply, seed, begun) {
    this.stop();
    const { conversation } = this;
    const messages = withSystem(this.settings, conversation.messages(turn));
    const body = requestOf(this.settings, messages, seed);
    if (begun) body.autodeco.reply_start = begun;
    if (this.settings.model in this.facts.sets) body.model = this.settings.model;
    Object.assign(reply, { seed, context: this.facts.context });
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
