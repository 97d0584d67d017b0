// What the visitor chose: kept in local storage where the browser allows it, and in share links.

import { onlyView } from "./lab/route.js";
import { NOTHING_KNOWN, quoted, ranges, wrong } from "./limits.js";
import { OPERATORS } from "./operators.js";
import { shown } from "./store/shown.js";

/** @import { Gate, Intervention, Op, OperatorInfo, Positions, Report, Setting } from "./types.d.ts" */

/**
 * @typedef {object} Choices
 * @property {boolean} steering the switch
 * @property {boolean} gated only where the prompt looks harmful to the gate
 * @property {string} set features that are steered together, "17:2.1,240:0.8": each in units of a maximum; "" for the feature alone
 * @property {boolean} direction the direction that was found, in place of a feature
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
/** What can be done to a feature. */
export const CHOICES = OPERATORS.filter((one) => one.feature);
/** @param {Op} op */
const operator = (op) => /** @type {OperatorInfo} */ (OPERATORS.find((one) => one.name === op));
/** @param {Op} op whether it has a value */
export const takesValue = (op) => operator(op).value !== null;
const POSITIONS = ["all", "prompt", "generated"];

/** @type {Choices} */
const DEFAULTS = {
  steering: true,
  gated: false,
  set: "",
  direction: false,
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

/** Where steering begins, as it was measured: at every prompt, or behind the gate where it pays there alone. */
const startingStrength = (/** @type {Report} */ { value, gated, onlyGated }) => (onlyGated && gated ? { strength: gated.value.default, gated: true } : { strength: value.default });

/** Choices with an event "change" after every set, and an event "note" with each sentence about what was not taken. */
export class Settings extends EventTarget {
  constructor() {
    super();
    /** @type {Choices} */
    this.choices = { ...DEFAULTS };
    /** @type {Report | null} */
    this.report = null;
    /** @type {Report | null} what came with the model, whatever the lab has found since */
    this.shipped = null;
    /** @type {Gate | null} says whether a prompt looks harmful */
    this.gate = null;
    /** What the share link says that was followed: it holds until something is changed. */
    this.linked = /** @type {Record<string, unknown>} */ ({});
    /** @type {import("./limits.js").Known} */
    this.known = NOTHING_KNOWN;
  }

  /**
   * Defaults of the report on this model and dictionary, then what was stored, then what a share link
   * says, as far as it is possible here.
   * @param {Report | null} report
   * @param {string} [hook] of the dictionary, where the report is not about it
   */
  start(report, hook = "") {
    if (report !== this.report) this.gate = report?.gate ?? null;
    this.report = report;
    this.known = { ...NOTHING_KNOWN, strength: this.max() };
    this.choices = this.defaults();
    this.choices.hook ||= hook;
    for (const [source, saved] of /** @type {const} */ ([["What was stored here", readStorage()], ["The link", this.linked]])) {
      const valid = this.validated(saved, source);
      // Another dictionary's feature means nothing here. Which one it is is not known before the dictionary is.
      if (valid.hook !== undefined && this.choices.hook && valid.hook !== this.choices.hook) {
        if (source === "The link") this.note(`The link is about another dictionary, at ${quoted(valid.hook)}: its feature and strength are not taken.`);
        for (const name of /** @type {const} */ (["feature", "set", "direction", "strength", "negative"])) delete valid[name];
      }
      delete valid.hook;
      // Nobody has measured what a feature of this dictionary does: only a link may begin with it.
      if (!report && source !== "The link") delete valid.steering;
      Object.assign(this.choices, valid);
      if (source === "The link" && (valid.strength ?? 0) < 0 && this.choices.hook) {
        this.note(`The link sets the strength to ${valid.strength}: below zero the feature is pushed down, and the model declines less.`);
      }
    }
    // A strength below zero stands under the switch that offers it.
    this.choices.negative ||= this.choices.strength < 0;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * What the loaded model and dictionary allow. What is chosen and is not possible goes back to its default.
   * @param {{features: number | null, context: number}} limits
   */
  limit({ features, context }) {
    if (this.report && features !== null && this.report.feature >= features) {
      this.note(`The report.json beside the model is of another dictionary: it names feature ${this.report.feature}, and this one has ${features}.`);
      this.start(null, this.choices.hook);
    }
    this.known = { ...this.known, features, context };
    const fallback = this.defaults();
    fallback.maxTokens = Math.min(fallback.maxTokens, context);
    const { feature } = this.choices;
    // Nobody chose the default, so nobody needs a note about it.
    const maxTokens = Math.min(this.choices.maxTokens, this.choices.maxTokens === DEFAULTS.maxTokens ? context : Infinity);
    if (this.choices.set && features !== null && members(this.choices.set).some((one) => one.feature >= features)) this.choices.set = fallback.set;
    Object.assign(this.choices, { feature: fallback.feature, maxTokens: fallback.maxTokens }, this.validated({ feature, maxTokens }, "The setting"));
    this.dispatchEvent(new Event("change"));
  }

  /**
   * What was found out about this model and dictionary, for the choices as they are.
   * @param {Report} report
   */
  know(report) {
    this.report = report;
    this.gate = report.gate ?? this.gate;
    this.known = { ...this.known, strength: this.max() };
    this.dispatchEvent(new Event("change"));
  }

  /** @param {Gate | null} gate of the model and dictionary that are loaded */
  setGate(gate) {
    this.gate = gate;
    this.dispatchEvent(new Event("change"));
  }

  /** @param {string} sentence */
  note(sentence) {
    this.dispatchEvent(new CustomEvent("note", { detail: sentence }));
  }

  /** @returns {Choices} */
  defaults() {
    const { report } = this;
    return report
      ? { ...DEFAULTS, hook: report.hook, feature: report.feature, set: setText(report.set), direction: report.direction === true, op: /** @type {Op} */ (report.direction ? "add" : "clamp"), ...startingStrength(report) }
      : { ...DEFAULTS, steering: false };
  }

  /** Whether it is the direction that was found that is steered. */
  get steersDirection() {
    return this.choices.direction && this.report?.direction === true;
  }

  /** The largest strength the slider offers. */
  max() {
    return this.report?.value.max ?? 16;
  }

  /** @param {Partial<Choices>} change what is not possible is noted, and neither taken nor stored */
  set(change) {
    const valid = this.validated(change, "The setting");
    // Another feature is one alone.
    if (valid.feature !== undefined && valid.set === undefined) Object.assign(valid, { set: "", direction: false });
    Object.assign(this.choices, valid);
    // A link that was followed holds until something is changed.
    this.linked = {};
    if (location.hash) history.replaceState(null, "", location.pathname + location.search + onlyView(location.hash));
    try {
      localStorage.setItem(KEY, JSON.stringify(this.choices));
    } catch {
      // Storage is blocked: the choices last as long as the page.
    }
    this.dispatchEvent(new Event("change"));
  }

  reset() {
    const { hook } = this.choices;
    this.set({ ...this.defaults(), hook });
  }

  /**
   * What is chosen for the steered lane now.
   * @returns {Setting}
   */
  setting() {
    const { steering, hook, feature, op, strength, positions, onlyIfActive, includeBos } = this.choices;
    const value = takesValue(op) ? strength : null;
    const rest = {
      ...(this.choices.gated && this.gate ? { gated: true } : {}),
      ...(this.steersDirection ? { direction: true } : {}),
      ...(!this.steersDirection && this.choices.set ? { set: members(this.choices.set) } : {}),
    };
    return { id: null, label: label(this.choices, rest), on: steering && hook !== "", hook, feature, op, value, positions, onlyIfActive, includeBos, from: null, ...rest };
  }

  /**
   * A setting as the engine takes it.
   * @param {Setting} [setting] that of now if not given
   * @returns {Intervention[]}
   */
  interventions(setting = this.setting()) {
    if (!setting.on) return [];
    const { hook, feature, op, value, positions, onlyIfActive, includeBos, set, direction } = setting;
    /** @type {(what: {feature: number} | {direction: string}, times: number) => Intervention} */
    const one = (what, times) => /** @type {Intervention} */ ({ hook, ...what, op, positions, includeBos, ...(direction ? {} : { onlyIfActive }), ...(value === null ? {} : { value: value * times }) });
    if (direction) return [one({ direction: DIRECTION }, 1)];
    // A factor is one, whatever it multiplies.
    return set ? set.map(({ feature: member, max }) => one({ feature: member }, OPERATORS.find(({ name }) => name === op)?.factor ? 1 : max)) : [one({ feature }, 1)];
  }

  /**
   * The choices as a link says them: those that are not the default, and those without which the
   * rest means nothing.
   * @returns {[string, string][]}
   */
  pairs() {
    const defaults = this.defaults();
    return Object.entries(this.choices)
      .filter(([name, value]) => ["strength", "feature", "hook"].includes(name) || value !== defaults[/** @type {keyof Choices} */ (name)])
      .map(([name, value]) => [name, String(value)]);
  }

  /**
   * Only known names with values of the right kind and range; of all else there is a note.
   * @param {Record<string, unknown>} saved
   * @param {string} source of the values, as the beginning of a sentence
   * @returns {Partial<Choices>}
   */
  validated(saved, source) {
    /** @type {Record<string, unknown>} */
    const out = {};
    const limits = /** @type {Record<string, import("./limits.js").Range>} */ (ranges(this.known));
    for (const [name, given] of Object.entries(saved).slice(0, 100)) {
      const value = source === "The link" ? parsed(name, given) : given;
      const problem = !Object.hasOwn(DEFAULTS, name) ? "is not known here" : limits[name] ? wrong(value, limits[name]) : unfit(name, value);
      if (problem) this.note(`${source} is not followed in one thing: ${shown(name, 40)} ${problem}.`);
      else out[name] = value;
    }
    return /** @type {Partial<Choices>} */ (out);
  }
}

/**
 * "clamp 8", "steering off", …
 * @param {Choices} choices
 * @param {Pick<Setting, "gated">} rest
 * @returns {string}
 */
function label(choices, { gated }) {
  if (!choices.hook) return "no dictionary";
  if (!choices.steering) return "steering off";
  if (gated) return `${label(choices, {})}, when it looks harmful`;
  const name = operator(choices.op).label;
  const where = choices.positions === "all" ? "" : `, ${choices.positions} tokens`;
  return takesValue(choices.op) ? `${name} ${choices.strength}${where}` : `${name}${where}`;
}

/** Under this name the engine knows the direction that was found. */
export const DIRECTION = "refusal";

/**
 * Features that are steered together as a text, which links and the storage hold.
 * @param {Report["set"]} set
 */
export const setText = (set) => (set ?? []).map(({ feature, max }) => `${feature}:${Number(max.toPrecision(6))}`).join(",");

/**
 * @param {string} text of a set
 * @returns {NonNullable<Setting["set"]>}
 */
const members = (text) => text.split(",").map((one) => ({ feature: Number(one.split(":")[0]), max: Number(one.split(":")[1]) }));

/** @returns {Record<string, unknown>} */
function readStorage() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return saved && typeof saved === "object" ? saved : {};
  } catch {
    return {};
  }
}

