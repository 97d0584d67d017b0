// The visitor's message as the model heard it: its tokens, tinted, and the template's tokens after
// it. The last of those is where the model decides how to answer.

import { h } from "./dom.js";
import { editWords, heldBack } from "./setting-words.js";
import { describeToken, heat } from "./token-tip.js";

/** @import { TokenRecord, Turn } from "./types.d.ts" */

/** What ends a message in the chat formats that are known. */
const ENDS = ["<|end|>", "<|im_end|>", "<|eot_id|>", "</s>"];

/**
 * @param {Turn} turn
 * @param {TokenRecord[]} tokens of the whole conversation up to the answer
 * @param {number} scale the activation that gets the full tint
 * @returns {{message: (Node | string)[], template: Node[]}}
 */
export function heardPrompt(turn, tokens, scale) {
  const plain = { message: [turn.prompt], template: [] };
  if (tokens.every((token) => token.activation === undefined)) return plain;
  const place = placeOf(turn.prompt.trim(), tokens);
  const end = place?.end ?? tokens.findLastIndex(({ text }) => ENDS.includes(text));
  if (end < 0) return plain;
  // Characters of several byte tokens have no text of their own: then the message stays plain.
  const message = place
    ? tokens.slice(place.from, place.end).map((token, index) => tinted(token, index ? token.text : token.text.trimStart(), place.from + index))
    : [turn.prompt];
  const template = tokens.slice(end).map((token, index) => tinted(token, token.text.trim(), end + index));
  const first = message[0] instanceof HTMLElement ? message[0] : template[0];
  if (first) first.tabIndex = 0;

  /**
   * @param {TokenRecord} token
   * @param {string} text
   * @param {number} index of the token
   */
  function tinted(token, text, index) {
    const span = h("span", { className: "token", tabIndex: -1 }, text);
    span.style.setProperty("--heat", heat(token.activation ?? 0, scale));
    const feature = turn.tracked?.feature ?? 0;
    const notes = turn.settings[0].on ? [`base answer: ${editWords(null, "prompt", false, 0, feature)}`, `steered answer: ${editWords(heldBack(turn) ? null : turn.settings[0], "prompt", false, token.activation ?? 0, feature)}`] : [];
    describeToken(span, { token, feature, notes, place: { turn, lane: 0, part: "prompt", index } });
    return span;
  }

  return { message, template };
}

/**
 * Where the message stands among the tokens: those whose text it is, before a mark of the template if there
 * are several such places, as where it says what the template says too.
 * @param {string} message
 * @param {TokenRecord[]} tokens
 * @returns {{from: number, end: number} | null} from its first token to the one after its last
 */
export function placeOf(message, tokens) {
  const text = tokens.map((token) => token.text).join("");
  /** Beginnings of tokens, and the end of the last. @type {Map<number, number>} */
  const edges = new Map();
  let offset = 0;
  for (const [index, token] of tokens.entries()) {
    edges.set(offset, index);
    offset += token.text.length;
  }
  edges.set(offset, tokens.length);
  const places = [];
  for (let at = message ? text.indexOf(message) : -1; at >= 0; at = text.indexOf(message, at + 1)) {
    // The first word's token may begin with a space.
    const from = edges.get(at) ?? (/\s/.test(text[at - 1] ?? "") ? edges.get(at - 1) : undefined);
    const end = edges.get(at + message.length);
    if (from !== undefined && end !== undefined) places.push({ from, end });
  }
  return places.find(({ end }) => ENDS.includes(tokens[end]?.text)) ?? places.at(-1) ?? null;
}
