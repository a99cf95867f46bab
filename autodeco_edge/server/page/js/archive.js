/** Conversations in the browser's database (the tokens of a few long replies are more than localStorage holds). */

const NAME = "autodeco-edge";
const TABLE = "conversations";

export class Archive {
  static async open() {
    const archive = new Archive();
    try {
      archive.database = await opened();
    } catch {
      archive.database = null; // forbidden, as in some private windows: they last as long as the page
    }
    return archive;
  }

  /** The latest first. */
  async all() {
    const found = await this.#do("readonly", (table) => table.getAll());
    return (found ?? []).sort((a, b) => b.changed - a.changed);
  }

  /** false: there was no room, or no database. */
  async put(conversation) {
    try {
      await this.#do("readwrite", (table) => table.put(structuredClone({ ...conversation })));
      return this.database !== null;
    } catch {
      return false;
    }
  }

  remove(id) {
    return this.#do("readwrite", (table) => table.delete(id));
  }

  async #do(mode, work) {
    if (!this.database) return undefined;
    return finished(work(this.database.transaction(TABLE, mode).objectStore(TABLE)));
  }
}

function opened() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
  return finished(request);
}

function finished(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
