// Reads report.json, the measured table beside a model. Without one the page still chats.

/** @import { Rates, Report, Source } from "./types.d.ts" */

/**
 * @param {Source} model the model's folder
 * @returns {Promise<Report | null>}
 */
export async function readReport(model) {
  try {
    if (typeof model !== "string") {
      const file = model.find(({ name }) => name.split("/").at(-1) === "report.json");
      return file ? parseReport(JSON.parse(await file.text())) : null;
    }
    const response = await fetch(new URL("report.json", model));
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
  // The engine's own table where it has been measured, else the trainer's.
  const measured = [json.table, json.validation?.curve].map(curve).find((points) => points.length);
  return {
    hook: json.hook,
    feature: json.feature,
    value: { default: value.default, useful: [value.useful[0], value.useful[1]], max: value.max },
    base: shares(json.base ?? json.validation?.base),
    curve: measured ? [...clampArms(json.arms, measured), ...measured].sort((a, b) => a.value - b.value) : [],
  };
}

/**
 * The arms of an evaluation that are clamps of the report's feature beside those of its table:
 * "clamp -8", and "ablated", which is a clamp to 0.
 * @param {any} arms
 * @param {Report["curve"]} measured
 * @returns {Report["curve"]}
 */
function clampArms(arms, measured) {
  const valued = Array.isArray(arms) ? arms.flatMap((arm) => (arm?.arm === "ablated" ? [{ ...arm, value: 0 }] : arm?.arm === `clamp ${arm?.value}` ? [arm] : [])) : [];
  return curve(valued).filter((row) => measured.every(({ value }) => value !== row.value));
}

/**
 * @param {any} rows
 * @returns {Report["curve"]} by rising strength
 */
function curve(rows) {
  if (!Array.isArray(rows)) return [];
  return rows
    .flatMap((row) => {
      const rates = shares(row);
      return rates && Number.isFinite(row?.value) ? [{ value: row.value, ...rates }] : [];
    })
    .sort((a, b) => a.value - b.value);
}

/**
 * @param {any} rates in percent
 * @returns {Rates | null} as shares of 1
 */
function shares(rates) {
  const [jailbreak, benign] = [rates?.jailbreaks, rates?.refused?.benign];
  if (!Number.isFinite(jailbreak) || !Number.isFinite(benign)) return null;
  const share = (/** @type {unknown} */ percent) => (Number.isFinite(percent) ? Number(percent) / 100 : null);
  return { jailbreak: jailbreak / 100, benign: benign / 100, facts: share(rates.facts), coherent: share(rates.coherent) };
}