/**
 * A link's text as the kind of value that the choice has.
 * @param {string} name
 * @param {unknown} text
 * @returns {unknown}
 */
function parsed(name, text) {
  const known = Object.hasOwn(DEFAULTS, name) ? DEFAULTS[/** @type {keyof Choices} */ (name)] : "";
  if (typeof text !== "string" || typeof known === "string") return text;
  if (typeof known === "boolean") return text === "true" ? true : text === "false" ? false : text;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

/**
 * What is wrong with a choice that is no number.
 * @param {string} name
 * @param {unknown} value
 * @returns {string | null}
 */
function unfit(name, value) {
  if (typeof value !== typeof DEFAULTS[/** @type {keyof Choices} */ (name)]) return `cannot be ${quoted(value)}`;
  const words = name === "op" ? CHOICES.map((one) => String(one.name)) : name === "positions" ? POSITIONS : null;
  if (words && !words.includes(String(value))) return `must be one of ${words.join(", ")}, and not ${quoted(value)}`;
  if (name === "set" && value !== "" && !/^\d{1,9}:[\d.]{1,12}(,\d{1,9}:[\d.]{1,12}){0,31}$/.test(String(value))) return `cannot be ${quoted(value)}`;
  return name === "hook" && !/^[\w.]{0,64}$/.test(String(value)) ? `cannot be ${quoted(value)}` : null;
}
