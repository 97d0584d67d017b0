// What a search found, as the page uses it: for the slider and its marked range, and in plain words.

import { number } from "../dom.js";
import { readGate } from "./gates.js";

/** @import { LabResult, Report } from "../types.d.ts" */

/**
 * @typedef {object} Member
 * @property {number} feature
 * @property {number} max its own largest activation, of which a set's strength is a multiple
 */

/** A share of 1 as "44%". */
export const percent = (/** @type {number | null | undefined} */ share) => (share === null || share === undefined || !Number.isFinite(share) ? "\u2013" : `${Math.round(100 * share)}%`);

/**
 * What steers: one feature, several together, a direction of the residual stream; or none of them, and the
 * members are those that came nearest.
 * @param {LabResult} result of the task "find"
 * @returns {{kind: "feature" | "set" | "direction" | "none", members: Member[]}}
 */
export function chosen(result) {
  const { kind, features } = result.chosen ?? {};
  const members = (Array.isArray(features) ? features : []).filter((one) => Number.isInteger(one?.feature)).map(({ feature, max }) => ({ feature, max: Number.isFinite(max) && max > 0 ? max : 1 }));
  if (kind === "none") return { kind, members };
  if (kind === "direction" || !members.length) return { kind: "direction", members: [] };
  return { kind: kind === "set" && members.length > 1 ? "set" : "feature", members };
}

/** "329", "329, 17 and 240" */
export function names(/** @type {Member[]} */ members) {
  const all = members.map(({ feature }) => String(feature));
  return all.length > 1 ? `${all.slice(0, -1).join(", ")} and ${all[all.length - 1]}` : (all[0] ?? "");
}

/**
 * @typedef {object} Dose a strength with what was measured there, in shares of 1
 * @property {number} value
 * @property {number} harmful harmful requests declined
 * @property {number} benign harmless requests declined
 * @property {number | null} coherent replies that are whole text
 */

/** Whether what was found pays only where it steers the prompts alone that its gate opens for. */
export const onlyGated = (/** @type {LabResult} */ result) => result.chosen?.gated === true && result.strength?.gated?.curve?.length > 0 && readGate(result.gate) !== null;

/**
 * @param {LabResult} result
 * @param {boolean} [gated] behind the gate
 * @returns {{base: Dose | null, curve: Dose[], useful: [number, number] | null, value: number, max: number}}
 */
export function doses(result, gated = onlyGated(result)) {
  const strength = gated ? { ...result.strength, ...result.strength.gated } : (result.strength ?? {});
  /** @type {(row: any) => Dose[]} */
  const dose = (row) => {
    const { value, harmful, benign, coherent } = row ?? {};
    return [value, harmful, benign].every(Number.isFinite) ? [{ value, harmful, benign, coherent: Number.isFinite(coherent) ? coherent : null }] : [];
  };
  const rows = Array.isArray(strength.curve) ? strength.curve : [];
  const base = dose(strength.base ? { value: 0, ...strength.base } : null)[0] ?? null;
  const curve = rows.flatMap(dose).sort((/** @type {Dose} */ a, /** @type {Dose} */ b) => a.value - b.value);
  const useful = Array.isArray(strength.useful) && strength.useful.length === 2 && strength.useful.every(Number.isFinite) ? strength.useful : null;
  const value = Number.isFinite(strength.default) ? strength.default : (useful?.[0] ?? curve.at(-1)?.value ?? 1);
  // What one activation may be says little of what a clamp may be: the slider goes as far as was tried.
  const most = Math.max(value, strength.unit ? 0 : (strength.max ?? 0), useful?.[1] ?? 0, ...curve.map((/** @type {Dose} */ row) => row.value));
  return { base, curve, useful, value, max: most };
}

/**
 * The report that the panel draws its slider and its chart from.
 * @param {LabResult} result
 * @param {string} hook
 * @returns {Report}
 */
export function reportOf(result, hook) {
  const { kind, members } = chosen(result);
  const { base, ...always } = doses(result, false);
  const rates = (/** @type {Dose} */ { harmful, benign, coherent }) => ({ jailbreak: harmful, benign, facts: null, coherent });
  const told = (/** @type {typeof always} */ { curve, useful, value, max }) => ({
    value: { default: value, useful: useful ?? /** @type {[number, number]} */ ([value, value]), max },
    curve: curve.map((row) => ({ value: row.value, ...rates(row) })),
  });
  const own = typeof result.recipe?.hook === "string" ? result.recipe.hook : hook;
  const gate = readGate(result.gate, own);
  const behind = gate && result.strength?.gated?.curve?.length ? told(doses(result, true)) : null;
  return {
    hook: own,
    // Beside a direction the tokens are tinted by the feature that came nearest.
    feature: members[0]?.feature ?? result.candidates?.[0]?.feature ?? 0,
    ...told(always),
    base: base ? rates(base) : null,
    ...(gate ? { gate } : {}),
    ...(behind ? { gated: behind } : {}),
    ...(onlyGated(result) ? { onlyGated: true } : {}),
    asked: "harmful requests",
    ...(kind === "set" ? { set: members } : {}),
    ...(kind === "direction" ? { direction: true } : {}),
  };
}

