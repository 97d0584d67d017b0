// What numbers and texts from links, storage, reports and fields may be: the engine's own ranges,
// and bounds for what it does not bound. One rule for all of them.

import { shown } from "./store/shown.js";

/** The largest number of the engine's unsigned integers. */
export const U32 = 2 ** 32 - 1;

/** No strength beyond this does anything but break the text, whatever the dictionary. */
export const MAX_STRENGTH = 1000;

/** Characters of a prompt in a link. */
export const MAX_PROMPT = 4000;

/** Characters of a link's settings. */
export const MAX_LINK = 16_000;

/** Rows of a report's table that are read. */
export const MAX_ROWS = 1000;

/** Bytes of a report. */
export const MAX_REPORT = 4e6;

/** Characters of a name or a sentence from outside. */
export const MAX_TEXT = 300;

/** Characters of a value that a sentence quotes. */
const LONGEST_QUOTE = 40;

/**
 * What the loaded model and dictionary allow, as far as they are known.
 * @typedef {object} Known
 * @property {number | null} features latents of the dictionary
 * @property {number | null} context tokens
 * @property {number} strength the largest that the slider offers
 */

/** @type {Known} */
export const NOTHING_KNOWN = { features: null, context: null, strength: MAX_STRENGTH };

/**
 * @typedef {object} Range
 * @property {number} least
 * @property {number} most
 * @property {boolean} whole whether only integers will do
 */

/**
 * The range of each number that the page hands to the engine.
 * @param {Known} known
 * @returns {Record<"feature" | "seed" | "maxTokens" | "temperature" | "strength", Range>}
 */
export const ranges = ({ features, context, strength }) => ({
  feature: { least: 0, most: features === null ? U32 : Math.max(0, features - 1), whole: true },
  seed: { least: 0, most: U32, whole: true },
  maxTokens: { least: 1, most: context ?? U32, whole: true },
  temperature: { least: 0, most: 2, whole: false },
  strength: { least: -strength, most: strength, whole: false },
});

/**
 * What is wrong with a number, as the end of a sentence that begins with its name; null if nothing is.
 * @param {unknown} value
 * @param {Range} range
 * @returns {string | null}
 */
export function wrong(value, { least, most, whole }) {
  const must = `must be ${whole ? "a whole number" : "a number"} from ${least} to ${most}`;
  const good = typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
  return good ? null : `${must}, and not ${quoted(value)}`;
}

/**
 * A value from outside as it may stand in a sentence.
 * @param {unknown} value
 * @returns {string}
 */
export function quoted(value) {
  if (typeof value === "object" && value !== null) return "a list of things";
  return typeof value === "string" ? `\u201c${shown(value, LONGEST_QUOTE)}\u201d` : String(value);
}

/**
 * A percentage from outside.
 * @param {unknown} value
 * @returns {value is number}
 */
export const isPercent = (value) => typeof value === "number" && value >= 0 && value <= 100;

/**
 * The text of an answer, read no further than the bound.
 * @param {Response} response
 * @param {number} most bytes
 * @returns {Promise<string>} a RangeError if there is more
 */
export async function readText(response, most) {
  const reader = response.body?.getReader();
  if (!reader) return "";
  const decoder = new TextDecoder();
  let text = "";
  for (let bytes = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    bytes += value.length;
    if (bytes > most) {
      await reader.cancel();
      throw new RangeError(`it is longer than ${most / 1e6} MB`);
    }
    text += decoder.decode(value, { stream: true });
  }
}
