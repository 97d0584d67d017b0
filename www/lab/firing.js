// "Which features fire here": a token of the chat, and the features that were strongest when the model read it.

import { h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError, EngineError } from "../line.js";
import { visible } from "../token-tip.js";
import { allLabels } from "./labels.js";

/** @import { Conversation } from "../conversation.js" */
/** @import { Message, TokenRecord, Turn } from "../types.d.ts" */
/** @import { LabPage } from "./lab.js" */

/**
 * Where a token is in the chat.
 * @typedef {object} Place
 * @property {Turn} turn
 * @property {number} lane
 * @property {"prompt" | "answer"} part
 * @property {number} index of the token in its part
 */

/** Features that are listed. */
const MOST = 12;

/**
 * The conversation up to the end of the part that the token is in.
 * @param {Turn[]} turns of the whole conversation
 * @param {Place} place
 * @returns {Message[]}
 */
export function heardUpTo(turns, { turn, lane, part }) {
  const before = turns.slice(0, Math.max(0, turns.indexOf(turn))).filter((one) => one.state === "done");
  /** @type {(one: Turn) => Message[]} */
  const both = (one) => [
    { role: "user", content: one.prompt },
    { role: "assistant", content: one.answers[lane].text },
  ];
  return [...before.flatMap(both), ...both(turn).slice(0, part === "prompt" ? 1 : 2)];
}

/**
 * The token of another reading of the same conversation that is at a place; undefined where there is none.
 * @param {TokenRecord[]} read
 * @param {Place} place
 * @returns {TokenRecord | undefined}
 */
export function tokenAt(read, { turn, lane, part, index }) {
  const own = turn.answers[lane];
  if (part === "prompt") return read.length === own.prompt.length ? read[index] : undefined;
  const all = read.map(({ text }) => text).join("");
  const text = own.text.trim();
  const begin = text ? all.lastIndexOf(text) : -1;
  if (begin < 0) return undefined;
  const skipped = own.text.length - own.text.trimStart().length;
  const before = own.tokens.slice(0, index).reduce((sum, token) => sum + token.text.length, 0);
  // A token may begin with white space that belongs to none of its letters.
  const inside = own.tokens[index].text.length - own.tokens[index].text.trimStart().length;
  let at = begin + Math.max(0, before + inside - skipped);
  for (const token of read) {
    if (at < token.text.length) return token;
    at -= token.text.length;
  }
  return undefined;
}

/**
 * @param {LabPage} page
 * @param {Conversation} conversation
 * @param {Place} place
 */
export async function openFiring(page, conversation, place) {
  const token = place.turn.answers[place.lane][place.part === "prompt" ? "prompt" : "tokens"][place.index];
  const close = () => dialog.close();
  const list = h("div", {}, h("p", { className: "muted" }, "Reading the conversation up to here\u2026"));
  const dialog = h(
    "dialog",
    { className: "sheet", "aria-labelledby": "firing-title" },
    h("header", {}, h("h2", { id: "firing-title" }, "Features that fire at ", h("code", {}, visible(token.text))), h("button", { type: "button", className: "button", onclick: close }, "Close")),
    h("p", { className: "muted" }, "The strongest when the model read this token, before any edit. Each has a card with its most active words."),
    list,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  try {
    const top = token.top ?? (await firing(page, conversation, place));
    const labels = new Map((await allLabels(page.runner)).map(({ feature, label }) => [feature, label]));
    const go = (/** @type {() => void} */ run) => () => {
      close();
      run();
    };
    const row = (/** @type {[number, number]} */ [feature, value]) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, String(feature), labels.has(feature) ? h("small", {}, ` ${labels.get(feature)}`) : null),
        h("td", { className: "figure" }, number(value)),
        h(
          "td",
          {},
          h("button", { type: "button", className: "quiet", "aria-label": `Card of feature ${feature}`, onclick: go(() => page.open("feature", feature)) }, "Card"),
          h("button", { type: "button", className: "quiet", "aria-label": `Steer feature ${feature}`, onclick: go(() => page.settings.set({ feature })) }, "Steer"),
        ),
      );
    list.replaceChildren(
      top.length
        ? h("div", { className: "lab-table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Feature"), h("th", { scope: "col" }, "Activation"), h("th", { scope: "col" }, h("span", { className: "sr-only" }, "What to do with it")))), h("tbody", {}, ...top.slice(0, MOST).map(row))))
        : h("p", { className: "muted" }, "None: no feature was active here."),
    );
  } catch (error) {
    list.replaceChildren(errorPanel(asEngineError(error), []));
  }
}

/**
 * @param {LabPage} page
 * @param {Conversation} conversation
 * @param {Place} place
 * @returns {Promise<[number, number][]>}
 */
async function firing(page, conversation, place) {
  const { tracked } = place.turn;
  if (!tracked) throw new EngineError("no-hook", "Without a dictionary there are no features to see.");
  const messages = heardUpTo(conversation.turns, place);
  /** @type {TokenRecord[]} */
  let read = [];
  await page.borrow(async (engine) => {
    const hook = engine.info.sae?.hook ?? tracked.hook;
    const events = engine.chat({ lanes: [{ messages }], maxTokens: 0, track: { hook, feature: tracked.feature }, topFeatures: Math.min(MOST, engine.info.sae?.k ?? MOST) });
    for await (const event of events) if (event.type === "prompt") read = event.tokens;
  });
  const found = tokenAt(read, place);
  if (!found) throw new EngineError("bad-request", "This token is not found again in the conversation.");
  return found.top ?? [];
}
