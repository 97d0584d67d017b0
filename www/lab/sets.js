// The prompts that ship with the page: fetched from beside it when the lab needs them, and kept, so that it
// works without a network from then on.

import { readText } from "../limits.js";
import { EngineError } from "../line.js";

/** @import { Shelf } from "./shelf.js" */

/** Bytes of a set file. */
const MAX_SETS = 20e6;

/** Where they are, from the page. */
const PLACES = /** @type {Record<string, string>} */ ({ nano: "models/nano/eval.json", real: "sets/real.json" });

/**
 * The text of the prompts of that name.
 * @param {string} name
 * @param {Shelf} shelf
 * @returns {Promise<string>}
 */
export async function setsText(name, shelf) {
  const place = PLACES[name];
  if (!place) throw new EngineError("bad-sets", name === "own" ? "This recipe is about prompts of one's own: choose their file first." : `There are no prompts called \u201c${name.slice(0, 40)}\u201d here: nano, real and own are known.`);
  try {
    const response = await fetch(new URL(place, document.baseURI));
    if (!response.ok) throw new EngineError("bad-sets", `The prompts could not be fetched: ${place} answers with ${response.status}.`);
    const text = await readText(response, MAX_SETS);
    await shelf.keep(`sets/${name}`, text).catch((error) => console.warn(`The prompts are not kept: ${error}`));
    return text;
  } catch (error) {
    const kept = await shelf.thing(`sets/${name}`).catch(() => undefined);
    if (typeof kept === "string") return kept;
    throw error instanceof EngineError ? error : new EngineError("bad-sets", `The prompts could not be fetched: ${place} does not come.`);
  }
}
