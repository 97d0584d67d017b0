// Lists of files that come from a server: manifest.json, and the index of a model in several files.

import { StoreError } from "./errors.js";
import { looseJson } from "./json.js";
import { shown, shownUrl } from "./shown.js";

/**
 * @typedef {object} PlannedFile
 * @property {string} path name within the model or dictionary
 * @property {string} url
 * @property {number | null} bytes null where not known
 * @property {string | null} sha256 that the file must have
 * @property {string | null} gitOid the Hub's SHA-1 of a small file, which it gives instead
 * @property {"manifest" | "hub" | null} proof who says so
 * @property {string | null} etag the server's name for this version, where it was asked
 * @property {number} [slot] number of its file on disk
 */

/** Files of one model or dictionary. A full-size model has some hundred. */
export const MOST_FILES = 2000;
/** Bytes of one file. */
export const MOST_BYTES = 2 ** 43;
/** Characters of a path, and folders in it. */
const LONGEST_PATH = 512;
const DEEPEST = 16;

/**
 * @param {string} path
 * @param {string} url
 * @param {Partial<PlannedFile>} [known]
 * @returns {PlannedFile}
 */
export const planned = (path, url, known = {}) => ({ path, url, bytes: null, sha256: null, gitOid: null, proof: null, etag: null, ...known });

/** Whether a path stays within its folder, and can be one. */
export function isInside(/** @type {string} */ path) {
  if (path.length > LONGEST_PATH || !/^[^\\:\p{Cc}]+$/u.test(path)) return false;
  const parts = path.split("/");
  return parts.length <= DEEPEST && parts.every((part) => part && part !== "." && part !== "..");
}

/**
 * Where a path of a folder is served: beside the address, with what follows "?" in it.
 * @param {string} base of the folder, or of a file in it
 * @param {string} path
 */
export function within(base, path) {
  const url = new URL(path.split("/").map(encodeURIComponent).join("/"), base);
  url.search = new URL(base).search;
  return url.href;
}

export const isSha256 = (/** @type {unknown} */ value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);

/** A length that a file can have. */
export const isLength = (/** @type {unknown} */ value) => Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= MOST_BYTES;

/**
 * @param {string} text
 * @param {string} where
 * @returns {any}
 */
export function parse(text, where) {
  try {
    return looseJson(text);
  } catch (error) {
    const head = text.trimStart().slice(0, 40);
    throw new StoreError("bad-answer", `This is no JSON (${shown(/** @type {any} */ (error).message)}; it begins \u201c${shown(head)}\u201d): ${shownUrl(where)}`);
  }
}

/** @param {string} message */
const bad = (message) => new StoreError("bad-answer", message);

/**
 * The files of a manifest, with the address of each.
 * @param {string} text
 * @param {string} base
 * @returns {PlannedFile[] | null} null when the file is some other manifest
 */
export function parseManifest(text, base) {
  const listed = parse(text, base)?.files;
  if (!Array.isArray(listed) || !listed.length) return null;
  if (listed.length > MOST_FILES) throw bad(`manifest.json lists ${listed.length} files, and at most ${MOST_FILES} are taken: ${shownUrl(base)}`);
  const names = new Set();
  return listed.map((file) => {
    const path = file?.name;
    const good = typeof path === "string" && isInside(path) && isLength(file.bytes) && isSha256(file.sha256);
    if (!good) throw bad(`manifest.json has an entry without a proper name, size and SHA-256: ${shown(JSON.stringify(file) ?? "", 120)}`);
    if (names.has(path)) throw bad(`manifest.json lists ${shown(path)} twice: ${shownUrl(base)}`);
    names.add(path);
    return planned(path, within(base, path), { bytes: file.bytes, sha256: file.sha256, proof: "manifest" });
  });
}

/**
 * Names of the shards that an index counts, each once.
 * @param {string} text
 * @param {string} where
 * @returns {string[]}
 */
export function shards(text, where) {
  const map = parse(text, where)?.weight_map;
  const names = map && typeof map === "object" ? [...new Set(Object.values(map))] : [];
  if (!names.length || !names.every((name) => typeof name === "string" && isInside(name))) {
    throw bad(`model.safetensors.index.json names no proper files: ${shownUrl(where)}`);
  }
  if (names.length > MOST_FILES) throw bad(`model.safetensors.index.json names ${names.length} files, and at most ${MOST_FILES} are taken: ${shownUrl(where)}`);
  return names.sort();
}
