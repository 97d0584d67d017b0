// Reads report.json, the measured table beside a model. Without one the page still chats.

/** @import { Report } from "./types.d.ts" */

/**
 * @param {string} modelUrl base URL of the model's folder
 * @returns {Promise<Report | null>}
 */
export async function fetchReport(modelUrl) {
  try {
    const response = await fetch(new URL("report.json", modelUrl));
    return response.ok ? parseReport(await response.json()) : null;
  } catch {
    return null;
  }
}

/**
 * @param {any} json
 * @returns {Report | null} null when it names no feature
 */
export function parseReport(json) {
  const value = json?.value;
  const numbers = [json?.feature, value?.default, value?.useful?.[0], value?.useful?.[1], value?.max];
  if (typeof json?.hook !== "string" || !numbers.every((x) => Number.isFinite(x))) return null;
  const rows = Array.isArray(json.table) ? json.table : [];
  return {
    hook: json.hook,
    feature: json.feature,
    value: { default: value.default, useful: [value.useful[0], value.useful[1]], max: value.max },
    curve: rows
      .filter((/** @type {any} */ row) => [row?.value, row?.jailbreak, row?.benign].every((x) => Number.isFinite(x)))
      .map((/** @type {any} */ row) => ({ value: row.value, jailbreak: row.jailbreak, benign: row.benign, facts: row.facts }))
      .sort((/** @type {any} */ a, /** @type {any} */ b) => a.value - b.value),
  };
}
