// A turn's settings in words: what the steered answer ran under, and what that does at a token.

import { number } from "./dom.js";
import { OPERATORS } from "./operators.js";

/** @import { Gated, Setting, Turn } from "./types.d.ts" */

/**
 * "feature 329, clamp 8"
 * @param {Setting} setting
 */
export const settingName = (setting) => (setting.on ? `${steeredName(setting)}, ${setting.label}` : setting.label);

/**
 * "feature 329", "3 features", "a direction"
 * @param {Setting} setting
 */
const steeredName = ({ feature, set, direction }) => (direction ? "the direction" : set && set.length > 1 ? `features ${set.map((one) => one.feature).join(", ")}` : `feature ${feature}`);

/**
 * "looked harmful, 0.93: steered"
 * @param {Gated} gate
 */
export function gateWords({ score, steered }) {
  const told = (Math.floor(100 * score) / 100).toFixed(2);
  return steered ? `looked harmful, ${told}: steered` : `looked harmless, ${told}: not steered`;
}

/**
 * Whether the gate kept the answer from being steered.
 * @param {Turn} turn
 */
export const heldBack = (turn) => turn.answers[1].gate?.steered === false;

/**
 * The settings that tokens were written under, the first one always among them, since the prompt was
 * read under it.
 * @param {Turn} turn
 */
export const usedSettings = (turn) => turn.settings.filter((setting, index) => index === 0 || setting.from !== null);

/**
 * All that the steered answer ran under, short enough for its head.
 * @param {Turn} turn
 */
export function settingsName(turn) {
  const used = usedSettings(turn);
  const [first] = used;
  const rest = used.slice(1).map((setting) => (setting.on && setting.feature !== first.feature ? settingName(setting) : setting.label));
  if (rest.length > 2) return `${settingName(first)}, then ${rest.length} changes, at last ${rest[rest.length - 1]}`;
  return [settingName(first), ...rest].join(", then ");
}

/**
 * The setting under which the model read a token of the steered answer: the one that its next token was
 * written under, or, at the end, its own; null where it did not read it.
 * @param {Turn} turn
 * @param {number} index of the token
 * @returns {Setting | null}
 */
export function readUnder(turn, index) {
  const { tokens } = turn.answers[1];
  if (tokens[index]?.activation === undefined || heldBack(turn)) return null;
  const writer = tokens[index + 1] ?? tokens[index];
  return turn.settings[writer.setting ?? 0] ?? null;
}

/**
 * What is done to the residual stream at a token.
 * @param {Setting | null} setting that the token is read under, null for the base lane
 * @param {"prompt" | "generated"} part the token's
 * @param {boolean} first whether it is the conversation's first token
 * @param {number} activation of the tracked feature, before the edit
 * @param {number} tracked that feature
 * @returns {string}
 */
export function editWords(setting, part, first, activation, tracked) {
  if (!setting?.on || (setting.positions !== "all" && setting.positions !== part)) return "nothing is changed here";
  if (first && !setting.includeBos) return "nothing is changed at the first token";
  const held = setting.set?.find((one) => one.feature === tracked);
  const own = !setting.direction && (setting.set ? held !== undefined : setting.feature === tracked);
  if (setting.onlyIfActive && own && !(activation > 0)) return "not active, so nothing is changed here";
  const value = number((setting.value ?? 0) * (held && setting.op !== "scale" ? held.max : 1));
  const done = OPERATORS.find((one) => one.name === setting.op)?.deed.replace("{value}", value) ?? setting.label;
  const when = setting.onlyIfActive && !own ? " where it is active" : "";
  return own ? `then ${done}` : `${steeredName(setting)}: ${done}${when}`;
}
