// A conversation as it is kept and as it is exported.

import { EngineError } from "./line.js";
import { MAX_TEXT } from "./limits.js";
import { gateWords } from "./setting-words.js";

/** @import { Answer, Ending, Setting, TokenRecord, Turn } from "./types.d.ts" */

/** Turns of a conversation that are kept: the last ones. */
const MAX_TURNS = 500;

/** Characters of a message or an answer that are kept. */
const MAX_MESSAGE = 200_000;

/** Tokens of a conversation whose activations are kept: those of the last turns. Of the others the text stays. */
const MAX_TOKENS = 20_000;

/** @type {Ending[]} */
const ENDINGS = ["finished", "empty", "length", "context", "stopped", "broken"];

/**
 * A turn without what cannot be stored.
 * @typedef {Omit<Turn, "error"> & {error: {code: string, message: string} | null}} SavedTurn
 */

/**
 * What is kept of a conversation.
 * @typedef {object} Saved
 * @property {string} id
 * @property {number} at when it was last changed, in milliseconds since 1970
 * @property {string} title
 * @property {[string, string][]} places the model and the dictionary, as a link says them
 * @property {SavedTurn[]} turns
 */

/**
 * @param {string} id
 * @param {Turn[]} turns at least one
 * @param {[string, string][]} places
 * @returns {Saved}
 */
export function save(id, turns, places) {
  let left = MAX_TOKENS;
  /** @type {SavedTurn[]} */
  const kept = [];
  for (const turn of turns.slice(-MAX_TURNS).reverse()) {
    const count = turn.answers.reduce((sum, answer) => sum + answer.tokens.length + answer.prompt.length, 0);
    left -= count;
    const answers = turn.answers.map((answer) => ({
      ...answer,
      text: answer.text.slice(0, MAX_MESSAGE),
      ...(left < 0 ? { prompt: [], tokens: [] } : {}),
    }));
    const error = turn.error && { code: turn.error.code, message: turn.error.message.slice(0, MAX_TEXT) };
    kept.push({ ...turn, prompt: turn.prompt.slice(0, MAX_MESSAGE), answers: /** @type {[Answer, Answer]} */ (answers), error });
  }
  return { id, at: Date.now(), title: title(turns[0].prompt), places, turns: kept.reverse() };
}

/** The beginning of the first message, in one line. */
const title = (/** @type {string} */ prompt) => {
  const line = prompt.slice(0, 200).replace(/\s+/g, " ").trim();
  return line.length > 70 ? `${line.slice(0, 70)}\u2026` : line;
};

/**
 * The turns of a kept conversation, whatever is in it: what is none is left out.
 * @param {any} saved
 * @returns {Turn[]}
 */
export function revive(saved) {
  if (!Array.isArray(saved?.turns)) return [];
  return saved.turns.slice(-MAX_TURNS).flatMap((/** @type {any} */ turn) => {
    const answers = [0, 1].map((lane) => reviveAnswer(turn?.answers?.[lane]));
    const settings = Array.isArray(turn?.settings) ? turn.settings.slice(0, 1000).filter(isSetting) : [];
    if (typeof turn?.prompt !== "string" || !answers[0] || !answers[1] || !settings.length) return [];
    const whole = turn.state === "done";
    // The page was closed while it was being written.
    const broken = turn.state === "running" ? { code: "broken-off", message: "The page was closed in the middle of this answer." } : turn.error;
    /** @type {Turn} */
    const revived = {
      prompt: turn.prompt.slice(0, MAX_MESSAGE),
      answers: /** @type {[Answer, Answer]} */ (answers),
      tracked: typeof turn.tracked?.hook === "string" && Number.isInteger(turn.tracked.feature) ? { hook: turn.tracked.hook, feature: turn.tracked.feature } : null,
      settings,
      sampling: { temperature: Number(turn.sampling?.temperature) || 0, seed: Number(turn.sampling?.seed) || 0, maxTokens: Number(turn.sampling?.maxTokens) || 0 },
      model: String(turn.model ?? "").slice(0, MAX_TEXT),
      dictionary: turn.dictionary === null ? null : String(turn.dictionary ?? "").slice(0, MAX_TEXT),
      state: whole ? "done" : "failed",
      error: whole && !broken ? null : new EngineError(String(broken?.code ?? "broken-off"), String(broken?.message ?? "This answer broke off.").slice(0, MAX_TEXT)),
      tokensPerSecond: Number(turn.tokensPerSecond) || 0,
      firstTokenAt: 0,
    };
    for (const token of answers[1].tokens) if (!settings[token.setting ?? 0]) token.setting = 0;
    return [revived];
  });
}

