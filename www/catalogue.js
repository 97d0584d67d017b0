// The models and dictionaries that can be chosen: those known to the page, and the visitor's own.

import { nameOf, normalise } from "./store/address.js";

/** @import { Entry } from "./types.d.ts" */

const KEY = "phi3-steer.own-entries";

/** Files that only a dictionary has, and files that only a model has. */
const OF_DICTIONARY = /(^|\/)(cfg\.json|hyperparams\.json|(sae|sae_weights|params)\.safetensors|[^/]*\.npz)$/i;
const OF_MODEL = /(^|\/)(model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|tokenizer\.json|[^/]*\.gguf)$/i;

/** Entries by kind, in the order they are shown. */
export class Catalogue {
  constructor() {
    /** @type {Entry[]} */
    this.entries = [];
  }

  /** @param {string} [url] of the list */
  async load(url = new URL("catalogue.json", import.meta.url).href) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the list of models could not be read: status ${response.status}`);
    const { models, dictionaries } = await response.json();
    const known = [
      ...models.map((/** @type {object} */ entry) => ({ ...entry, kind: "model" })),
      ...dictionaries.map((/** @type {object} */ entry) => ({ ...entry, kind: "dictionary" })),
    ].map((entry) => (entry.url ? { ...entry, url: normalise(entry.url, document.baseURI) } : entry));
    this.entries = [...known, ...readOwn()];
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
   * Adds an address of the visitor's, or finds the entry that has it.
   * @param {Entry["kind"]} kind
   * @param {string} text
   * @returns {Entry}
   */
  addUrl(kind, text) {
    const url = normalise(text, document.baseURI);
    const known = this.at(kind, url);
    if (known) return known;
    /** @type {Entry} */
    const entry = { id: `own ${kind} ${url}`, kind, name: nameOf(url), url, own: true, about: url };
    this.entries.push(entry);
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
    const entry = { id, kind, name: folder, files, bytes, own: true, about: "From this machine. The page reads the files where they are; choose them again after a reload." };
    this.entries.push(entry);
    return entry;
  }

  /** @param {Entry} entry */
  forget(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.save();
  }

  save() {
    const own = this.entries.filter((entry) => entry.own && entry.url).map(({ kind, url }) => ({ kind, url }));
    try {
      localStorage.setItem(KEY, JSON.stringify(own));
    } catch {
      // Storage is blocked: they last as long as the page.
    }
  }
}

/** @returns {Entry[]} */
function readOwn() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    if (!Array.isArray(saved)) return [];
    return saved.flatMap((one) => {
      if (!["model", "dictionary"].includes(one?.kind) || typeof one.url !== "string") return [];
      const url = normalise(one.url, document.baseURI);
      return [{ id: `own ${one.kind} ${url}`, kind: one.kind, name: nameOf(url), url, own: true, about: url }];
    });
  } catch {
    return [];
  }
}

/**
 * Files that were dropped or picked, told apart: a folder can hold a model, a dictionary, or both.
 * @param {File[]} files each named by its path
 * @returns {{model: File[] | null, dictionary: File[] | null, pickle: boolean}}
 */
export function sort(files) {
  const visible = files.filter((file) => !file.name.split("/").some((part) => part.startsWith(".")));
  const model = visible.some((file) => OF_MODEL.test(file.name));
  const dictionary = visible.some((file) => OF_DICTIONARY.test(file.name));
  const pickle = visible.some((file) => /\.(pt|pth|bin|ckpt)$/i.test(file.name));
  if (!model || !dictionary) return { model: model ? visible : null, dictionary: dictionary ? visible : null, pickle };
  // Both: the dictionary is in folders of its own, and a model's own dictionary stays with it.
  const folder = (/** @type {File} */ file) => file.name.slice(0, file.name.lastIndexOf("/") + 1);
  const marks = visible.filter((file) => OF_DICTIONARY.test(file.name)).map(folder);
  const roots = visible.filter((file) => OF_MODEL.test(file.name)).map(folder);
  const inside = marks.every((mark) => roots.some((root) => mark.startsWith(root)));
  if (inside) return { model: visible, dictionary: null, pickle };
  return {
    model: visible.filter((file) => roots.some((root) => file.name.startsWith(root))),
    dictionary: visible.filter((file) => marks.some((mark) => file.name.startsWith(mark))),
    pickle,
  };
}

