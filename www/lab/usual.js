// The recipes that the buttons run, for what is loaded and chosen.

import { SCHEMA } from "./recipes.js";

/** @import { Recipe } from "./recipes.js" */
/** @import { LabPage } from "./lab.js" */

/** Prompts of each set: enough for an interval that says something, few enough to wait for. */
const LIMIT = 24;

/** The same where the processor does the graphics card's work. */
const SOFTWARE_LIMIT = 4;

/** @param {LabPage} page */
export const inSoftware = (page) => page.engine()?.info.adapter.cpu === true;

/** What an effect is compared with. */
const ALL_CONTROLS = ["ablation", "reconstruction", "errorDropped", "randomFeatures", "randomDirections", "randomDecoder", "signFlipped", "unrelatedFeature", "differenceOfMeans", "nullSpace", "safetyPrompt"];

/** @param {LabPage} page */
function common(page) {
  const hook = page.engine()?.info.sae?.hook;
  return { schema: SCHEMA, ...(hook ? { hook } : {}), sets: { name: page.sets(), split: "test", limit: inSoftware(page) ? SOFTWARE_LIMIT : LIMIT }, seed: 1 };
}

/**
 * A search; fewer candidates are tried, on fewer prompts, where the processor does the graphics card's work.
 * @param {LabPage} page
 * @returns {Recipe}
 */
export function usualFind(page) {
  const hook = page.engine()?.info.sae?.hook;
  return { schema: SCHEMA, task: "find", ...(hook ? { hook } : {}), sets: { name: page.sets() }, ...(inSoftware(page) ? { confirm: 4, held: 8 } : {}), seed: 1 };
}

/**
 * What is steered: the set that was found, or the chosen feature.
 * @param {LabPage} page
 */
function target(page) {
  const { report, choices } = page.settings;
  const direction = page.settings.steersDirection ? page.direction() : null;
  if (direction) return [{ name: "direction", direction }];
  const set = report?.set;
  return [{ features: set && set[0]?.feature === choices.feature ? set : [{ feature: choices.feature }] }];
}

/**
 * The strengths that are worth measuring, around the useful range.
 * @param {LabPage} page
 */
export function usualValues(page) {
  const { report } = page.settings;
  if (!report) return [4, 8, 12];
  const { default: middle, useful, max } = report.value;
  const round = (/** @type {number} */ value) => Math.round(value * 100) / 100;
  const values = inSoftware(page) ? [middle / 2, middle, middle * 1.5] : [middle / 2, useful[0], middle, useful[1], middle * 1.5];
  return [...new Set(values.map((value) => round(Math.min(max, value))))].filter((value) => value > 0).sort((a, b) => a - b);
}

/**
 * @param {LabPage} page
 * @returns {Recipe}
 */
export function usualMeasure(page) {
  const { report } = page.settings;
  const at = report ? report.value.default : 8;
  return { ...common(page), task: "measure", steer: target(page), values: usualValues(page), operators: page.settings.steersDirection ? ["add"] : ["clamp"], positions: ["all"], ...(usualValues(page).includes(at) ? { at } : {}), controls: ALL_CONTROLS };
}

/**
 * @param {LabPage} page
 * @returns {Recipe}
 */
export function usualSweep(page) {
  const values = usualValues(page);
  const positions = inSoftware(page) ? ["all"] : ["all", "prompt", "generated"];
  return { ...common(page), task: "sweep", steer: target(page), values: inSoftware(page) ? values.slice(-2) : values, operators: page.settings.steersDirection ? ["add"] : ["clamp", "clamp_replace", "add"], positions, ...(page.settings.gate ? { gate: page.settings.gate } : {}) };
}

/**
 * One strength, and everything that it is compared with.
 * @param {LabPage} page
 * @returns {Recipe}
 */
export function usualControls(page) {
  const at = page.settings.report?.value.default ?? 8;
  return { ...common(page), task: "measure", steer: target(page), values: [at], at, ...(page.settings.steersDirection ? { operators: ["add"] } : {}), controls: ALL_CONTROLS };
}
