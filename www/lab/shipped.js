// What the lab found beforehand: find.json in a dictionary's folder, the result of a search as the page and the
// command save it.

import { beside } from "../report.js";
import { looseJson } from "../store/json.js";

/** @import { Engine } from "../engine-client.js" */
/** @import { Entry, LabResult, Source } from "../types.d.ts" */

const NAME = "find.json";

/**
 * What was found of the model and dictionary that run; null where nothing comes with the dictionary, or what comes is
 * about others.
 * @param {Source | null} dictionary
 * @param {Entry | null} entry of the dictionary
 * @param {Engine["info"]} info
 * @returns {Promise<LabResult | null>}
 */
export async function shippedFind(dictionary, entry, info) {
  // Nobody is asked for what may not be there.
  if (dictionary === null || (typeof dictionary === "string" && entry?.found !== true)) return null;
  const text = await beside(dictionary, NAME);
  if (text === null) return null;
  const result = looseJson(text);
  const { hook, features } = result?.dictionary ?? {};
  const { model, sae } = info;
  const about = sae !== undefined && hook === sae.hook && features === sae.features && result.model?.layers === model.layers && result.model?.hidden === model.hidden;
  return result?.task === "find" && about ? result : null;
}
