// A measurement as tables and sentences.

import { number } from "../dom.js";

/** @import { LabResult } from "../types.d.ts" */

/**
 * A count of a group of prompts under one arm.
 * @typedef {object} Group
 * @property {"refused" | "right"} what
 * @property {number} hits
 * @property {number} of
 * @property {number} percent
 * @property {number} low end of the Wilson interval, in percent
 * @property {number} high
 * @property {{pairs: number, gained: number, lost: number, p: number}} paired with the base, McNemar's exact test
 * @property {{counted: number, others: number}} [incoherent]
 */

/**
 * One way of steering with what was measured.
 * @typedef {object} Arm
 * @property {string} arm its name
 * @property {number} [value]
 * @property {number} [series]
 * @property {boolean} [gated]
 * @property {{name: string, words: string}} [control]
 * @property {Record<string, Group>} groups
 * @property {number | null} [perplexity]
 * @property {number | null} [kl]
 * @property {any[]} [outcomes]
 * @property {string[]} [turnsWithCap]
 */

/** The groups that a table shows, in order, with what they are called in its head. */
const GROUPS = /** @type {[string, string, string][]} */ ([
  ["jailbreaks", "Jailbreaks declined", "bought"],
  ["jailbreaks, unseen families", "Unseen families declined", "bought"],
  ["direct requests", "Direct requests declined", "bought"],
  ["multi-turn escalations", "Escalations declined", "bought"],
  ["harmless requests", "Harmless declined", "price"],
  ["facts", "Facts right", "right"],
  ["four options", "Four options right", "right"],
  ["arithmetic", "Arithmetic right", "right"],
]);

/** A difference with a p below this is taken for one. */
const SIGNIFICANT = 0.05;

/**
 * The arms of a result.
 * @param {LabResult} result
 * @returns {Arm[]}
 */
export const armsOf = (result) => (Array.isArray(result.arms) ? result.arms.filter((/** @type {any} */ arm) => arm && typeof arm === "object" && arm.groups) : []);

/**
 * The groups that at least one arm was measured on.
 * @param {Arm[]} arms
 */
export const groupsOf = (arms) => GROUPS.filter(([name]) => arms.some(({ groups }) => groups[name]?.of > 0)).map(([name, title, kind]) => ({ name, title, kind }));

/** @param {Arm} arm */
export const nameOf = (arm) => (arm.control ? arm.control.words : arm.arm) || "base";

/**
 * "72% (61 to 81)", and whether it differs from the base.
 * @param {Group | undefined} group
 */
export function cell(group) {
  if (!group || !group.of) return { text: "", differs: false };
  const round = (/** @type {number} */ percent) => String(Math.round(percent));
  return { text: `${round(group.percent)}%`, interval: `${round(group.low)} to ${round(group.high)}`, of: group.of, p: group.paired?.p, differs: group.paired !== undefined && group.paired.p < SIGNIFICANT };
}

/**
 * The arm that the words are about: the first curve's, at the strength at which controls are measured.
 * @param {LabResult} result
 * @returns {{base: Arm, steered: Arm} | null}
 */
export function headArms(result) {
  const arms = armsOf(result);
  const base = arms[0];
  const curve = arms.filter((arm) => arm.series === 0 && typeof arm.value === "number");
  const steered = curve.find((arm) => arm.value === result.at) ?? curve.at(-1);
  return base && steered ? { base, steered } : null;
}

/**
 * What it buys and what it costs, in plain words.
 * @param {LabResult} result
 * @returns {{title: string, bought: string[], price: string[], caution: string[]}}
 */
export function measureWords(result) {
  const heads = headArms(result);
  if (!heads) return { title: "Nothing was measured", bought: [], price: [], caution: [] };
  const { base, steered } = heads;
  const sentence = (/** @type {string} */ name, /** @type {string} */ told) => {
    const [was, is] = [base.groups[name], steered.groups[name]];
    if (!was?.of || !is?.of) return [];
    const sure = is.paired?.p < SIGNIFICANT ? "" : " (on so few prompts that may be chance)";
    const same = Math.round(was.percent) === Math.round(is.percent);
    return [same ? `${told}: ${Math.round(is.percent)}%, as before` : `${told}: ${Math.round(is.percent)}% instead of ${Math.round(was.percent)}%${sure}`];
  };
  const all = groupsOf([base, steered]);
  const of = (/** @type {string} */ kind) => all.filter((one) => one.kind === kind).flatMap(({ name, title }) => sentence(name, title));
  const price = [...of("price"), ...of("right")];
  if (typeof steered.kl === "number") price.push(`On harmless text its next words differ from the base's by ${number(Math.round(1000 * steered.kl) / 1000)} nats (KL)`);
  const broken = Object.values(steered.groups).reduce((sum, group) => Math.max(sum, ((group.incoherent?.counted ?? 0) + (group.incoherent?.others ?? 0)) / Math.max(1, group.of)), 0);
  const caution = [];
  if (broken > 0.1) caution.push(`Up to ${Math.round(100 * broken)}% of its replies are no whole text: what counts there as declined or answered may be neither.`);
  if (steered.turnsWithCap?.length) caution.push(`The result turns with the longest reply: ${steered.turnsWithCap.join(", ")}.`);
  const hands = Array.isArray(result.byHand) ? result.byHand.length : 0;
  if (hands) caution.push(hands === 1 ? "One verdict is by hand." : `${hands} verdicts are by hand.`);
  return { title: `What ${steered.arm} buys, and what it costs`, bought: of("bought"), price, caution };
}

/**
 * Whether it is refusal, by the controls: each with what it did to the same prompts.
 * @param {LabResult} result
 * @returns {{arm: Arm, words: string, bought: number | null, price: number | null}[]}
 */
export function controlsOf(result) {
  const arms = armsOf(result);
  const bought = (/** @type {Arm} */ arm) => arm.groups.jailbreaks?.percent ?? arm.groups["direct requests"]?.percent ?? null;
  return arms.filter((arm) => arm.control).map((arm) => ({ arm, words: arm.control?.words ?? "", bought: bought(arm), price: arm.groups["harmless requests"]?.percent ?? null }));
}
