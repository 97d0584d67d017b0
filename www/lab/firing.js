// "Which features fire here": a token of the chat, and the features that were strongest when the model read it.

import { h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError, EngineError } from "../line.js";
import { heldBack } from "../setting-words.js";
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
 * The conversation up to the message that the turn answers.
 * @param {Turn[]} turns of the whole conversation
 * @param {Turn} turn
 * @param {number} lane
 * @returns {Message[]}
 */
export function heardUpTo(turns, turn, lane) {
  const before = turns.slice(0, Math.max(0, turns.indexOf(turn))).filter((one) => one.state === "done");
  const heard = before.flatMap((one) => [
    { role: /** @type {const} */ ("user"), content: one.prompt },
    { role: /** @type {const} */ ("assistant"), content: one.answers[lane].text },
  ]);
  return [...heard, { role: "user", content: turn.prompt }];
}

/**
 * A token of a turn that was run once more; undefined where it went another way this time.
 * @param {{prompt: TokenRecord[], tokens: TokenRecord[]}} again
 * @param {Place} place
 * @returns {TokenRecord | undefined}
 */
export function tokenAgain(again, { turn, lane, part, index }) {
  const own = turn.answers[lane];
  const [was, is] = part === "prompt" ? [own.prompt, again.prompt] : [own.tokens, again.tokens];
  const same = was.slice(0, index + 1).every((token, place) => is[place]?.id === token.id);
  return same ? is[index] : undefined;
}

/**
 * @param {LabPage} page
 * @param {Conversation} conversation
 * @param {Place} place
 */
export async function openFiring(page, conversation, place) {
  const token = place.turn.answers[place.lane][place.part === "prompt" ? "prompt" : "tokens"][place.index];
  const close = () => dialog.close();
  const list = h("div", {}, h("p", { className: "muted" }, "Running the turn once more, up to here\u2026"));
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
  const { turn, lane, part, index } = place;
  const [setting] = turn.settings;
  const { temperature, seed } = turn.sampling;
  /** @type {{prompt: TokenRecord[], tokens: TokenRecord[]}} */
  const again = { prompt: [], tokens: [] };
  await page.borrow(async (engine) => {
    await engine.setSteering(0, lane === 1 && !heldBack(turn) ? page.settings.interventions(setting) : []);
    const events = engine.chat({
      lanes: [{ messages: heardUpTo(conversation.turns, turn, lane) }],
      // A token tells its features when it is read, which is when the next one is written.
      maxTokens: part === "prompt" ? 0 : index + 2,
      sampling: { temperature, seed },
      track: { hook: engine.info.sae?.hook ?? tracked.hook, feature: tracked.feature },
      topFeatures: Math.min(MOST, engine.info.sae?.k ?? MOST),
    });
    for await (const event of events) {
      if (event.type === "prompt") again.prompt = event.tokens;
      else if (event.type === "token") again.tokens.push(event);
    }
  });
  const found = tokenAgain(again, place);
  if (!found) throw new EngineError("bad-request", "Run once more, the answer went another way before this token: the setting was changed in its middle, or the model is another one.");
  if (!found.top) throw new EngineError("bad-request", "The model did not read this token any more: its answer was over.");
  return found.top;
}
