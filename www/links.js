// Share links: the model, the dictionary, the setting and a prompt, in the address's fragment, which no
// server sees. What a link says is from outside: it is bounded, checked, and asked about where it costs.

import { MAX_LINK, MAX_PROMPT, quoted } from "./limits.js";
import { EngineError } from "./line.js";
import { normalise, refused } from "./store/address.js";
import { shownUrl } from "./store/shown.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Choice } from "./choice.js" */
/** @import { Entry } from "./types.d.ts" */

/** Names in a link that say what runs. */
const PLACES = ["model", "dictionary", "hookPoint"];

/** Names in a link that say what of the page is shown: see lab/route.js. */
const VIEWS = ["lab", "recipe"];

/**
 * @typedef {object} Link
 * @property {Record<string, string>} settings by name, unchecked
 * @property {Record<string, string>} places the model, the dictionary and where it goes, unchecked
 * @property {string} prompt "" if it has none
 * @property {string[]} notes about what was left out
 */

/**
 * @param {string} hash of the address
 * @returns {Link}
 */
export function parseLink(hash) {
  /** @type {Link} */
  const link = { settings: {}, places: {}, prompt: "", notes: [] };
  if (hash.length > MAX_LINK) {
    link.notes.push("The link is too long and is not read.");
    return link;
  }
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (name === "prompt") {
      link.prompt = value.slice(0, MAX_PROMPT);
      if (value.length > MAX_PROMPT) link.notes.push(`The link's prompt is cut to ${MAX_PROMPT} characters.`);
    } else if (PLACES.includes(name)) link.places[name] = value;
    else if (VIEWS.includes(name)) continue;
    else Object.defineProperty(link.settings, name, { value, enumerable: true, configurable: true });
  }
  return link;
}

/**
 * The model and dictionary that a link asks for.
 * @param {Link} link
 * @param {Catalogue} catalogue
 * @returns {Choice | null} null if it names no model; a StoreError if that is none that a page can read
 */
export function linkedChoice({ places }, catalogue) {
  if (places.model === undefined) return null;
  const model = entry(catalogue, "model", places.model);
  const own = places.dictionary ?? "auto";
  const sae = own === "auto" || own === "none" ? own : entry(catalogue, "dictionary", own);
  const saeHook = places.hookPoint ?? "";
  if (saeHook && !/^layers\.\d{1,4}$/.test(saeHook)) throw new EngineError("bad-url", `The link names the hook point ${quoted(saeHook)}, which is none.`);
  return { model, sae, saeHook, keep: true };
}

/**
 * @param {Catalogue} catalogue
 * @param {Entry["kind"]} kind
 * @param {string} text a name of the catalogue or an address
 * @returns {Entry}
 */
function entry(catalogue, kind, text) {
  const known = catalogue.find(text);
  if (known?.kind === kind) return known;
  const href = normalise(text, document.baseURI);
  const no = refused(href, document.baseURI);
  if (no) throw no;
  return catalogue.at(kind, href) ?? { id: href, kind, name: shownUrl(href), url: href };
}

/**
 * Whether two choices are of the same things.
 * @param {Choice} a
 * @param {Choice} b
 */
export function sameChoice(a, b) {
  const key = (/** @type {Entry | string} */ one) => (typeof one === "string" ? one : one.builtIn ? "nano" : (one.url ?? one.id));
  return key(a.model) === key(b.model) && key(a.sae) === key(b.sae) && a.saeHook === b.saeHook;
}

/**
 * The link's parts that say what runs. Files of this machine cannot be linked to; an address goes
 * without its query, which may hold a key of the visitor's.
 * @param {Choice} choice
 * @returns {[string, string][]}
 */
export function placesOf({ model, sae, saeHook }) {
  /** @type {(entry: Entry) => string | null} */
  const place = (entry) => {
    if (entry.files) return null;
    if (!entry.own && !entry.beside && entry.id !== entry.url) return entry.id;
    const url = new URL(entry.url ?? "", document.baseURI);
    url.search = "";
    return url.href;
  };
  const where = place(model);
  if (where === null) return [];
  const dictionary = typeof sae === "string" ? sae : place(sae);
  return [["model", where], ...(dictionary === null ? [] : /** @type {[string, string][]} */ ([["dictionary", dictionary]])), ...(saeHook ? /** @type {[string, string][]} */ ([["hookPoint", saeHook]]) : [])];
}

/**
 * An address that opens the page as it is.
 * @param {[string, string][]} pairs
 * @param {string} prompt
 * @returns {string}
 */
export function linkTo(pairs, prompt) {
  const url = new URL(location.href);
  const all = prompt ? [...pairs, ["prompt", prompt.slice(0, MAX_PROMPT)]] : pairs;
  url.hash = new URLSearchParams(all).toString();
  return url.href;
}