/**
 * @param {any} answer
 * @returns {Answer | null}
 */
function reviveAnswer(answer) {
  if (typeof answer?.text !== "string") return null;
  const tokens = (/** @type {any} */ list) => (Array.isArray(list) ? list.slice(0, MAX_TOKENS).filter(isToken) : []);
  return {
    text: answer.text.slice(0, MAX_MESSAGE),
    prompt: tokens(answer.prompt),
    tokens: tokens(answer.tokens),
    end: ENDINGS.includes(answer.end) ? answer.end : "broken",
    ...(Number.isFinite(answer.gate?.score) && Number.isFinite(answer.gate?.threshold) ? { gate: { score: answer.gate.score, threshold: answer.gate.threshold, steered: answer.gate.steered === true } } : {}),
  };
}

/**
 * @param {any} token
 * @returns {token is TokenRecord}
 */
const isToken = (token) =>
  typeof token?.text === "string" && Number.isInteger(token.id) && (token.activation === undefined || typeof token.activation === "number") && (token.top === undefined || Array.isArray(token.top));

/**
 * @param {any} setting
 * @returns {setting is Setting}
 */
const isSetting = (setting) =>
  typeof setting?.label === "string" && typeof setting.on === "boolean" && typeof setting.hook === "string" && Number.isInteger(setting.feature) && typeof setting.op === "string";

/**
 * The conversation for people, in Markdown.
 * @param {Saved} saved
 * @returns {string}
 */
export function toMarkdown({ at, title, turns }) {
  const parts = [`# ${title}`, `Kept by phi3-steer, ${new Date(at).toISOString().slice(0, 16).replace("T", " ")} UTC.`];
  let names = "";
  turns.forEach((turn, index) => {
    const now = `Model: ${turn.model}. Dictionary: ${turn.dictionary ?? "none"}.`;
    if (now !== names) parts.push((names = now));
    const [base, steered] = turn.answers;
    parts.push(`## Turn ${index + 1}`, turn.prompt.split("\n").map((line) => `> ${line}`).join("\n"));
    parts.push(`### Base${ended(base)}`, base.text.trim() || "(nothing)");
    parts.push(`### Steered: ${turn.settings.map(settingText).join("; ")}${steered.gate ? `; ${gateWords(steered.gate)}` : ""}${ended(steered)}`, steered.text.trim() || "(nothing)");
    const { temperature, seed, maxTokens } = turn.sampling;
    parts.push(`Temperature ${temperature}, seed ${seed}, at most ${maxTokens} tokens.`);
  });
  return `${parts.join("\n\n")}\n`;
}

/** @param {Answer} answer */
const ended = ({ end }) => (end === "finished" || end === null ? "" : ` (${{ empty: "empty", length: "cut at the length limit", context: "the context was full", stopped: "stopped", broken: "broken off" }[end]})`);

/** @param {Setting} setting */
const settingText = ({ label, on, hook, feature, set, direction, from }) => `${label}${on ? ` of ${direction ? "a direction" : set ? `features ${set.map((one) => `${one.feature} (\u00d7 ${one.max})`).join(", ")}` : `feature ${feature}`} at ${hook}` : ""}${from ? ` from token ${from + 1} on` : ""}`;

/**
 * The conversation for programs: all that is kept of it.
 * @param {Saved} saved
 * @returns {string}
 */
export const toJson = (saved) => `${JSON.stringify({ format: "phi3-steer conversation", version: 1, ...saved }, null, 1)}\n`;