/**
 * "Here is your refusal feature", in a few sentences.
 * @param {LabResult} result
 * @returns {{title: string, range: string, price: string, sure: string}}
 */
export function findWords(result) {
  const { kind, members } = chosen(result);
  const { base, curve, useful, value } = doses(result);
  const which = names(members);
  const title = {
    feature: sureWords(result).startsWith("Not confirmed") ? `The best candidate, not confirmed: ${which}` : `Here is your refusal feature: ${which}`,
    set: `It takes ${members.length} features together: ${which}`,
    direction: "No feature does it: the plain direction does",
    none: "No refusal feature was found",
  }[kind];
  const behind = onlyGated(result) ? "Where it steers every prompt it costs more than it wins. Steering only the prompts that look harmful to its gate pays: " : "";
  const unit = kind === "none" ? "" : kind === "set" ? " (each in units of its own largest activation)" : "";
  const range = useful
    ? useful[0] < useful[1]
      ? `${behind}${behind ? "held" : "Held"} between ${number(useful[0])} and ${number(useful[1])}${unit}, it makes this model decline harmful requests without breaking its text. ${number(value)} is a good place to start.`
      : `${behind}${behind ? "of" : "Of"} the strengths that were tried, ${number(useful[0])}${unit} is the useful one.`
    : kind === "none"
      ? `Nothing that was tried makes this model decline harmful requests more, for what it costs: neither ${members.length > 1 ? `the features ${which}, which` : members.length ? `feature ${which}, which` : "a feature that"} came nearest, nor the difference of means. Another block, another dictionary or more prompts may show one.`
      : `${behind}${behind ? "no" : "No"} strength was found that is plainly useful: at ${number(value)}${unit}, the best one, look at the price before you believe it.`;
  const at = curve.find((row) => row.value === value) ?? nearest(curve, value);
  const price = at
    ? base
      ? `At ${number(at.value)}, ${percent(at.harmful)} of the harmful requests are declined instead of ${percent(base.harmful)}; and of the harmless ones ${percent(at.benign)} instead of ${percent(base.benign)}${broken(at)}.`
      : `At ${number(at.value)}, ${percent(at.harmful)} of the harmful requests are declined, and ${percent(at.benign)} of the harmless ones${broken(at)}.`
    : "Its price was not measured.";
  return { title, range, price, sure: sureWords(result) };
}

/** @param {Dose} at */
const broken = ({ coherent }) => (coherent !== null && coherent < 0.95 ? `; ${percent(1 - coherent)} of the answers are broken text` : "");

/**
 * @param {Dose[]} curve
 * @param {number} value
 */
const nearest = (curve, value) => [...curve].sort((a, b) => Math.abs(a.value - value) - Math.abs(b.value - value))[0];

/**
 * Whether turning it up and turning it down both did what they should.
 * @param {LabResult} result
 */
function sureWords(result) {
  const first = chosen(result).members[0]?.feature;
  const { up, down } = (result.candidates ?? []).find((/** @type {any} */ one) => one.feature === first)?.confirmed ?? {};
  if (!up) return "";
  const of = (/** @type {number} */ share, /** @type {number} */ n) => Math.round(share * n);
  const told = `turned up, it declined ${of(up.steered, up.n)} of ${up.n} held-out prompts instead of ${of(up.base, up.n)}`;
  if (!down) return `Tried one way only: ${told}.`;
  const other = `turned down, ${of(down.steered, down.n)} of ${down.n} instead of ${of(down.base, down.n)}`;
  const verdict = up.steered > up.base && down.steered < down.base ? "Confirmed both ways" : up.steered > up.base ? "Confirmed one way only" : "Not confirmed";
  return `${verdict}: ${told}; ${other}.`;
}

/**
 * The search's result as if the plain difference of means had been chosen: the baseline that every feature must
 * beat. Its strength counts how often it is added.
 * @param {LabResult} result
 * @returns {LabResult}
 */
export const byDirection = (result) => {
  const { curve, useful = null, default: best = 1, gated } = result.direction ?? {};
  // A search of before measured no strengths of it.
  const strength = curve?.length ? { unit: "times", base: result.strength?.base ?? null, curve, useful, default: best, ...(gated ? { gated } : {}) } : { default: 1, max: 4, curve: [], useful: null };
  return { ...result, chosen: { kind: "direction", features: [] }, strength };
};
