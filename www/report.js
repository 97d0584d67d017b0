// Reads report.json, the measured table beside a model. Without one the page still chats.

import { readGate } from "./lab/gates.js";
import { isPercent, MAX_REPORT, MAX_ROWS, MAX_STRENGTH, MAX_TEXT, readText, U32, wrong } from "./limits.js";
import { looseJson } from "./store/json.js";

/** @import { Rates, Report, SelfTest, Source } from "./types.d.ts" */

/** A server that says nothing for so many milliseconds has no such file. */
const PATIENCE = 20_000;

/**
 * @typedef {object} Read
 * @property {Report | null} report
 * @property {string | null} note why there is none although the file is there
 */

/**
 * @param {Source} model the model's folder
 * @param {AbortSignal} [signal]
 * @returns {Promise<Read>}
 */
export async function readReport(model, signal) {
  const text = await beside(model, "report.json", signal).catch((error) => (error instanceof RangeError ? error : null));
  // Many servers answer with a page of theirs for what they do not have.
  if (text === null || (typeof text === "string" && /^\s*</.test(text))) return { report: null, note: null };
  try {
    if (text instanceof RangeError) throw text;
    return { report: parseReport(looseJson(text)), note: null };
  } catch (error) {
    const why = error instanceof RangeError ? error.message : "it is not JSON";
    return { report: null, note: `The report.json beside the model is not used: ${why}.` };
  }
}

/**
 * A small file of a model's or dictionary's folder.
 * @param {Source} folder
 * @param {string} wanted its name
 * @param {AbortSignal} [signal]
 * @returns {Promise<string | null>} null if there is none; a RangeError says that it is too long
 */
export async function beside(folder, wanted, signal) {
  if (typeof folder !== "string") {
    const file = folder.find(({ name }) => name.split("/").at(-1) === wanted);
    if (file && file.size > MAX_REPORT) throw new RangeError(`it is longer than ${MAX_REPORT / 1e6} MB`);
    return file ? file.text() : null;
  }
  const patience = AbortSignal.timeout(PATIENCE);
  const response = await fetch(new URL(wanted, folder), { signal: signal ? AbortSignal.any([signal, patience]) : patience });
  return response.ok ? readText(response, MAX_REPORT) : null;
}

/**
 * @param {any} json
 * @returns {Report} a RangeError says what is wrong with it
 */
export function parseReport(json) {
  if (typeof json?.hook !== "string" || !/^[\w.]{1,64}$/.test(json.hook)) throw new RangeError("it names no hook point");
  const value = strengths("value", json.value);
  // The engine's own table where it has been measured, else the trainer's.
  const measured = [json.table, json.validation?.curve].map(curve).find((points) => points.length);
  const fit = selfTest(json.fit);
  const gate = readGate(json.gate, json.hook);
  const survives = survival(json.quantisation, json.feature);
  return {
    hook: json.hook,
    feature: inRange("feature", json.feature, { least: 0, most: U32, whole: true }),
    value,
    base: shares(json.base ?? json.validation?.base),
    curve: measured ? [...clampArms(json.arms, measured), ...measured].sort((a, b) => a.value - b.value) : [],
    ...(fit ? { fit } : {}),
    ...(survives ? { survival: survives } : {}),
    ...(gate ? { gate } : {}),
    ...(gate && json.gated ? { gated: { value: strengths("gated.value", json.gated.value), curve: curve(json.gated.table) } } : {}),
  };
}

/**
 * What became of the feature when the model was quantised, as `lab quantisation` tells it.
 * @param {any} told
 * @param {unknown} feature
 * @returns {Report["survival"] | null}
 */
function survival(told, feature) {
  const all = Array.isArray(told?.steered) ? told.steered.slice(0, MAX_ROWS) : [];
  const { correlation } = all.find((/** @type {any} */ one) => one?.feature === feature) ?? {};
  const sound = Number.isFinite(correlation) && Math.abs(correlation) <= 1 && Number.isInteger(told.tokens) && told.tokens > 0;
  return sound ? { correlation, tokens: told.tokens } : null;
}

