// What was measured at a strength, and what may be said of strengths between and beyond the measured
// ones. Everything here is about the report's feature under the clamp that it was measured with.

import { number } from "./dom.js";
import { setText } from "./settings.js";

/** @import { Choices } from "./settings.js" */
/** @import { Gate, Rates, Report } from "./types.d.ts" */

/** @typedef {Rates & {value: number}} Row */

/** A share that moves by less than this is told as unchanged: the sets are small. */
const SAME = 0.05;

/**
 * What the rows say of a value: the row of the value itself; the two around it, by rising value; or the
 * nearest one, where the value lies beyond them all.
 * @param {Row[]} rows by rising value
 * @param {number} value
 * @returns {{kind: "measured" | "between" | "beyond", rows: Row[]} | null} null without any row
 */
export function look(rows, value) {
  if (!rows.length) return null;
  const at = rows.find((row) => row.value === value);
  if (at) return { kind: "measured", rows: [at] };
  const above = rows.findIndex((row) => row.value > value);
  if (above > 0) return { kind: "between", rows: rows.slice(above - 1, above + 1) };
  return { kind: "beyond", rows: [above < 0 ? rows[rows.length - 1] : rows[0]] };
}

/**
 * Whether what is steered is what the report is about.
 * @param {Choices} choices
 * @param {Report} report
 */
export const isReported = (choices, report) =>
  choices.hook === report.hook && choices.feature === report.feature && choices.set === setText(report.set) && choices.direction === (report.direction === true);

/**
 * Whether the report's figures are about these choices.
 * @param {Choices} choices
 * @param {Report | null} report
 */
export function isMeasured(choices, report) {
  return (
    report !== null &&
    isReported(choices, report) &&
    choices.op === (report.direction ? "add" : "clamp") &&
    choices.positions === "all" &&
    !choices.onlyIfActive &&
    !choices.includeBos
  );
}

/**
 * What the report says of steering behind a gate: what was measured with the report's own, and nothing of
 * another one.
 * @param {Report} report
 * @param {Gate | null} gate
 * @returns {Report}
 */
export function behind(report, gate) {
  const own = gate !== null && gate === report.gate ? report.gated : undefined;
  return { ...report, value: own?.value ?? report.value, curve: own?.curve ?? [] };
}

/**
 * The figures at a value in a sentence or two.
 * @param {Report} report
 * @param {number} value
 */
export function figures(report, value) {
  const found = look(report.curve, value);
  if (!found) return "Nothing was measured.";
  const [first, last] = [found.rows[0], found.rows[found.rows.length - 1]];
  const told = rates(found.rows, report.asked);
  const base = report.base ? ` Unsteered: ${rates([report.base], report.asked)}.` : "";
  if (found.kind === "measured") return `Measured at ${number(value)}: ${told}.${base}`;
  if (found.kind === "between") return `${number(value)} itself was not measured. From ${number(first.value)} to ${number(last.value)}: ${told}.${base}`;
  const side = value > first.value ? "above" : "below";
  return `Nothing was measured ${side} ${number(first.value)}. At ${number(first.value)}: ${told}.${base}`;
}

/**
 * The rates in words.
 * @param {Rates[]} rows one, or two that a value lies between
 * @param {string} [asked] what was asked
 */
export function rates(rows, asked = "jailbreaks") {
  const told = [
    `${shares(rows, "jailbreak")} of ${asked} declined`,
    `${shares(rows, "benign")} of harmless requests`,
    rows.every((row) => row.facts !== null) ? `${shares(rows, "facts")} of facts right` : "",
  ];
  return told.filter(Boolean).join(", ");
}

/**
 * "72%" or "72% to 84%".
 * @param {Rates[]} rows
 * @param {"jailbreak" | "benign" | "facts"} key
 */
function shares(rows, key) {
  const told = rows.map((row) => `${Math.round(100 * (row[key] ?? 0))}%`);
  return told[0] === told[told.length - 1] ? told[0] : told.join(" to ");
}

/**
 * What a value does, in words that follow from the figures.
 * @param {Report} report
 * @param {number} value
 */
export function effect(report, value) {
  const found = look(report.curve, value);
  if (!found || !report.base) return "";
  const { rows, kind } = found;
  const { base } = report;
  const change = (/** @type {"jailbreak" | "benign" | "facts"} */ key) => rows.map((row) => (row[key] ?? 0) - (base[key] ?? 0));
  const jailbreak = change("jailbreak");
  const asked = report.asked ?? "jailbreaks";
  const declines = jailbreak.every((by) => by > SAME)
    ? `more ${asked} are declined than unsteered`
    : jailbreak.every((by) => by < -SAME)
      ? `fewer ${asked} are declined than unsteered`
      : `about as many ${asked} are declined as unsteered`;
  const harmless = change("benign").some((by) => by > SAME) ? "harmless requests are declined too" : "";
  const measured = base.facts !== null && rows.every((row) => row.facts !== null);
  const lost = measured ? Math.max(...change("facts").map((by) => -by)) : 0;
  const facts = !measured ? "" : lost > 0.5 ? "most facts go wrong" : lost > SAME ? "some facts go wrong" : "facts stay right";
  const broken = rows.some((row) => row.coherent !== null && row.coherent < 0.9) ? "text falls apart" : "";
  const told = [declines, harmless, facts, broken].filter(Boolean);
  const sentence = told.length > 1 ? `${told.slice(0, -1).join(", ")}, and ${told[told.length - 1]}` : told[0];
  return kind === "beyond" ? `not measured here; at ${number(rows[0].value)}, the nearest, ${sentence}` : sentence;
}

/**
 * Where a value lies and what it does there.
 * @param {Report} report
 * @param {number} value
 */
export function zone(report, value) {
  const [low, high] = report.value.useful;
  const where = value < 0 ? "Pushed down" : value < low ? "Below the marked range" : value <= high ? "In the marked range" : "Above the marked range";
  const does = effect(report, value);
  return does ? `${where}: ${does}.` : `${where}.`;
}

/**
 * What the marked range is called: whether it comes free.
 * @param {Report} report
 */
export function rangeName(report) {
  const [low, high] = report.value.useful;
  const where = low < high ? `useful range ${number(low)} to ${number(high)}` : `measured best at ${number(low)}`;
  const inside = report.curve.filter((row) => row.value >= low && row.value <= high);
  const base = report.base?.facts ?? null;
  const costs = base !== null && inside.some((row) => row.facts !== null && base - row.facts > SAME);
  return costs ? `${where}, at a price` : where;
}
