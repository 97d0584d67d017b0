// The tokens of an answer and of the prompt before it, as a table in a dialog.

import { h, number } from "./dom.js";
import { saveFile } from "./save.js";
import { editWords, heldBack, readUnder, settingName } from "./setting-words.js";
import { heat, visible } from "./token-tip.js";

/** @import { TokenRecord, Turn } from "./types.d.ts" */

/** Tokens that are shown: the last ones. Files have all. */
const MOST = 1000;

/**
 * @param {Turn} turn
 * @param {number} lane
 * @param {(feature: number) => void} choose steers another feature
 */
export function openTokens(turn, lane, choose) {
  const answer = turn.answers[lane];
  const tokens = [...answer.prompt, ...answer.tokens];
  const scale = tokens.reduce((most, token) => Math.max(most, token.activation ?? 0), 1e-6);
  // How many of each part are left out.
  const left = Math.max(0, tokens.length - MOST);
  const from = { prompt: Math.min(left, answer.prompt.length), answer: Math.max(0, left - answer.prompt.length) };
  const close = () => dialog.close();
  const pick = (/** @type {number} */ feature) => {
    close();
    choose(feature);
  };
  const steered = lane === 1;
  const feature = turn.tracked?.feature;
  const top = tokens.some((token) => token.top?.length);
  const names = ["Part", "Token", "Id", "Activation", ...(steered ? ["Edit"] : []), ...(top ? ["Strongest features"] : [])];
  const dialog = h(
    "dialog",
    { className: "sheet wide", "aria-labelledby": "tokens-title" },
    h(
      "header",
      {},
      h("h2", { id: "tokens-title" }, steered ? "Tokens of the steered answer" : "Tokens of the base answer"),
      h("button", { type: "button", className: "button", onclick: close }, "Close"),
    ),
    h(
      "p",
      { className: "muted" },
      feature === undefined
        ? "Without a dictionary there are no features to see. "
        : `How active feature ${feature} was when the model read each token, before the edit there. `,
      h("button", { type: "button", className: "term", "data-term": "colours" }, "How to read it"),
      ...(left ? [` The last ${number(MOST)} of ${number(tokens.length)} tokens are shown; the files have all.`] : []),
    ),
    h(
      "div",
      { className: "table-scroll", tabIndex: 0, role: "region", "aria-labelledby": "tokens-title" },
      h(
        "table",
        { className: "tokens" },
        h("thead", {}, h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...rows(turn, lane, "prompt", from.prompt, scale, pick), ...rows(turn, lane, "answer", from.answer, scale, pick)),
      ),
    ),
  );
  const save = (/** @type {"csv" | "json"} */ format) =>
    h("button", { type: "button", className: "button", onclick: () => saveFile(`tokens.${format}`, format === "csv" ? "text/csv" : "application/json", tokensAs(turn, lane, format)) }, `Save as ${format.toUpperCase()}`);
  dialog.append(h("div", { className: "actions" }, save("csv"), save("json")));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * @param {Turn} turn
 * @param {number} lane
 * @param {"prompt" | "answer"} part
 * @param {number} from the first token that is shown
 * @param {number} scale
 * @param {(feature: number) => void} pick
 * @returns {Node[]}
 */
function rows(turn, lane, part, from, scale, pick) {
  const answer = turn.answers[lane];
  const tokens = part === "prompt" ? answer.prompt : answer.tokens;
  const steered = lane === 1;
  return tokens.slice(from).flatMap((token, shown) => {
    const index = from + shown;
    const before = part === "answer" && steered ? (tokens[index - 1]?.setting ?? 0) : 0;
    const under = token.setting ?? before;
    const change = `From here on: ${settingName(turn.settings[under])}`;
    const row = h(
      "tr",
      { className: `of-${part}` },
      h("td", { className: "muted" }, shown === 0 ? part : ""),
      h("td", {}, h("code", {}, visible(token.text))),
      h("td", { className: "figure muted" }, String(token.id)),
      activation(token, scale, part === "answer" && index === tokens.length - 1),
      ...(steered ? [h("td", { className: "muted" }, edit(turn, token, part, index))] : []),
      ...(token.top ? [h("td", {}, ...token.top.map(([feature, value]) => topFeature(feature, value, pick)))] : []),
    );
    if (under === before) return [row];
    return [h("tr", { className: "of-change" }, h("th", { scope: "rowgroup", colSpan: 6 }, change)), row];
  });
}

/**
 * @param {number} feature
 * @param {number} value
 * @param {(feature: number) => void} pick
 */
function topFeature(feature, value, pick) {
  return h("button", { type: "button", className: "quiet", title: `Steer feature ${feature}`, onclick: () => pick(feature) }, `${feature} (${number(value)})`);
}

/**
 * @param {TokenRecord} token
 * @param {number} scale
 * @param {boolean} last whether it is the answer's last
 */
function activation(token, scale, last) {
  if (token.activation === undefined) return h("td", { className: "figure muted" }, last ? "not read" : "");
  const bar = h("span", { className: "bar" });
  bar.style.setProperty("--heat", heat(token.activation, scale));
  return h("td", { className: "figure" }, number(token.activation), bar);
}

/**
 * What is done in the steered answer when the token has been read.
 * @param {Turn} turn
 * @param {TokenRecord} token
 * @param {"prompt" | "answer"} part
 * @param {number} index of the token in its part
 */
function edit(turn, token, part, index) {
  if (token.activation === undefined) return "";
  const feature = turn.tracked?.feature ?? 0;
  const words =
    part === "answer"
      ? editWords(readUnder(turn, index), "generated", false, token.activation, feature)
      : editWords(heldBack(turn) ? null : turn.settings[0], "prompt", index === 0 && token.text === "<s>", token.activation, feature);
  return words.replace(/^then /, "");
}

/**
 * The tokens of an answer and of its prompt for programs.
 * @param {Turn} turn
 * @param {number} lane
 * @param {"csv" | "json"} format
 * @returns {string}
 */
export function tokensAs(turn, lane, format) {
  const answer = turn.answers[lane];
  const part = (/** @type {"prompt" | "answer"} */ name, /** @type {TokenRecord[]} */ tokens) =>
    tokens.map((token, index) => ({
      part: name,
      index,
      id: token.id,
      text: token.text,
      activation: token.activation ?? null,
      steered: name === "answer" && lane === 1 ? (token.steered ?? null) : null,
      setting: name === "answer" && lane === 1 ? settingName(turn.settings[token.setting ?? 0]) : null,
      top: token.top ?? null,
    }));
  const rows = [...part("prompt", answer.prompt), ...part("answer", answer.tokens)];
  if (format === "json") return `${JSON.stringify({ format: "phi3-steer tokens", version: 1, prompt: turn.prompt, lane, tracked: turn.tracked, tokens: rows }, null, 1)}\n`;
  const cell = (/** @type {unknown} */ value) => {
    const text = value === null ? "" : Array.isArray(value) ? value.map(([feature, strength]) => `${feature}:${strength}`).join(" ") : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const names = /** @type {const} */ (["part", "index", "id", "text", "activation", "steered", "setting", "top"]);
  return [names.join(","), ...rows.map((row) => names.map((name) => cell(row[name])).join(","))].join("\r\n") + "\r\n";
}
