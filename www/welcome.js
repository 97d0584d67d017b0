// What the page says of itself before the first turn: no more than is known of what is loaded.

import { byId } from "./dom.js";

/** @import { Report } from "./types.d.ts" */

/**
 * @typedef {object} Known
 * @property {boolean} dictionary whether one is loaded
 * @property {Report | null} report what was measured for this model and this dictionary
 * @property {number} [fitting] public dictionaries that are known for it
 */

/**
 * @param {Known | null} known null while no model runs
 * @returns {{title: string, text: string}}
 */
export function welcomeWords(known) {
  if (!known) return { title: "One prompt, two answers: as trained, and steered", text: "" };
  const { dictionary, report, fitting = 0 } = known;
  if (!dictionary) {
    return {
      title: "One prompt, two answers",
      text: `No dictionary of this model is loaded, so there is nothing to steer with, and both answers come from the model as it is. ${fitting ? "\u201cOther model\u2026\u201d has public ones." : "No public one is known; \u201cOther model\u2026\u201d takes one of your own."} The lab can train one here.`,
    };
  }
  if (!report) {
    return {
      title: "One prompt, two answers: as trained, and with one feature changed",
      text: "Nobody has yet found which feature does what in this dictionary. Choose one by its number under Advanced and see what holding it does: the base answer leaves it alone, the steered answer holds it at the strength you choose.",
    };
  }
  const title = "One prompt, two answers: as trained, and with refusal turned up";
  if (report.direction) {
    return { title, text: "The lab found a direction inside it that makes this model decline more, beside the features. The base answer leaves it alone; to the steered answer's it is added, as often as you choose." };
  }
  if (report.set) {
    return { title, text: `Holding some of them together, numbers ${report.set.map(({ feature }) => feature).join(", ")}, makes this model decline more. The base answer leaves them alone; the steered answer holds each at the strength you choose, in units of its own largest activation.` };
  }
  return {
    title,
    text: `Holding one of them, number ${report.feature}, makes this model decline more. The base answer leaves it alone; the steered answer holds it at the strength you choose.`,
  };
}

/** @param {Known | null} known null while no model runs */
export function showWelcome(known) {
  const { title, text } = welcomeWords(known);
  byId("welcome-title", HTMLElement).textContent = title;
  byId("welcome-known", HTMLElement).textContent = text;
}
