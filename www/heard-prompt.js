// The visitor's message as the model heard it: its tokens, tinted, and the template's tokens after
// it. The last of those is where the model decides how to answer.

import { h } from "./dom.js";
import { describeToken, heat } from "./token-tip.js";

/** @import { Turn } from "./conversation.js" */
/** @import { TokenRecord } from "./types.d.ts" */

/**
 * @param {Turn} turn
 * @param {TokenRecord[]} tokens of the whole conversation up to the answer
 * @param {number} scale the activation that gets the full tint
 * @returns {(Node | string)[]}
 */
export function heardPrompt(turn, tokens, scale) {
  if (tokens.every((token) => token.activation === undefined)) return [turn.prompt];
  const user = tokens.findLastIndex((token) => token.text === "<|user|>");
  const end = tokens.findIndex((token, index) => index > user && token.text === "<|end|>");
  if (user < 0 || end < 0) return [turn.prompt];
  const message = tokens.slice(user + 1, end);
  const same = message.map((token) => token.text).join("").trim() === turn.prompt.trim();
  const nodes = same
    ? message.map((token, index) => tinted(token, index ? token.text : token.text.trimStart(), "token"))
    : [turn.prompt];
  const template = tokens.slice(end).map((token) => tinted(token, token.text.trim(), "token special"));
  const first = nodes[0] instanceof HTMLElement ? nodes[0] : template[0];
  if (first) first.tabIndex = 0;

  /**
   * @param {TokenRecord} token
   * @param {string} text
   * @param {string} className
   */
  function tinted(token, text, className) {
    const span = h("span", { className, tabIndex: -1 }, text);
    span.style.setProperty("--heat", heat(token.activation ?? 0, scale));
    describeToken(span, token, turn.steering.feature);
    return span;
  }

  return [...nodes, ...template];
}
