// Keeps conversations in the browser, on this machine and nowhere else: several, bounded, and each
// until it is deleted. Where the browser keeps nothing they last as long as the page.

/** @import { Saved } from "./transcript.js" */

/** Conversations that are kept: the last ones. */
export const MAX_KEPT = 100;

/** The page waits so many milliseconds for the browser's database, and then does without. */
const PATIENCE = 2000;

/**
 * What the list says of a conversation.
 * @typedef {{id: string, at: number, title: string, model: string, turns: number}} Head
 */

/**
 * Where conversations are kept.
 * @typedef {object} Shelf
 * @property {(saved: Saved, head: Head) => Promise<void>} put
 * @property {(id: string) => Promise<Saved | undefined>} get
 * @property {() => Promise<Head[]>} heads
 * @property {(ids: string[]) => Promise<void>} remove
 */

/** The kept conversations. */
export class History {
  /**
   * @param {Shelf} shelf
   * @param {boolean} lasting whether it outlives the page
   */
  constructor(shelf, lasting) {
    this.shelf = shelf;
    this.lasting = lasting;
  }

  /** The browser's own, or one for as long as the page is open. */
  static async open() {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the database does not open")), PATIENCE));
    try {
      return new History(await Promise.race([database(), late]), true);
    } catch {
      // Private windows and some settings forbid it.
      return new History(memory(), false);
    }
  }

  /** @param {Saved} saved */
  async save(saved) {
    const head = { id: saved.id, at: saved.at, title: saved.title, model: saved.turns.at(-1)?.model ?? "", turns: saved.turns.length };
    await this.shelf.put(saved, head);
    const heads = await this.list();
    if (heads.length > MAX_KEPT) await this.shelf.remove(heads.slice(MAX_KEPT).map(({ id }) => id));
  }

  /** @returns {Promise<Head[]>} the last one first */
  async list() {
    return (await this.shelf.heads()).sort((a, b) => b.at - a.at);
  }

  /** @param {string} id */
  read(id) {
    return this.shelf.get(id);
  }

  /** @param {string} id */
  remove(id) {
    return this.shelf.remove([id]);
  }

  async clear() {
    await this.shelf.remove((await this.shelf.heads()).map(({ id }) => id));
  }
}

/** @returns {Shelf} */
export function memory() {
  /** @type {Map<string, {saved: Saved, head: Head}>} */
  const all = new Map();
  return {
    async put(saved, head) {
      all.set(saved.id, structuredClone({ saved, head }));
    },
    async get(id) {
      return structuredClone(all.get(id)?.saved);
    },
    async heads() {
      return [...all.values()].map(({ head }) => head);
    },
    async remove(ids) {
      for (const id of ids) all.delete(id);
    },
  };
}

/**
 * Conversations and their heads in two stores, so that the list reads no conversation.
 * @returns {Promise<Shelf>}
 */
async function database() {
  const opening = indexedDB.open("phi3-steer", 1);
  opening.onupgradeneeded = () => {
    for (const name of ["conversations", "heads"]) opening.result.createObjectStore(name, { keyPath: "id" });
  };
  const db = await done(opening);
  // Another tab with a newer page goes on with it.
  db.onversionchange = () => db.close();
  /**
   * @param {IDBTransactionMode} mode
   * @param {(conversations: IDBObjectStore, heads: IDBObjectStore) => void} work
   * @returns {Promise<void>}
   */
  const within = (mode, work) =>
    new Promise((resolve, reject) => {
      const transaction = db.transaction(["conversations", "heads"], mode);
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      work(transaction.objectStore("conversations"), transaction.objectStore("heads"));
      // Now, and not when the page has time: it may be closing.
      transaction.commit();
    });
  return {
    put: (saved, head) =>
      within("readwrite", (conversations, heads) => {
        conversations.put(saved);
        heads.put(head);
      }),
    get: (id) => done(db.transaction("conversations").objectStore("conversations").get(id)),
    heads: () => done(db.transaction("heads").objectStore("heads").getAll()),
    remove: (ids) =>
      within("readwrite", (conversations, heads) => {
        for (const id of ids) {
          conversations.delete(id);
          heads.delete(id);
        }
      }),
  };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    if ("onblocked" in request) /** @type {IDBOpenDBRequest} */ (/** @type {unknown} */ (request)).onblocked = () => reject(new Error("another tab holds the database"));
  });
}
