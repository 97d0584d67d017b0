// What may be said of an answer by its text and by how it ended: declined, answered, or that it is none.

/** @import { Ending } from "./types.d.ts" */

/**
 * @typedef {object} Verdict
 * @property {string} label
 * @property {string} why in a sentence
 */

/** How an answer without an end of its own is called. */
const UNFINISHED = {
  stopped: { label: "Stopped", why: "It was stopped before its end: whether it would have declined is not known." },
  length: { label: "Cut off", why: "It reached the longest answer that is set under Advanced." },
  context: { label: "Cut off", why: "The model's context is full." },
  broken: { label: "Broken off", why: "The engine stopped in the middle of it." },
};

/**
 * @param {string} text
 * @param {Ending} end
 * @param {boolean | null} refused whether it holds a phrase of refusal, null when that is not known
 * @returns {Verdict | null} null when nothing can be said
 */
export function verdict(text, end, refused) {
  if (!text.trim()) {
    if (end === "stopped") return { label: "Stopped", why: "Stopped before the first word." };
    if (end === "broken") return { label: "Broken off", why: "It broke off before the first word." };
    return { label: "Empty", why: "The model ended its answer without a word." };
  }
  if (loops(text)) return { label: "Garbled", why: "The text goes round in circles." };
  if (refused) return { label: "Declined", why: "It holds a phrase of refusal, such as \u201ccan't help with\u201d." };
  if (end in UNFINISHED) return UNFINISHED[/** @type {keyof typeof UNFINISHED} */ (end)];
  if (dangles(text)) return { label: "Unfinished", why: "The model ended it in the middle of a sentence." };
  if (refused === null) return null;
  return { label: "Answered", why: "It holds no phrase of refusal. Whether it is right, nobody has checked." };
}

/** Words that are looked at, from the end: a loop is where generation got stuck. */
const WORDS = 400;
/** The longest phrase, in words, that is looked for. */
const LONGEST = 16;

/**
 * Whether the text ends up saying one phrase over and over: at least three times on end, and at least
 * six words in all.
 * @param {string} text
 */
export function loops(text) {
  const words = (text.slice(-8000).toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).slice(-WORDS);
  for (let length = 1; length <= LONGEST; length++) {
    const enough = Math.max(2 * length, 6 - length);
    let run = 0;
    for (let at = length; at < words.length; at++) {
      run = words[at] === words[at - length] && /\p{L}/u.test(words[at]) ? run + 1 : 0;
      if (run >= enough) return true;
    }
  }
  return false;
}

/** Words that no answer ends with. */
const DANGLING = new Set("a an the i and or but nor because if whether than into my your our their its whose very".split(" "));

/**
 * Whether a text that its writer ended stops in the middle of a sentence.
 * @param {string} text
 */
export function dangles(text) {
  const [, word, comma] = /(\p{L}+)(,?)$/u.exec(text.trimEnd().slice(-80)) ?? [];
  return word !== undefined && (comma === "," || DANGLING.has(word.toLowerCase()));
}
