// The visitor's own names for features, kept with the model and the dictionary.

import { shown } from "../store/shown.js";

/** @import { Runner } from "./runner.js" */

/** Characters of a label. */
export const MAX_LABEL = 120;

/**
 * @param {Runner} runner
 * @param {number} feature
 * @returns {Promise<string>} "" if it has none
 */
export async function labelOf(runner, feature) {
  const label = await runner.shelf.thing(`label/${runner.place}/${feature}`).catch(() => "");
  return typeof label === "string" ? label : "";
}

/**
 * @param {Runner} runner
 * @param {number} feature
 * @param {string} label "" takes it away
 */
export async function setLabel(runner, feature, label) {
  const text = shown(label.trim(), MAX_LABEL);
  await runner.shelf.keep(`label/${runner.place}/${feature}`, text || undefined);
}

/**
 * All labels of this model and dictionary, by feature.
 * @param {Runner} runner
 * @returns {Promise<{feature: number, label: string}[]>}
 */
export async function allLabels(runner) {
  const prefix = `label/${runner.place}/`;
  const things = await runner.shelf.things(prefix).catch(() => []);
  return things.map(({ key, value }) => ({ feature: Number(key.slice(prefix.length)), label: String(value) })).sort((a, b) => a.feature - b.feature);
}
