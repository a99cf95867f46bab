/**
 * The conversations that are kept, in step with those of other tabs.
 *
 * Two tabs may go on with the same conversation: whoever keeps it second keeps a copy, so that neither loses a word.
 */

import { Archive } from "./archive.js";
import { Conversation } from "./conversation.js";
import { newId } from "./dom.js";

export class Shelf {
  /** onChange(): other titles; onElsewhere(id): another tab has kept or removed it */
  constructor(onChange, onElsewhere) {
    this.onChange = onChange;
    this.onElsewhere = onElsewhere;
    this.titles = []; // {id, title, changed}, the latest first
    this.removed = new Set(); // ids; what is still being drawn there ends later, and must not bring it back
    this.archive = Archive.open();
    this.last = Promise.resolve(); // one write after the other
    this.channel = new BroadcastChannel("autodeco-edge");
    this.channel.onmessage = ({ data: { id } }) => this.#heard(id);
  }

  /** Whether what was kept before can be read. */
  async load() {
    try {
      const archive = await this.archive;
      const known = new Set(this.titles.map(({ id }) => id));
      this.titles.push(...(await archive.titles()).filter(({ id }) => !known.has(id)));
      this.onChange();
      return archive.database !== null;
    } catch {
      return false;
    }
  }

  /** null: there is none, or none any more. */
  async get(id) {
    await this.last; // it may be being kept
    try {
      const data = await (await this.archive).get(id);
      return data ? Conversation.of(data) : null;
    } catch {
      return null;
    }
  }

  /** Whether it could be kept. */
  keep(conversation) {
    if (this.removed.has(conversation.id)) return Promise.resolve(true);
    this.#list(conversation);
    return this.#next((archive) => this.#put(archive, conversation));
  }

  /** At once, for the page is closing. */
  async keepNow(conversation) {
    const archive = await this.archive;
    archive.put(conversation).catch(() => {});
  }

  remove(id) {
    this.removed.add(id);
    this.#unlist(id);
    return this.#next(async (archive) => {
      await archive.remove(id);
      this.channel.postMessage({ id });
    });
  }

  async #put(archive, conversation) {
    if (this.removed.has(conversation.id)) return;
    const stored = await archive.title(conversation.id);
    if ((stored?.kept ?? 0) > conversation.kept) this.#copy(conversation);
    conversation.kept += 1;
    await archive.put(conversation);
    this.channel.postMessage({ id: conversation.id });
  }

  #copy(conversation) {
    const { id } = conversation;
    conversation.id = newId();
    conversation.kept = 0;
    conversation.title = `${conversation.title} (copy)`;
    this.#list(conversation);
    this.#heard(id);
  }

  /** Whether it went well. */
  #next(work) {
    this.last = this.last.then(() => this.archive).then(work).then(() => true, () => false);
    return this.last;
  }

  async #heard(id) {
    const title = await (await this.archive).title(id).catch(() => undefined);
    if (title) this.#list(title);
    else this.#unlist(id);
    this.onElsewhere(id);
  }

  #list({ id, title, changed }) {
    this.titles = [{ id, title, changed }, ...this.titles.filter((each) => each.id !== id)].sort((a, b) => b.changed - a.changed);
    this.onChange();
  }

  #unlist(id) {
    this.titles = this.titles.filter((each) => each.id !== id);
    this.onChange();
  }
}
