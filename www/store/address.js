// Addresses of models and dictionaries: what visitors type, and how the Hugging Face Hub writes them.

import { StoreError } from "./errors.js";
import { shown, shownUrl } from "./shown.js";

/**
 * A place on the Hub.
 * @typedef {object} HubPlace
 * @property {string} repo "owner/name"
 * @property {string} revision
 * @property {string} path within the repository, "" for its root, without a slash at its end
 */

/** Characters of an address that is taken. */
const LONGEST = 4096;

/**
 * A part of an address with its percent signs taken for what they stand for, where they stand for anything.
 * @param {string} part
 */
export function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const HUBS = ["huggingface.co", "www.huggingface.co", "hf.co"];

/** Files that are a whole model or dictionary by themselves. */
const SINGLE = /\.(gguf|npz)$/i;

/**
 * The address in its one form: absolute, a folder's with a slash at its end, no fragment.
 * @param {string} text
 * @param {string} [base]
 * @returns {string}
 */
export function normalise(text, base) {
  const typed = text.trim();
  if (typed.length > LONGEST) throw new StoreError("bad-url", `An address of ${typed.length} characters is not taken.`);
  // "owner/name" alone means the Hub, as everywhere in this field.
  const short = /^[\w-][\w.-]*\/[\w.-]+\/?$/.test(typed) && !/\.(gguf|npz|safetensors)$/i.test(typed);
  let url;
  // A forgotten "https://" must not become a path of this site.
  if (!short && !/^(\.{0,2}\/|[a-z][a-z0-9+.-]*:)/i.test(typed)) throw new StoreError("bad-url", `\u201c${shown(typed)}\u201d is not an address: it begins with https://.`);
  try {
    url = new URL(short ? `https://huggingface.co/${typed}` : typed, base);
  } catch {
    throw new StoreError("bad-url", `\u201c${shown(typed)}\u201d is not an address.`);
  }
  if (!["https:", "http:"].includes(url.protocol)) {
    throw new StoreError("bad-url", `\u201c${shownUrl(typed)}\u201d is neither an https nor an http address.`);
  }
  url.hash = "";
  if (url.username || url.password) throw new StoreError("bad-url", "An address with a password in it is not taken.");
  if (!isFile(url.href) && !url.pathname.endsWith("/")) url.pathname += "/";
  // A link to a page about a file, as copied from the Hub.
  if (HUBS.includes(url.hostname)) {
    url.pathname = url.pathname.replace(/^(\/[^/]+\/[^/]+)\/blob\//, "$1/resolve/");
    url.search = "";
  }
  return url.href;
}

/**
 * Why a page cannot even ask this address, or null.
 * @param {string} href
 * @param {string} page the page's own address
 * @returns {StoreError | null}
 */
export function refused(href, page) {
  const url = new URL(href);
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (url.protocol === "https:" || local || url.origin === new URL(page).origin) return null;
  return new StoreError("insecure-url", `Browsers let this page read only https addresses, its own and those of this machine: ${shownUrl(href)}`);
}

/** Whether the address is that of one file rather than of a folder. */
export const isFile = (/** @type {string} */ href) => SINGLE.test(new URL(href).pathname);

/**
 * @param {string} href
 * @returns {HubPlace | null} null for other servers
 */
export function hubPlace(href) {
  const url = new URL(href);
  if (!HUBS.includes(url.hostname)) return null;
  const [owner, name, kind, revision, ...path] = url.pathname.split("/").filter(Boolean).map(decoded);
  if (!owner || !name || ["datasets", "spaces", "api"].includes(owner)) return null;
  const within = kind && ["resolve", "tree", "raw"].includes(kind);
  return { repo: `${owner}/${name}`, revision: (within && revision) || "main", path: within ? path.join("/") : "" };
}

/**
 * Where the Hub serves a file.
 * @param {HubPlace} place
 * @param {string} file
 */
export const hubFile = (place, file) =>
  `https://huggingface.co/${place.repo}/resolve/${encodeURIComponent(place.revision)}/${file.split("/").map(encodeURIComponent).join("/")}`;

/**
 * Where the Hub lists a folder with sizes and hashes.
 * @param {HubPlace} place
 */
export function hubTree(place) {
  const path = place.path ? `/${place.path.split("/").map(encodeURIComponent).join("/")}` : "";
  return `https://huggingface.co/api/models/${place.repo}/tree/${encodeURIComponent(place.revision)}${path}?recursive=true`;
}

/**
 * The last part of an address's path, as it is: the name of a file there.
 * @param {string} href
 */
export const fileName = (href) => decoded(new URL(href).pathname.split("/").filter(Boolean).at(-1) ?? "");

/**
 * The last part of the address that says something, as it is.
 * @param {string} href
 */
export function placeName(href) {
  const place = hubPlace(href);
  const url = new URL(href);
  const parts = place ? [place.repo.split("/")[1], ...place.path.split("/").filter(Boolean)] : url.pathname.split("/").filter(Boolean).map(decoded);
  const last = parts.at(-1);
  if (!last) return url.host;
  // A dictionary's folder is named by its layer: the one above says whose.
  return /^(layers?[._]?\d+|sae|final)$/i.test(last) && parts.length > 1 ? `${parts.at(-2)}/${last}` : last;
}

/** A name for people. */
export const nameOf = (/** @type {string} */ href) => shown(placeName(href));

/**
 * Where the files of an address are served: the Hub's pages about a folder are not its files.
 * @param {string} href
 */
export function servedAt(href) {
  const place = hubPlace(href);
  if (!place) return href;
  return isFile(href) ? hubFile(place, place.path) : hubFile(place, place.path ? `${place.path}/` : "");
}
