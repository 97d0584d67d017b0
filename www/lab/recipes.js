// Recipes: what the lab is asked to do, as the page and the command write it. The engine checks them; here
// they are only made, read from links and files, and told apart.

import { MAX_LINK } from "../limits.js";
import { EngineError } from "../line.js";

/** @typedef {Record<string, any> & {task: string}} Recipe */

export const SCHEMA = "phi3-steer.recipe/1";

/** @type {Record<string, {title: string, doing: string, stages?: string[]}>} stages: those of the longer tasks, in order */
export const TASKS = {
  find: { title: "Find the refusal feature", doing: "Looking for the refusal feature", stages: ["reading", "search", "confirm", "strength"] },
  measure: { title: "Measure what it costs", doing: "Measuring what it costs" },
  sweep: { title: "Sweep", doing: "Sweeping" },
  gate: { title: "Fit the gate", doing: "Fitting the gate" },
  card: { title: "Feature card", doing: "Reading the prompts for this feature" },
};

/** @param {Recipe} recipe */
export const titleOf = (recipe) => TASKS[recipe.task]?.title ?? recipe.task;

/** Characters of a recipe's file. */
const MAX_RECIPE = 1e6;

/**
 * Keys in order at every depth: the same recipe is the same text.
 * @param {any} value
 * @returns {string}
 */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  const pairs = Object.keys(value)
    .filter((name) => value[name] !== undefined)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${pairs.join(",")}}`;
}

/**
 * A digest of a text, as hexadecimal digits.
 * @param {string} text
 * @returns {Promise<string>}
 */
export async function digest(text) {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * A recipe in a link's own letters.
 * @param {Recipe} recipe
 */
export function toLink(recipe) {
  const bytes = new TextEncoder().encode(canonical(recipe));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * The recipe that an address's fragment carries; null if it carries none.
 * @param {string} hash
 * @returns {Recipe | null} an EngineError if it is none
 */
export function fromLink(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, "")).get("recipe");
  if (said === null) return null;
  if (said.length > MAX_LINK) throw new EngineError("bad-recipe", "The link's recipe is too long to be read.");
  let text = "";
  try {
    const bytes = Uint8Array.from(atob(said.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new EngineError("bad-recipe", "The link's recipe is damaged: copy the whole link.");
  }
  return parseRecipe(text);
}

/**
 * A recipe from outside. Its fields are the engine's to check.
 * @param {string} text
 * @returns {Recipe} an EngineError says what is wrong
 */
export function parseRecipe(text) {
  if (text.length > MAX_RECIPE) throw new EngineError("bad-recipe", `A recipe has at most ${MAX_RECIPE / 1e6} million characters.`);
  let json;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new EngineError("bad-recipe", `The recipe is not JSON: ${/** @type {Error} */ (error).message}.`);
  }
  // A result carries the recipe that it came from.
  const recipe = json?.schema === "phi3-steer.result/1" ? json.recipe : json;
  if (recipe === null || typeof recipe !== "object" || Array.isArray(recipe)) throw new EngineError("bad-recipe", "A recipe is an object.");
  if (recipe.schema !== SCHEMA) throw new EngineError("bad-recipe", `This page reads recipes whose "schema" is "${SCHEMA}".`);
  if (typeof recipe.task !== "string" || !Object.hasOwn(TASKS, recipe.task)) throw new EngineError("bad-recipe", `A recipe's "task" is one of ${Object.keys(TASKS).join(", ")}.`);
  return recipe;
}
