// The visitor's message as the model heard it: its tokens, tinted, and the template's tokens after
// it. The last of those is where the model decides how to answer.

import { h } from "./dom.js";
import { editWords, heldBack } from "./setting-words.js";
import { describeToken, heat } from "./token-tip.js";

/** @import { TokenRecord, Turn } from "./types.d.ts" */

/**
 * @param {Turn} turn
 * @param {TokenRecord[]} tokens of the whole conversation up to the answer
 * @param {number} scale the activation that gets the full tint
 * @returns {{message: (Node | string)[], template: Node[]}}
 */
export function heardPrompt(turn, tokens, scale) {
  const plain = { message: [turn.prompt], template: [] };
  if (tokens.every((token) => token.activation === undefined)) return plain;
  const user = tokens.findLastIndex((token) => token.text === "<|user|>");
  const end = tokens.findIndex((token, index) => index > user && token.text === "<|end|>");
  if (user < 0 || end < 0) return plain;
  const heard = tokens.slice(user + 1, end);
  const same = heard.map((token) => token.text).join("").trim() === turn.prompt.trim();
  // Characters of several byte tokens have no text of their own: then the message stays plain.
  const message = same
    ? heard.map((token, index) => tinted(token, index ? token.text : token.text.trimStart(), user + 1 + index))
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