/**
 * The strengths of a report.
 * @param {string} name
 * @param {any} value
 * @returns {Report["value"]}
 */
function strengths(name, value) {
  const max = inRange(`${name}.max`, value?.max, { least: 0, most: MAX_STRENGTH, whole: false });
  if (max === 0) throw new RangeError(`${name}.max must be above 0`);
  const strength = { least: 0, most: max, whole: false };
  const [low, high] = [0, 1].map((end) => inRange(`${name}.useful[${end}]`, value?.useful?.[end], strength));
  if (low > high) throw new RangeError(`${name}.useful begins at ${low}, after its end at ${high}`);
  return { default: inRange(`${name}.default`, value?.default, strength), useful: [low, high], max };
}

/**
 * The arms of an evaluation that are clamps of the report's feature beside those of its table:
 * "clamp -8", and "ablated", which is a clamp to 0.
 * @param {any} arms
 * @param {Report["curve"]} measured
 * @returns {Report["curve"]}
 */
function clampArms(arms, measured) {
  const valued = Array.isArray(arms) ? arms.slice(0, MAX_ROWS).flatMap((arm) => (arm?.arm === "ablated" ? [{ ...arm, value: 0 }] : arm?.arm === `clamp ${arm?.value}` ? [arm] : [])) : [];
  return curve(valued).filter((row) => measured.every(({ value }) => value !== row.value));
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {import("./limits.js").Range} range
 * @returns {number}
 */
function inRange(name, value, range) {
  const problem = wrong(value, range);
  if (problem) throw new RangeError(`${name} ${problem}`);
  return /** @type {number} */ (value);
}

/**
 * @param {any} rows
 * @returns {Report["curve"]} by rising strength
 */
function curve(rows) {
  if (!Array.isArray(rows)) return [];
  return rows
    .slice(0, MAX_ROWS)
    .flatMap((row) => {
      const rates = shares(row);
      return rates && !wrong(row?.value, { least: -MAX_STRENGTH, most: MAX_STRENGTH, whole: false }) ? [{ value: row.value, ...rates }] : [];
    })
    .sort((a, b) => a.value - b.value);
}

/**
 * @param {any} rates in percent
 * @returns {Rates | null} as shares of 1
 */
function shares(rates) {
  const [jailbreak, benign] = [rates?.jailbreaks, rates?.refused?.benign];
  if (!isPercent(jailbreak) || !isPercent(benign)) return null;
  const share = (/** @type {unknown} */ percent) => (isPercent(percent) ? percent / 100 : null);
  return { jailbreak: jailbreak / 100, benign: benign / 100, facts: share(rates.facts), coherent: share(rates.coherent) };
}

/**
 * How the dictionary fits the model, as the engine's own test found it. Also of what the page itself
 * has stored.
 * @param {any} test
 * @returns {SelfTest | null}
 */
export function selfTest(test) {
  const isFit = (/** @type {any} */ fit) =>
    typeof fit?.hook === "string" &&
    fit.hook.length <= 64 &&
    ["vectors", "fvu", "l0", "dead", "meanActivation"].every((name) => Number.isFinite(fit[name]));
  const { fit, others, verdict, sentence } = test ?? {};
  if (!isFit(fit) || !Array.isArray(others) || others.length > MAX_ROWS || !others.every(isFit) || typeof sentence !== "string") return null;
  const elsewhere = verdict?.kind === "elsewhere" && typeof verdict.hook === "string" && verdict.hook.length <= 64;
  if (!elsewhere && !["fits", "nowhere"].includes(verdict?.kind)) return null;
  return { fit, others, verdict: elsewhere ? { kind: "elsewhere", hook: verdict.hook } : { kind: verdict.kind }, sentence: sentence.slice(0, MAX_TEXT) };
}
