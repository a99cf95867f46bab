/**
 * Conversations in the browser's database (the tokens of a few long replies are more than localStorage holds).
 *
 * Whole ones in one table, their titles in another, so that a list of many is quickly there. Where the browser has no
 * database, as in some private windows, or does not answer, nothing is kept.
 */

const NAME = "autodeco-edge";
const VERSION = 2; // 1 had no titles
const WHOLE = "conversations";
const TITLES = "titles"; // {id, title, changed, kept}
const PATIENCE = 5000; // milliseconds that the browser may take to open it

export class Archive {
  static async open() {
    const archive = new Archive();
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

  get(id) {
    return this.#read(WHOLE, (table) => table.get(id));
  }

  /** Raises where there is no database, or no room in it. All is asked for at once: the page may be about to close. */
  put(conversation) {
    return this.#write((whole, titles) => {
      whole.put({ ...conversation });
      titles.put(titleOf(conversation));
    });
  }

  remove(id) {
    return this.#write((whole, titles) => {
      whole.delete(id);
      titles.delete(id);
    });
  }

  async #read(name, ask) {
    if (!this.database) return undefined;
    return answered(ask(this.database.transaction(name).objectStore(name)));
  }

  async #write(change) {
    if (!this.database) throw new Error("there is no database");
    const transaction = this.database.transaction([WHOLE, TITLES], "readwrite");
    change(transaction.objectStore(WHOLE), transaction.objectStore(TITLES));
    transaction.commit();
    return over(transaction);
  }
}

async function opened() {
  const request = indexedDB.open(NAME, VERSION);
  request.onupgradeneeded = ({ oldVersion }) => upgrade(request.result, request.transaction, oldVersion);
  const database = await answered(request);
  database.onversionchange = () => database.close(); // another tab has a later page
  return database;
}

function upgrade(database, transaction, oldVersion) {
  if (oldVersion < 1) database.createObjectStore(WHOLE, { keyPath: "id" });
  const titles = database.createObjectStore(TITLES, { keyPath: "id" });
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
