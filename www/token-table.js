// All tokens of an answer and of the prompt before it, as a table in a dialog.

import { h, number } from "./dom.js";
import { heat, visible } from "./token-tip.js";

/** @import { Turn } from "./conversation.js" */
/** @import { TokenRecord } from "./types.d.ts" */

/**
 * @param {Turn} turn
 * @param {number} lane
 * @param {(feature: number) => void} choose steers another feature
 */
export function openTokens(turn, lane, choose) {
  const answer = turn.answers[lane];
  const values = [...answer.prompt, ...answer.tokens].map((token) => token.activation ?? 0);
  const scale = Math.max(1e-6, ...values);
  const close = () => dialog.close();
  const pick = (/** @type {number} */ feature) => {
    close();
    choose(feature);
  };
  const dialog = h(
    "dialog",
    { className: "sheet", "aria-label": "Tokens" },
    h(
      "header",
      {},
      h("h2", {}, lane === 1 ? "Tokens, steered lane" : "Tokens, base lane"),
      h("button", { type: "button", className: "button", onclick: close }, "Close"),
    ),
    h("p", { className: "muted" }, `Activation of feature ${turn.tracked?.feature} at each token, before any edit there.`),
    h(
      "div",
      { className: "table-scroll", tabIndex: 0 },
      h(
        "table",
        { className: "tokens" },
        h("thead", {}, h("tr", {}, ...["", "Token", "Id", "Activation", "Strongest features"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...rows(answer.prompt, "prompt", scale, pick), ...rows(answer.tokens, "answer", scale, pick)),
      ),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * @param {TokenRecord[]} tokens
 * @param {string} part
 * @param {number} scale
 * @param {(feature: number) => void} pick
 * @returns {Node[]}
 */
function rows(tokens, part, scale, pick) {
  return tokens.map((token, index) => {
    const bar = h("span", { className: "bar" });
    bar.style.setProperty("--heat", heat(token.activation ?? 0, scale));
    return h(
      "tr",
      { className: `of-${part}` },
      h("td", { className: "muted" }, index === 0 ? part : ""),
      h("td", {}, h("code", {}, visible(token.text))),
      h("td", { className: "figure muted" }, String(token.id)),
      h("td", { className: "figure" }, token.activation === undefined ? "" : number(token.activation), bar),
      h(
        "td",
        {},
        ...(token.top ?? []).map(([feature, value]) =>
          h("button", { type: "button", className: "quiet", title: `Steer feature ${feature}`, onclick: () => pick(feature) }, `${feature} (${number(value)})`),
        ),
      ),
    );
  });
}
