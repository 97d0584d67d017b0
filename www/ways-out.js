// What a visitor can do about a model that does not run.

import { canReload } from "./errors.js";

/** @import { Choice } from "./choice.js" */

/** Tokens of context below which a model is of no use. */
const SHORTEST = 256;

/**
 * @typedef {object} Ways
 * @property {(again: boolean) => void} load
 * @property {() => void} show lists the models and what of them is on this disk
 * @property {(next: Choice) => void} switchTo
 * @property {() => void} nano goes back to the model that comes with the page
 * @property {(context: number) => void} shorten loads with a context of so many tokens
 */

/**
 * The buttons below an error, the likeliest help first.
 * @param {string} code of the error
 * @param {boolean} again whether the engine had run before
 * @param {Choice} choice what was to run
 * @param {number} context tokens that it was to have
 * @param {Ways} ways
 * @returns {{label: string, run: () => void}[]}
 */
export function waysOut(code, again, choice, context, ways) {
  const buttons = [];
  const stored = ["not-stored", "incomplete", "damaged"].includes(code);
  if (stored) buttons.push({ label: "Show what is on this disk", run: ways.show });
  else if (canReload(code)) buttons.push({ label: code === "cancelled" ? "Load the model" : again ? "Reload the engine" : "Try again", run: () => ways.load(again) });
  if (stored && choice.model.url) buttons.push({ label: "Load without keeping it", run: () => ways.switchTo({ ...choice, keep: false }) });
  if (code === "out-of-memory" && context > SHORTEST) {
    const shorter = Math.max(SHORTEST, Math.round(context / 2));
    buttons.push({ label: `Reload with a context of ${shorter} tokens`, run: () => ways.shorten(shorter) });
  }
  if (!choice.model.builtIn) {
    if (!stored) buttons.push({ label: "Choose another model", run: ways.show });
    buttons.push({ label: "Back to the nano model", run: ways.nano });
  }
  return buttons;
}
