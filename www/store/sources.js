// What a model or dictionary at an address consists of: its files, with sizes and hashes where they
// can be known beforehand.

import { hubFile, hubPlace, hubTree, isFile, nameOf, normalise, refused } from "./address.js";
import { StoreError } from "./errors.js";
import { Passing, TRIES, statusError, waitAfter } from "./retry.js";

/** @import { HubPlace } from "./address.js" */

/** @typedef {"model" | "dictionary"} Kind */

/**
 * @typedef {object} PlannedFile
 * @property {string} path name within the model or dictionary
 * @property {string} url
 * @property {number | null} bytes null where not known
 * @property {string | null} sha256 that the file must have
 * @property {string | null} gitOid the Hub's SHA-1 of a small file, which it gives instead
 * @property {"manifest" | "hub" | null} proof who says so
 */

/**
 * @typedef {object} Plan
 * @property {string} url
 * @property {Kind} kind
 * @property {string} name
 * @property {PlannedFile[]} files
 */

/**
 * What the resolver needs of the world.
 * @typedef {object} World
 * @property {typeof fetch} fetch
 * @property {string} page the page's address
 * @property {AbortSignal} signal
 * @property {(milliseconds: number, signal: AbortSignal) => Promise<void>} sleep
 * @property {() => number} random
 * @property {(url: string) => Promise<StoreError | null>} diagnose
 */

/** Largest list of files that is read, in bytes. */
const MAX_LIST = 16 << 20;

const WEIGHTS = { model: ["model.safetensors.index.json", "model.safetensors"], dictionary: ["sae.safetensors", "sae_weights.safetensors", "params.npz", "params.safetensors", "checkpoints/final.safetensors"] };
/** Read where they are there. */
const BESIDE = {
  model: ["config.json", "tokenizer.json", "tokenizer_config.json", "report.json"],
  dictionary: ["cfg.json", "config.json", "hyperparams.json"],
};

/**
 * @param {string} address
 * @param {Kind} kind
 * @param {World} world
 * @returns {Promise<Plan>}
 */
export async function resolve(address, kind, world) {
  const url = normalise(address, world.page);
  const problem = refused(url, world.page);
  if (problem) throw problem;
  const hub = hubPlace(url);
  const files = hub ? await fromHub(hub, isFile(url), kind, world) : isFile(url) ? [await single(url, world)] : await fromFolder(url, kind, world);
  return { url, kind, name: nameOf(url), files };
}

/**
 * @param {string} path
 * @param {string} url
 * @param {Partial<PlannedFile>} [known]
 * @returns {PlannedFile}
 */
const planned = (path, url, known = {}) => ({ path, url, bytes: null, sha256: null, gitOid: null, proof: null, ...known });

/**
 * @param {HubPlace} place
 * @param {boolean} single whether the place is one file
 * @param {Kind} kind
 * @param {World} world
 */
async function fromHub(place, single, kind, world) {
  const folder = single ? { ...place, path: place.path.split("/").slice(0, -1).join("/") } : place;
  const entries = await hubEntries(folder, world);
  const start = folder.path ? folder.path.length + 1 : 0;
  const files = new Map(
    entries.map((entry) => [
      String(entry.path).slice(start),
      planned(String(entry.path).slice(start), hubFile(place, String(entry.path)), {
        bytes: Number.isSafeInteger(entry.lfs?.size ?? entry.size) ? (entry.lfs?.size ?? entry.size) : null,
        sha256: isSha256(entry.lfs?.oid) ? entry.lfs.oid : null,
        gitOid: !entry.lfs && /^[0-9a-f]{40}$/.test(entry.oid) ? entry.oid : null,
        proof: "hub",
      }),
    ]),
  );
  if (single) {
    const file = files.get(place.path.slice(start));
    if (!file) throw new StoreError("not-found", `${place.repo} has no file ${place.path} at ${place.revision}.`);
    return [file];
  }
  const text = (/** @type {PlannedFile} */ file) => getText(file.url, world);
  const address = (/** @type {string} */ path) => hubFile(place, folder.path ? `${folder.path}/${path}` : path);
  return choose(files, kind, text, address, place.repo);
}

/**
 * @param {HubPlace} place
 * @param {World} world
 * @returns {Promise<any[]>}
 */
async function hubEntries(place, world) {
  const entries = [];
  let next = /** @type {string | null} */ (hubTree(place));
  while (next) {
    const response = await get(next, world);
    if (!response) throw new StoreError("not-found", `The Hub knows no ${place.repo}${place.path ? `/${place.path}` : ""} at ${place.revision}.`);
    const page = parse(await readText(response, next), next);
    if (!Array.isArray(page)) throw new StoreError("bad-answer", `The Hub's list of files could not be read: ${next}`);
    entries.push(...page.filter((entry) => entry?.type === "file" && typeof entry.path === "string"));
    const link = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("Link") ?? "")?.[1];
    next = link && new URL(link, next).origin === new URL(next).origin ? new URL(link, next).href : null;
  }
  return entries;
}

