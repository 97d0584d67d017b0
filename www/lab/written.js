// Strengths, features and numbers as people write them.

import { MAX_STRENGTH } from "../limits.js";
import { EngineError } from "../line.js";

/** @import { Report } from "../types.d.ts" */

/** Columns at most. */
const MOST = 12;

/**
 * What is to be compared, as somebody writes it: "off, 4, 8, 12".
 * @param {string} text
 * @returns {(number | null)[]} null without steering; an EngineError says what is none
 */
export function parseStrengths(text) {
  const words = text.split(/[\s,;]+/).filter(Boolean);
  const values = words.map((word) => {
    if (/^(off|base|none)$/i.test(word)) return null;
    const value = Number(word.replace("\u2212", "-"));
    if (!Number.isFinite(value) || Math.abs(value) > MAX_STRENGTH) throw new EngineError("bad-request", `\u201c${word.slice(0, 20)}\u201d is no strength: write numbers, or \u201coff\u201d, with commas between them.`);
    return value;
  });
  const each = values.filter((value, index) => values.indexOf(value) === index);
  if (!each.length) throw new EngineError("bad-request", "Write at least one strength.");
  if (each.length > MOST) throw new EngineError("bad-request", `At most ${MOST} strengths fit beside each other.`);
  return each;
}

/**
 * The strengths that are worth a look: those of the measured range, or 4, 8, 12.
 * @param {Report | null} report
 */
export function usualStrengths(report) {
  if (!report) return "off, 4, 8, 12";
  const { default: middle, useful, max } = report.value;
  const round = (/** @type {number} */ value) => Math.round(value * 100) / 100;
  const values = [middle / 2, useful[0], middle, useful[1], Math.min(max, middle * 1.5)].map(round);
  return ["off", ...[...new Set(values)].filter((value) => value > 0).sort((a, b) => a - b)].join(", ");
}

/**
 * "329", "17+240", "17:2.1+240:0.8, 329"
 * @param {string} text
 */
export function readTargets(text) {
  return text
    .split(/[,;]+/)
    .filter((part) => part.trim())
    .map((part) => ({
      features: part.split("+").map((one) => {
        const [, feature, max] = /^\s*(\d{1,9})\s*(?::\s*([\d.]+))?\s*$/.exec(one) ?? [];
        if (feature === undefined) throw new TypeError(`\u201c${one.trim().slice(0, 30)}\u201d is no feature.`);
        return max === undefined ? { feature: Number(feature) } : { feature: Number(feature), max: Number(max) };
      }),
    }));
}

/**
 * "0, 4, 8" as numbers.
 * @param {string} text
 * @returns {number[]} an error says which is none
 */
export function numbersOf(text) {
  return text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map((word) => {
      const value = Number(word.replace("\u2212", "-"));
      if (!Number.isFinite(value)) throw new TypeError(`\u201c${word.slice(0, 20)}\u201d is no number.`);
      return value;
    });
}
