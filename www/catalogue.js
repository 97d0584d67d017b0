// The models and dictionaries that can be chosen: those known to the page, and the visitor's own.

import { nameOf, normalise } from "./store/address.js";
import { isOfDictionary, otherForm } from "./store/forms.js";
import { shown, shownUrl } from "./store/shown.js";

/** @import { Entry } from "./types.d.ts" */

const KEY = "phi3-steer.own-entries";

/** Where dictionaries that were trained in the page are, from it: no server has them. */
export const TRAINED_HERE = "trained-here/";

/** Addresses of the visitor's own that are kept. */
const MOST_OWN = 200;

/** Files of this machine that are taken at once: a folder with more is not a model's own. */
export const MOST_CHOSEN = 5000;

/** Files that only a model has. */
const OF_MODEL = /(^|\/)(model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|tokenizer\.json|[^/]*\.gguf)$/i;

/**
 * Whether a dictionary may lie with a model: the public files that the page lists come without.
 * @param {Entry | undefined} model
 */
export const mayBring = (model) => !model || Boolean(model.builtIn || model.own || model.files || model.beside || !model.families);

/** Entries by kind, in the order they are shown. */
export class Catalogue {
  constructor() {
    /** @type {Entry[]} */
    this.entries = [];
    /** The real models that the first screen offers, from small to large, by id. @type {string[]} */
    this.ladder = [];
    /** Addresses that were deleted from the disk: on the list as long as the page is open. @type {Set<string>} */
    this.deleted = new Set();
  }