/**
 * The files to fetch out of a known list.
 * @param {Map<string, PlannedFile>} files by path
 * @param {Kind} kind
 * @param {(file: PlannedFile) => Promise<string>} text
 * @param {(path: string) => string} address
 * @param {string} where
 */
async function choose(files, kind, text, address, where) {
  const pick = (/** @type {string[]} */ names) => names.flatMap((name) => files.get(name) ?? []);
  const beside = pick(BESIDE[kind]);
  const manifest = files.get("manifest.json");
  if (manifest) {
    const listed = parseManifest(await text(manifest), manifest.url);
    if (listed) return [...listed.map((file) => ({ ...(files.get(file.path) ?? file), ...definite(file) })), manifest];
  }
  const index = files.get("model.safetensors.index.json");
  if (kind === "model" && index) return [...beside, index, ...pick(shards(await text(index), index.url))];
  const weights = pick(WEIGHTS[kind]).slice(0, 1);
  if (weights.length) return [...beside, ...weights];
  const singles = [...files.values()].filter((file) => /\.(gguf|npz)$/i.test(file.path));
  if (singles.length === 1) return singles;
  if (singles.length) throw ambiguous(where, singles.map((file) => file.url));
  const folders = [...files.keys()].filter((path) => /\/(cfg\.json|params\.npz|sae(_weights)?\.safetensors)$/.test(path)).map((path) => path.slice(0, path.lastIndexOf("/")));
  if (kind === "dictionary" && folders.length) throw ambiguous(where, [...new Set(folders)].map((path) => `${address(path)}/`));
  const pickle = [...files.keys()].some((path) => /\.(pt|pth|bin|ckpt)$/.test(path));
  throw new StoreError(
    "not-found",
    pickle
      ? `${where} holds its weights as pickle only (.pt or .bin), which can run programs and is never read in the browser: convert it to safetensors first.`
      : `${where} holds no ${kind === "model" ? "model.safetensors and no .gguf file" : "dictionary that is known here"}.`,
  );
}

/**
 * @param {string} where
 * @param {string[]} choices
 */
const ambiguous = (where, choices) => new StoreError("ambiguous", `${where} holds ${choices.length} of them: choose one.`, choices);

/**
 * One file on a server that lists nothing. Beside the page, a manifest in its folder knows its hash.
 * @param {string} url
 * @param {World} world
 * @returns {Promise<PlannedFile>}
 */
async function single(url, world) {
  const file = planned(nameOf(url), url);
  if (new URL(url).origin !== new URL(world.page).origin) return file;
  const at = new URL("manifest.json", url).href;
  const manifest = await get(at, world);
  if (!manifest || isPage(manifest)) return file;
  return parseManifest(await readText(manifest, at), at)?.find((listed) => listed.path === file.path) ?? file;
}

/**
 * A folder on a server that lists nothing: a manifest, or else the usual names.
 * @param {string} base
 * @param {Kind} kind
 * @param {World} world
 * @returns {Promise<PlannedFile[]>}
 */
async function fromFolder(base, kind, world) {
  const at = (/** @type {string} */ path) => new URL(path.split("/").map(encodeURIComponent).join("/"), base).href;
  const manifest = await get(at("manifest.json"), world);
  if (manifest && !isPage(manifest)) {
    const listed = parseManifest(await readText(manifest, at("manifest.json")), base);
    if (listed) return [...listed, planned("manifest.json", at("manifest.json"))];
  } else manifest?.body?.cancel().catch(() => {});
  const look = async (/** @type {string} */ path) => {
    const found = await head(at(path), world);
    return found ? [planned(path, at(path), { bytes: found.bytes })] : [];
  };
  const files = (await Promise.all(BESIDE[kind].map(look))).flat();
  if (kind === "model") {
    const index = await get(at("model.safetensors.index.json"), world);
    if (index && !isPage(index)) {
      const text = await readText(index, at("model.safetensors.index.json"));
      const parts = await Promise.all(shards(text, base).map(look));
      return [...files, planned("model.safetensors.index.json", at("model.safetensors.index.json")), ...parts.flat(), ...(await builtIn(files, look, world))];
    }
    index?.body?.cancel().catch(() => {});
  }
  for (const name of WEIGHTS[kind].slice(kind === "model" ? 1 : 0)) {
    const weights = await look(name);
    if (weights.length) return [...files, ...weights, ...(kind === "model" ? await builtIn(files, look, world) : [])];
  }
  throw new StoreError(
    "not-found",
    kind === "model"
      ? `There is no manifest.json, model.safetensors.index.json or model.safetensors in ${base}. For a GGUF file, give the address of the file itself.`
      : `There is no ${WEIGHTS.dictionary.join(", ")} in ${base}.`,
  );
}

