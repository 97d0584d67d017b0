// What the lab keeps in this browser and nowhere else: runs with the lines of their journals, so that one
// goes on after a closed tab; results; labels; what was found for a model and a dictionary. Where the
// browser keeps nothing they last as long as the page.

/** Runs that are kept: the last ones. */
export const MAX_RUNS = 60;

/** Feature cards that are kept beside them. */
export const MAX_CARDS = 60;

/** The page waits so many milliseconds for the browser's database, and then does without. */
const PATIENCE = 2000;

/**
 * One run of a recipe.
 * @typedef {object} Kept
 * @property {string} key the place and a digest of the recipe
 * @property {string} place a digest of the model and the dictionary
 * @property {string} model for people
 * @property {string} dictionary for people
 * @property {Record<string, any>} recipe
 * @property {number} at when it was begun or went on last
 * @property {"running" | "paused" | "failed" | "done"} state "running" of a page that is gone: it broke off
 * @property {any} result null until it is done
 */

/**
 * @typedef {object} Drawer
 * @property {(store: "runs" | "lines" | "things", key: IDBValidKey) => Promise<any>} get
 * @property {(store: "runs" | "lines" | "things", value: any) => Promise<void>} put
 * @property {(store: "runs" | "things") => Promise<any[]>} all
 * @property {(run: string) => Promise<any[]>} lines of a run, in order
 * @property {(run: string) => Promise<void>} dropLines
 * @property {(store: "runs" | "things", key: string) => Promise<void>} remove
 */

/** Runs, their journals, and single things by name. */
export class Shelf {
  /**
   * @param {Drawer} drawer
   * @param {boolean} lasting whether it outlives the page
   */
  constructor(drawer, lasting) {
    this.drawer = drawer;
    this.lasting = lasting;
    /** @type {Map<string, number>} the next line of each run's journal */
    this.next = new Map();
  }

  /** The browser's own, or one for as long as the page is open. */
  static async open() {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the database does not open")), PATIENCE));
    try {
      return new Shelf(await Promise.race([database(), late]), true);
    } catch {
      // Private windows and some settings forbid it.
      return new Shelf(memory(), false);
    }
  }

  /** @param {Kept} run */
  async save(run) {
    await this.drawer.put("runs", run);
    const all = await this.runs();
    const isCard = (/** @type {Kept} */ one) => one.recipe.task === "card";
    const old = [...all.filter((one) => !isCard(one)).slice(MAX_RUNS), ...all.filter(isCard).slice(MAX_CARDS)];
    for (const { key } of old) await this.remove(key);
  }

  /** @returns {Promise<Kept[]>} the last one first */
  async runs() {
    return (await this.drawer.all("runs")).sort((a, b) => b.at - a.at);
  }

  /**
   * @param {string} key
   * @returns {Promise<Kept | undefined>}
   */
  run(key) {
    return this.drawer.get("runs", key);
  }

  /**
   * A run's journal so far.
   * @param {string} key
   * @returns {Promise<string>}
   */
  async journal(key) {
    const lines = await this.drawer.lines(key);
    this.next.set(key, (lines.at(-1)?.index ?? -1) + 1);
    return lines.map(({ line }) => `${line}\n`).join("");
  }

  /**
   * Adds a line to a run's journal; `journal` was asked first.
   * @param {string} key
   * @param {string} line
   */
  async note(key, line) {
    const index = this.next.get(key) ?? 0;
    this.next.set(key, index + 1);
    await this.drawer.put("lines", { run: key, index, line: line.trimEnd() });
  }

  /**
   * Forgets a run and its journal.
   * @param {string} key
   */
  async remove(key) {
    await this.drawer.remove("runs", key);
    await this.dropJournal(key);
  }

  /** @param {string} key */
  async dropJournal(key) {
    this.next.set(key, 0);
    await this.drawer.dropLines(key);
  }

  /**
   * A thing that was kept under a name; undefined if none was.
   * @param {string} key
   */
  async thing(key) {
    return (await this.drawer.get("things", key))?.value;
  }

  /**
   * @param {string} key
   * @param {unknown} value undefined forgets it
   */
  async keep(key, value) {
    if (value === undefined) await this.drawer.remove("things", key);
    else await this.drawer.put("things", { key, value });
  }

  /**
   * All things whose name begins so.
   * @param {string} prefix
   * @returns {Promise<{key: string, value: any}[]>}
   */
  async things(prefix) {
    return (await this.drawer.all("things")).filter(({ key }) => key.startsWith(prefix));
  }
}

/** @returns {Drawer} */
export function memory() {
  const stores = { runs: new Map(), lines: new Map(), things: new Map() };
  /** @param {any} value */
  const keyOf = (value) => (value.run === undefined ? value.key : JSON.stringify([value.run, value.index]));
  return {
    get: async (store, key) => structuredClone(stores[store].get(key)),
    put: async (store, value) => void stores[store].set(keyOf(value), structuredClone(value)),
    all: async (store) => structuredClone([...stores[store].values()]),
    lines: async (run) => structuredClone([...stores.lines.values()].filter((line) => line.run === run).sort((a, b) => a.index - b.index)),
    dropLines: async (run) => {
      for (const [key, line] of stores.lines) if (line.run === run) stores.lines.delete(key);
    },
    remove: async (store, key) => void stores[store].delete(key),
  };
}

/** @returns {Promise<Drawer>} */
async function database() {
  const opening = indexedDB.open("phi3-steer-lab", 1);
  opening.onupgradeneeded = () => {
    for (const name of ["runs", "things"]) opening.result.createObjectStore(name, { keyPath: "key" });
    opening.result.createObjectStore("lines", { keyPath: ["run", "index"] });
  };
  const db = await done(opening);
  // Another tab with a newer page goes on with it.
  db.onversionchange = () => db.close();
  /**
   * @param {string} store
   * @param {(store: IDBObjectStore) => void} work
   * @returns {Promise<void>}
   */
  const write = (store, work) =>
    new Promise((resolve, reject) => {
      const transaction = db.transaction(store, "readwrite");
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      work(transaction.objectStore(store));
      // Now, and not when the page has time: it may be closing.
      transaction.commit();
    });
  const read = (/** @type {string} */ store) => db.transaction(store).objectStore(store);
  const ofRun = (/** @type {string} */ run) => IDBKeyRange.bound([run, 0], [run, Infinity]);
  return {
    get: (store, key) => done(read(store).get(key)),
    put: (store, value) => write(store, (to) => to.put(value)),
    all: (store) => done(read(store).getAll()),
    lines: (run) => done(read("lines").getAll(ofRun(run))),
    dropLines: (run) => write("lines", (from) => from.delete(ofRun(run))),
    remove: (store, key) => write(store, (from) => from.delete(key)),
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