  /** @param {string} [url] of the list */
  async load(url = new URL("catalogue.json", import.meta.url).href) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the list of models could not be read: status ${response.status}`);
    const { models, dictionaries, ladder } = await response.json();
    const listing = [
      ...models.map((/** @type {object} */ entry) => ({ ...entry, kind: "model" })),
      ...dictionaries.map((/** @type {object} */ entry) => ({ ...entry, kind: "dictionary" })),
    ].flatMap(listed);
    const known = listing.map((entry) => (entry.beside ? described(entry, listing) : entry));
    this.entries = [...known, ...readOwn()];
    this.ladder = Array.isArray(ladder) ? ladder.filter((id) => typeof id === "string") : [];
  }

  /**
   * The steps of the ladder: each from beside the page where its file lies there, else from its public address.
   * @returns {{model: Entry, dictionary: Entry | null}[]}
   */
  rungs() {
    return this.ladder.flatMap((id) => {
      const known = this.find(id);
      if (known?.kind !== "model") return [];
      const model = this.entries.find((entry) => entry.beside && entry.sameAs === id) ?? known;
      const beside = this.fitting(model).find((entry) => entry.beside);
      return [{ model, dictionary: (known.dictionary && this.find(known.dictionary)) || beside || null }];
    });
  }

  /**
   * @param {string} id
   * @returns {Entry | undefined}
   */
  find(id) {
    return this.entries.find((entry) => entry.id === id);
  }

  /**
   * @param {Entry["kind"]} kind
   * @param {string} url in its one form
   */
  at(kind, url) {
    return this.entries.find((entry) => entry.kind === kind && entry.url === url);
  }

  /**
   * What can be chosen with a model.
   * @param {Entry["kind"]} kind
   * @param {Entry} [model]
   */
  list(kind, model) {
    const families = model?.families;
    // First what is here, then what is far.
    const rank = (/** @type {Entry} */ entry) => (entry.builtIn ? 0 : entry.beside ? 1 : entry.own ? 2 : 3);
    return this.entries
      .filter((entry) => entry.kind === kind && (!families || !entry.families || entry.families.some((family) => families.includes(family))))
      .sort((a, b) => rank(a) - rank(b));
  }

  /**
   * Dictionaries that are known to be a model's and can be loaded.
   * @param {Entry} model
   */
  fitting(model) {
    return this.list("dictionary", model).filter((entry) => !entry.unusable && model.families && entry.families?.some((family) => model.families?.includes(family)));
  }

  /**
   * Adds an address of the visitor's, or finds the entry that has it.
   * @param {Entry["kind"]} kind
   * @param {string} text
   * @returns {Entry}
   */
  addUrl(kind, text) {
    const url = normalise(text, document.baseURI);
    this.deleted.delete(`${kind} ${url}`);
    const known = this.at(kind, url);
    const entry = known ?? own(kind, url);
    if (!known) this.entries.push(entry);
    this.save();
    return entry;
  }

  /**
   * Lists an entry that a link named, as long as the page is open.
   * @param {Entry} entry
   * @returns {Entry} it, or the one that is listed already
   */
  adopt(entry) {
    const known = this.find(entry.id) ?? (entry.url ? this.at(entry.kind, entry.url) : undefined);
    if (!known) this.entries.push(entry);
    return known ?? entry;
  }

  /**
   * Adds files from this machine, for as long as the page is open.
   * @param {Entry["kind"]} kind
   * @param {File[]} files
   * @returns {Entry}
   */
  addFiles(kind, files) {
    const id = `files ${kind}`;
    this.entries = this.entries.filter((entry) => entry.id !== id);
    const folder = files[0].name.includes("/") ? files[0].name.split("/")[0] : files.length === 1 ? files[0].name : `${files.length} files`;
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    /** @type {Entry} */
    const entry = { id, kind, name: shown(folder), files, bytes, own: true, about: "From this machine. The page reads the files where they are; choose them again after a reload." };
    this.entries.push(entry);
    return entry;
  }

  /** @param {Entry} entry */
  forget(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.save();
  }

  /**
   * Keeps an address no longer than the page is open: what is deleted leaves nothing behind.
   * @param {Entry["kind"]} kind
   * @param {string} url
   */
  drop(kind, url) {
    this.deleted.add(`${kind} ${url}`);
    this.save();
  }

  save() {
    const own = this.entries
      .filter((entry) => entry.own && entry.url && !this.deleted.has(`${entry.kind} ${entry.url}`))
      .slice(-MOST_OWN)
      .map(({ kind, url }) => ({ kind, url }));
    try {
      localStorage.setItem(KEY, JSON.stringify(own));
    } catch {
      // Storage is blocked: they last as long as the page.
    }
  }
}

/** Whether an address is that of what was trained in this browser. */
export const isTrainedHere = (/** @type {string} */ url) => url.startsWith(new URL(TRAINED_HERE, document.baseURI).href);

/**
 * An entry for an address of the visitor's.
 * @param {Entry["kind"]} kind
 * @param {string} url in its one form
 * @returns {Entry}
 */
const own = (kind, url) => ({ id: `own ${kind} ${url}`, kind, name: nameOf(url), url, own: true, about: isTrainedHere(url) ? "Trained in this browser, and nowhere else: deleted, it is gone." : shownUrl(url) });

/**
 * A line of catalogue.json; one that cannot be used is left out, and the others stay.
 * @param {any} entry
 * @returns {Entry[]}
 */
function listed(entry) {
  try {
    const name = shown(entry.name ?? "");
    return [entry.url ? { ...entry, name, url: normalise(entry.url, document.baseURI) } : { ...entry, name }];
  } catch (error) {
    console.warn(`catalogue.json: an entry is left out: ${/** @type {any} */ (error)?.message ?? error}`);
    return [];
  }
}

/**
 * What lies beside the page under a public file's name is that file: what is known of it holds.
 * @param {Entry} entry
 * @param {Entry[]} listing
 * @returns {Entry}
 */
function described(entry, listing) {
  const file = (/** @type {Entry} */ one) => one.url?.split("/").at(-1);
  const same = listing.find((one) => !one.beside && one.kind === entry.kind && file(one) && file(one) === file(entry));
  if (!same) return entry;
  const { licence, families, memory, refusals, caveat, dictionary, sha256 } = same;
  return { ...entry, licence, families, memory, refusals, caveat, dictionary, sha256, sameAs: same.id };
}

/** @returns {Entry[]} */
function readOwn() {
  let saved;
  try {
    saved = JSON.parse(localStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(saved)) return [];
  return saved.slice(0, MOST_OWN).flatMap((one) => {
    if (!["model", "dictionary"].includes(one?.kind) || typeof one.url !== "string") return [];
    try {
      return [own(one.kind, normalise(one.url, document.baseURI))];
    } catch {
      // What is no address any more takes no other with it.
      return [];
    }
  });
}

/**
 * Files that were dropped or picked, told apart: a folder can hold a model, a dictionary, or both.
 * @param {File[]} files each named by its path
 * @returns {{model: File[] | null, dictionary: File[] | null, other: string | null}} other: what they are instead
 */
export function sort(files) {
  const visible = files.filter((file) => !file.name.split("/").some((part) => part.startsWith(".")));
  const model = visible.some((file) => OF_MODEL.test(file.name));
  const dictionary = visible.some((file) => isOfDictionary(file.name));
  const other = otherForm(visible.map((file) => file.name));
  if (!model || !dictionary) return { model: model ? visible : null, dictionary: dictionary ? visible : null, other };
  // Both: the dictionary is in folders of its own, and a model's own dictionary stays with it.
  const folder = (/** @type {File} */ file) => file.name.slice(0, file.name.lastIndexOf("/") + 1);
  const marks = visible.filter((file) => isOfDictionary(file.name)).map(folder);
  const roots = visible.filter((file) => OF_MODEL.test(file.name)).map(folder);
  const inside = marks.every((mark) => roots.some((root) => mark.startsWith(root)));
  if (inside) return { model: visible, dictionary: null, other };
  return {
    model: visible.filter((file) => roots.some((root) => file.name.startsWith(root))),
    dictionary: visible.filter((file) => marks.some((mark) => file.name.startsWith(mark))),
    other,
  };
}