/**
 * The dictionary that a model's report names and that lies in the model's own folder.
 * @param {PlannedFile[]} files
 * @param {(path: string) => Promise<PlannedFile[]>} look
 * @param {World} world
 */
async function builtIn(files, look, world) {
  const report = files.find((file) => file.path === "report.json");
  if (!report) return [];
  const hook = parse(await getText(report.url, world), report.url)?.hook;
  if (typeof hook !== "string" || !/^[\w.]+$/.test(hook)) return [];
  const inside = await Promise.all(["cfg.json", "sae.safetensors"].map((name) => look(`sae/${hook}/${name}`)));
  return inside.every((found) => found.length) ? inside.flat() : [];
}

/**
 * The files of a manifest, with the address of each.
 * @param {string} text
 * @param {string} base
 * @returns {PlannedFile[] | null} null when the file is some other manifest
 */
export function parseManifest(text, base) {
  const listed = parse(text, base)?.files;
  if (!Array.isArray(listed) || !listed.length) return null;
  return listed.map((file) => {
    const path = file?.name;
    const good = typeof path === "string" && isInside(path) && Number.isSafeInteger(file.bytes) && file.bytes >= 0 && isSha256(file.sha256);
    if (!good) throw new StoreError("bad-answer", `manifest.json has an entry without a proper name, size and SHA-256: ${JSON.stringify(file).slice(0, 120)}`);
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), base).href;
    return planned(path, url, { bytes: file.bytes, sha256: file.sha256, proof: "manifest" });
  });
}

/**
 * Names of the shards that an index counts, each once.
 * @param {string} text
 * @param {string} where
 * @returns {string[]}
 */
export function shards(text, where) {
  const map = parse(text, where)?.weight_map;
  const names = map && typeof map === "object" ? [...new Set(Object.values(map))] : [];
  if (!names.length || !names.every((name) => typeof name === "string" && isInside(name))) {
    throw new StoreError("bad-answer", `model.safetensors.index.json names no proper files: ${where}`);
  }
  return names.sort();
}

/** Whether a path stays within its folder. */
export const isInside = (/** @type {string} */ path) => /^[^\\:]+$/.test(path) && path.split("/").every((part) => part && part !== "." && part !== "..");

const isSha256 = (/** @type {unknown} */ value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);

/** @param {PlannedFile} file */
const definite = (file) => ({ bytes: file.bytes, sha256: file.sha256, gitOid: null, proof: file.proof });

/**
 * @param {string} text
 * @param {string} where
 * @returns {any}
 */
function parse(text, where) {
  try {
    return JSON.parse(text);
  } catch {
    throw new StoreError("bad-answer", `This is no JSON: ${where}`);
  }
}

/** @param {Response} response */
const isPage = (response) => /^\s*text\/html/i.test(response.headers.get("Content-Type") ?? "");

/**
 * @param {string} url
 * @param {World} world
 */
async function getText(url, world) {
  const response = await get(url, world);
  if (!response) throw new StoreError("not-found", `There is no such file: ${url}`);
  return readText(response, url);
}

/**
 * @param {Response} response
 * @param {string} url
 */
async function readText(response, url) {
  const blob = await response.blob();
  if (blob.size > MAX_LIST) throw new StoreError("bad-answer", `This list is too large to be one: ${url}`);
  return blob.text();
}

/**
 * A file's length, where the server says it; null when there is no such file.
 * @param {string} url
 * @param {World} world
 * @returns {Promise<{bytes: number | null} | null>}
 */
async function head(url, world) {
  const response = await get(url, world, "HEAD");
  if (!response || isPage(response)) return null;
  const length = response.headers.get("Content-Encoding") ? "" : (response.headers.get("Content-Length") ?? "");
  return { bytes: /^\d+$/.test(length) ? Number(length) : null };
}

/**
 * @param {string} url
 * @param {World} world
 * @param {"GET" | "HEAD"} [method]
 * @returns {Promise<Response | null>} null when there is no such file
 */
async function get(url, world, method = "GET") {
  for (let failures = 1; ; failures++) {
    /** @type {StoreError | Passing} */
    let error;
    try {
      const response = await world.fetch(url, { method, signal: world.signal, cache: "no-store" });
      if (response.ok) return response;
      if (response.status === 404 || response.status === 410) return null;
      error = statusError(response.status, url, response.headers.get("Retry-After"), Date.now());
    } catch (thrown) {
      world.signal.throwIfAborted();
      error = (await world.diagnose(url)) ?? new Passing(new StoreError("network", `No answer came (${/** @type {any} */ (thrown)?.message ?? thrown}): ${url}`));
    }
    if (!(error instanceof Passing)) throw error;
    if (failures >= TRIES) throw error.error;
    await world.sleep(waitAfter(failures, error.wait, world.random), world.signal);
  }
}
