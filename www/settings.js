// What the visitor chose: kept in local storage where the browser allows it, and in share links.

/** @import { Intervention, Op, Positions, Report, Setting } from "./types.d.ts" */

/**
 * @typedef {object} Choices
 * @property {boolean} steering the switch
 * @property {number} strength value of the operator
 * @property {number} feature
 * @property {string} hook
 * @property {Op} op
 * @property {Positions} positions
 * @property {boolean} onlyIfActive
 * @property {boolean} includeBos
 * @property {boolean} negative strengths below zero are offered
 * @property {boolean} tint
 * @property {boolean} top report the strongest features of every token
 * @property {number} temperature
 * @property {number} seed
 * @property {number} maxTokens
 */

const KEY = "phi3-steer.choices";
const OPS = ["clamp", "clamp_replace", "add", "scale", "project_out"];
const POSITIONS = ["all", "prompt", "generated"];

/** @type {Choices} */
const DEFAULTS = {
  steering: true,
  strength: 8,
  feature: 0,
  hook: "",
  op: "clamp",
  positions: "all",
  onlyIfActive: false,
  includeBos: false,
  negative: false,
  tint: true,
  top: false,
  temperature: 0,
  seed: 1,
  maxTokens: 128,
};

/** Choices with an event "change" after every set. */
export class Settings extends EventTarget {
  constructor() {
    super();
    /** @type {Choices} */
    this.choices = { ...DEFAULTS };
    /** @type {Report | null} */
    this.report = null;
  }

  /**
   * Defaults of the report on this model and dictionary, then what was stored, then what a share link says. A stored
   * or linked strength is never below zero: only the visitor's own hand goes there.
   * @param {Report | null} report
   * @param {string} [hook] of the dictionary, where the report is not about it
   */
  start(report, hook = "") {
    this.report = report;
    this.choices = this.defaults();
    this.choices.hook ||= hook;
    const stored = readStorage();
    for (const saved of [stored, readLink()]) {
      const valid = validated(saved);
      // Another dictionary's feature means nothing here.
      if (valid.hook !== undefined && valid.hook !== this.choices.hook) delete valid.feature;
      delete valid.hook;
      // Nobody has measured what a feature of this dictionary does: only a link may begin with it.
      if (!report && saved === stored) delete valid.steering;
      Object.assign(this.choices, valid);
    }
    this.choices.negative = false;
    this.choices.strength = Math.min(Math.max(0, this.choices.strength), this.max());
    this.dispatchEvent(new Event("change"));
  }

  /** @returns {Choices} */
  defaults() {
    const { report } = this;
    return report
      ? { ...DEFAULTS, hook: report.hook, feature: report.feature, strength: report.value.default }
      : { ...DEFAULTS, steering: false };
  }

  /** The largest strength the slider offers. */
  max() {
    return this.report?.value.max ?? 16;
  }

  /** @param {Partial<Choices>} change */
  set(change) {
    Object.assign(this.choices, change);
    // A link that was followed holds until something is changed.
    if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    try {
      localStorage.setItem(KEY, JSON.stringify(this.choices));
    } catch {
      // Storage is blocked: the choices last as long as the page.
    }
    this.dispatchEvent(new Event("change"));
  }

  reset() {
    this.set(this.defaults());
  }

  /**
   * What is chosen for the steered lane now.
   * @returns {Setting}
   */
  setting() {
    const { steering, hook, feature, op, strength, positions, onlyIfActive, includeBos } = this.choices;
    const value = op === "project_out" ? null : strength;
    return { id: null, label: label(this.choices), on: steering && hook !== "", hook, feature, op, value, positions, onlyIfActive, includeBos, from: null };
  }

  /**
   * A setting as the engine takes it.
   * @param {Setting} [setting] that of now if not given
   * @returns {Intervention[]}
   */
  interventions(setting = this.setting()) {
    if (!setting.on) return [];
    const { hook, feature, op, value, positions, onlyIfActive, includeBos } = setting;
    /** @type {Intervention} */
    const one = { hook, feature, op, positions, onlyIfActive, includeBos };
    if (value !== null) one.value = value;
    return [one];
  }

  /** An address that opens the page with these choices. */
  link() {
    const defaults = this.defaults();
    const pairs = Object.entries(this.choices).filter(
      ([name, value]) => name === "strength" || value !== defaults[/** @type {keyof Choices} */ (name)],
    );
    const url = new URL(location.href);
    url.hash = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
    return url.href;
  }
}

/**
 * "clamp 8", "steering off", …
 * @param {Choices} choices
 * @returns {string}
 */
function label(choices) {
  if (!choices.hook) return "no dictionary";
  if (!choices.steering) return "steering off";
  const names = { clamp: "clamp", clamp_replace: "clamp, error dropped", add: "add", scale: "scale", project_out: "project out" };
  const where = choices.positions === "all" ? "" : `, ${choices.positions} tokens`;
  return choices.op === "project_out" ? `project out${where}` : `${names[choices.op]} ${choices.strength}${where}`;
}

/** @returns {Record<string, unknown>} */
function readStorage() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return saved && typeof saved === "object" ? saved : {};
  } catch {
    return {};
  }
}

/** @returns {Record<string, unknown>} */
function readLink() {
  return Object.fromEntries(
    [...new URLSearchParams(location.hash.slice(1))].map(([name, value]) => [
      name,
      value === "true" ? true : value === "false" ? false : value !== "" && Number.isFinite(Number(value)) ? Number(value) : value,
    ]),
  );
}

/**
 * Only known names with values of the right kind and range.
 * @param {Record<string, unknown>} saved
 * @returns {Partial<Choices>}
 */
function validated(saved) {
  /** @type {Record<string, unknown>} */
  const out = {};
  for (const [name, value] of Object.entries(saved)) {
    const known = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (DEFAULTS))[name];
    if (known === undefined || typeof value !== typeof known) continue;
    if (name === "op" && !OPS.includes(String(value))) continue;
    if (name === "positions" && !POSITIONS.includes(String(value))) continue;
    if (typeof value === "number" && !Number.isFinite(value)) continue;
    if (["feature", "seed", "maxTokens"].includes(name) && !(Number.isInteger(value) && Number(value) >= 0)) continue;
    if (name === "maxTokens" && Number(value) < 1) continue;
    if (name === "temperature" && (Number(value) < 0 || Number(value) > 2)) continue;
    out[name] = value;
  }
  return /** @type {Partial<Choices>} */ (out);
}
