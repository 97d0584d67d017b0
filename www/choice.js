// What is to run: a model with a dictionary, and from where the engine reads them.

import { isTrainedHere } from "./catalogue.js";
import { EngineError } from "./line.js";
import { isPrecision } from "./precision.js";
import { isFile, placeName, servedAt } from "./store/address.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Downloads } from "./downloads.js" */
/** @import { Precision } from "./precision.js" */
/** @import { Entry, Report, Source } from "./types.d.ts" */

/**
 * @typedef {object} Choice
 * @property {Entry} model
 * @property {Entry | "auto" | "none"} sae "auto": the one that came with the model, if its report names one
 * @property {string} saeHook "" where the dictionary says it itself
 * @property {boolean} keep read from the store, and never straight from the address
 * @property {Precision} [precision] what weights in plain numbers become; by size if not given
 */

const KEY = "phi3-steer.model";

/** The nano model's folder. */
export const NANO = new URL("models/nano/", document.baseURI).href;

/**
 * @param {Catalogue} catalogue
 * @returns {Choice}
 */
export const nanoChoice = (catalogue) => ({
  model: catalogue.find("nano") ?? { id: "nano", kind: "model", name: "Nano Phi-3", builtIn: true },
  sae: "auto",
  saeHook: "",
  keep: true,
});

/**
 * Remembers a choice for the next visit; files of this machine cannot be remembered.
 * @param {Choice} choice
 */
export function remember({ model, sae, saeHook, keep, precision }) {
  const place = (/** @type {Entry} */ entry) => ({ id: entry.id, url: entry.url });
  const lasting = !model.files && (typeof sae === "string" || !sae.files);
  try {
    if (lasting && !(model.builtIn && sae === "auto")) localStorage.setItem(KEY, JSON.stringify({ model: place(model), sae: typeof sae === "string" ? sae : place(sae), saeHook, keep, precision }));
    else localStorage.removeItem(KEY);
  } catch {
    // Storage is blocked: the next visit begins with the nano model.
  }
}

/**
 * The last visit's choice, or the nano model.
 * @param {Catalogue} catalogue
 * @returns {Choice}
 */
export function recall(catalogue) {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "null");
    const model = found(catalogue, "model", saved?.model);
    if (!model) return nanoChoice(catalogue);
    const sae = ["auto", "none"].includes(saved.sae) ? saved.sae : (found(catalogue, "dictionary", saved.sae) ?? "none");
    return { model, sae, saeHook: typeof saved.saeHook === "string" ? saved.saeHook : "", keep: saved.keep !== false, ...(isPrecision(saved.precision) ? { precision: saved.precision } : {}) };
  } catch {
    return nanoChoice(catalogue);
  }
}

/**
 * @param {Catalogue} catalogue
 * @param {Entry["kind"]} kind
 * @param {any} place
 * @returns {Entry | undefined}
 */
function found(catalogue, kind, place) {
  const entry = catalogue.find(String(place?.id));
  if (entry?.kind === kind && entry.url === place?.url) return entry;
  return typeof place?.url === "string" ? catalogue.at(kind, place.url) : undefined;
}

/**
 * Forgets an address that was deleted, which may hold a secret.
 * @param {Entry["kind"]} kind
 * @param {string} url
 */
export function forgetAddress(kind, url) {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "null");
    if (kind === "model" && saved?.model?.url === url) localStorage.removeItem(KEY);
    else if (kind === "dictionary" && saved?.sae?.url === url) localStorage.setItem(KEY, JSON.stringify({ ...saved, sae: saved.model?.url ? "none" : "auto", saeHook: "" }));
  } catch {
    // Storage is blocked, or holds nothing of ours.
  }
}

/**
 * What the engine reads: stored files, files of this machine, or an address.
 * @param {Entry} entry
 * @param {boolean} keep
 * @param {Downloads} downloads
 * @returns {Promise<Source>}
 */
export async function sourceOf(entry, keep, downloads) {
  if (entry.builtIn) return NANO;
  if (entry.files) return entry.files;
  const url = entry.url ?? "";
  const trained = isTrainedHere(url);
  if (!keep && !trained && downloads.item(entry)?.state !== "whole") return servedAt(url);
  try {
    const files = await downloads.open(entry);
    // The folder's name belongs to it: a dictionary's may say where it reads.
    return isFile(url) ? files : files.map((file) => new File([file], `${placeName(url)}/${file.name}`));
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    if (trained && error.code === "not-stored") throw new EngineError("not-stored", "The dictionary was trained in this browser and is no longer on this disk. There is no other copy: train it again, or choose another one.");
    // No store at all is no reason not to run.
    if (!trained && error.code === "no-storage") return servedAt(url);
    throw error;
  }
}

/**
 * Whether a report can lie beside the model: not beside a single file.
 * @param {Source} model
 */
export const hasReport = (model) => typeof model !== "string" || !isFile(model);

/**
 * The dictionary that came with the model.
 * @param {Source} model
 * @param {Report | null} report
 * @returns {Source | null}
 */
export function ownDictionary(model, report) {
  if (!report) return null;
  if (typeof model === "string") return new URL(`sae/${encodeURIComponent(report.hook)}/`, model).href;
  const inside = model.filter((file) => file.name.includes(`sae/${report.hook}/`));
  return inside.length ? inside : null;
}
