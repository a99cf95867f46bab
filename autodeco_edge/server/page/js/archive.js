/**
 * Conversations in the browser's database (the tokens of a few long replies are more than localStorage holds).
 *
 * Their titles stand in a table of their own, so that a list of many is quickly there; and so do the tokens, as text, one
 * reply a row: they are large, and once a reply is over they are written no more. Where the browser has no database, as in
 * some private windows, or does not answer, nothing is kept.
 */

import { mapReplies, repliesOf } from "./turns.js";

const NAME = "autodeco-edge";
const VERSION = 3; // 1 had no titles, 2 had the tokens within
const WHOLE = "conversations";
const TITLES = "titles"; // {id, title, changed, kept}
const TOKENS = "tokens"; // {of, reply, records}: ids, and JSON
const PATIENCE = 5000; // milliseconds that the browser may take to open it

export class Archive {
  static async open() {
    const archive = new Archive();
    archive.written = new WeakMap(); // of each reply, what stands in its row
    archive.database = await Promise.race([opened().catch(() => null), nothing(PATIENCE)]);
    return archive;
  }

  /** The latest first. */
  async titles() {
    const found = await this.#read(TITLES, (table) => table.getAll());
    return (found ?? []).sort((a, b) => b.changed - a.changed);
  }

  title(id) {
    return this.#read(TITLES, (table) => table.get(id));
  }

  async get(id) {
    const found = await this.#read(WHOLE, (table) => table.get(id));
    if (!found) return null;
    const rows = await this.#read(TOKENS, (table) => table.getAll(rowsOf(id)));
    const records = new Map(rows.map((row) => [row.reply, row.records]));
    return { ...found, turns: mapReplies(found.turns, (reply) => ({ ...reply, records: reply.records ?? JSON.parse(records.get(reply.id) ?? "[]") })) };
  }

  /** Raises where there is no database, or no room in it. All is asked for at once: the page may be about to close. */
  async put(conversation) {
    const { id } = conversation;
    const fresh = repliesOf(conversation.turns).filter((reply) => this.written.get(reply) !== markOf(id, reply));
    const marks = fresh.map((reply) => [reply, markOf(id, reply)]);
    await this.#write((whole, titles, tokens) => {
      whole.put({ ...conversation, turns: mapReplies(conversation.turns, (reply) => ({ ...reply, records: null })) });
      titles.put(titleOf(conversation));
      for (const reply of fresh) tokens.put({ of: id, reply: reply.id, records: JSON.stringify(reply.records) });
    });
    for (const [reply, mark] of marks) this.written.set(reply, mark);
  }

  remove(id) {
    return this.#write((whole, titles, tokens) => {
      whole.delete(id);
      titles.delete(id);
      tokens.delete(rowsOf(id));
    });
  }

  async #read(name, ask) {
    if (!this.database) return undefined;
    return answered(ask(this.database.transaction(name).objectStore(name)));
  }

  async #write(change) {
    if (!this.database) throw new Error("there is no database");
    const transaction = this.database.transaction([WHOLE, TITLES, TOKENS], "readwrite");
    change(...[WHOLE, TITLES, TOKENS].map((name) => transaction.objectStore(name)));
    transaction.commit();
    return over(transaction);
  }
}

const markOf = (id, reply) => `${id} ${reply.records.length}`;

const rowsOf = (id) => IDBKeyRange.bound([id], [id, []]);

async function opened() {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = ({ oldVersion }) => upgrade(request.result, request.transaction, oldVersion);
  const database = await answered(request);
  database.onversionchange = () => database.close(); // another tab has a later page
  return database;
}

function upgrade(database, transaction, oldVersion) {
  if (oldVersion < 1) database.createObjectStore(WHOLE, { keyPath: "id" });
  if (oldVersion < 2) addTitles(database.createObjectStore(TITLES, { keyPath: "id" }), transaction);
  database.createObjectStore(TOKENS, { keyPath: ["of", "reply"] });
}

function addTitles(titles, transaction) {
  transaction.objectStore(WHOLE).openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    titles.put(titleOf(cursor.value));
    cursor.continue();
  };
}

const titleOf = ({ id, title, changed, kept = 0 }) => ({ id, title, changed, kept });

const nothing = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds, null));

function answered(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** A write is done when its transaction is: that there is no room may turn out at its end. */
function over(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
