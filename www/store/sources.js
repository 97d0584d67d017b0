// What a model or dictionary at an address consists of: its files, with sizes and hashes where they
// can be known beforehand. A plan is complete, or there is none.

import { fileName, hubFile, hubPlace, hubTree, isFile, nameOf, normalise, refused } from "./address.js";
import { StoreError } from "./errors.js";
import { INDEX, MARK_NAMES, NAMES, SPARSIFY, formAt, formsBelow, ggufParts, lacks, nothing, singles } from "./forms.js";
import { probe, read } from "./lists.js";
import { isInside, isLength, isSha256, parse, parseManifest, planned, shards, within } from "./manifest.js";
import { sha256 } from "./sha256.js";
import { shown, shownUrl } from "./shown.js";

/** @import { HubPlace } from "./address.js" */
/** @import { Form, Kind } from "./forms.js" */
/** @import { Asking } from "./lists.js" */
/** @import { PlannedFile } from "./manifest.js" */
/** @import { Net } from "./retry.js" */

/**
 * @typedef {object} Plan
 * @property {string} url
 * @property {Kind} kind
 * @property {string} name
 * @property {PlannedFile[]} files
 */

/** @typedef {Net & {page: string}} World with the page's address */

/** Files that the Hub lists of one place, and answers in which it does. */
const MOST_ENTRIES = 50_000;
const MOST_PAGES = 100;
/** Addresses to choose from that are offered. */
const MOST_CHOICES = 200;
/** Questions about files that are under way at once. */
const AT_ONCE = 8;

/**
 * A place that files lie in, listed or not.
 * @typedef {object} Place
 * @property {string} name for messages
 * @property {Map<string, PlannedFile>} files known so far, by path
 * @property {(path: string) => string} address
 * @property {(paths: string[]) => Promise<void>} look adds those of the paths that are there; nothing to do where all is listed
 * @property {Asking} net
 */

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
  const net = { ...world, refused: /** @type {string[]} */ ([]) };
  const hub = hubPlace(url);
  try {
    const files = hub ? await fromHub(hub, isFile(url), kind, net) : isFile(url) ? await single(url, net) : await fromFolder(url, kind, net);
    return { url, kind, name: nameOf(url), files };
  } catch (error) {
    // What is missing may be what was not handed out.
    if (error instanceof StoreError && error.code === "not-found" && net.refused.length) {
      throw new StoreError("forbidden", `${error.message} The server does not hand out ${shownUrl(net.refused[0])}${net.refused.length > 1 ? ` and ${net.refused.length - 1} files more` : ""}.`);
    }
    throw error;
  }
}

/**
 * @param {HubPlace} hub
 * @param {boolean} one whether the place is one file
 * @param {Kind} kind
 * @param {Asking} net
 */
async function fromHub(hub, one, kind, net) {
  const folder = one ? { ...hub, path: hub.path.split("/").slice(0, -1).join("/") } : hub;
  const start = folder.path ? folder.path.length + 1 : 0;
  const files = new Map();
  for (const entry of await hubEntries(folder, net)) {
    const path = entry.path.slice(start);
    if (!isInside(path)) continue;
    const bytes = entry.lfs?.size ?? entry.size;
    files.set(
      path,
      planned(path, hubFile(hub, entry.path), {
        bytes: isLength(bytes) ? bytes : null,
        sha256: isSha256(entry.lfs?.oid) ? entry.lfs.oid : null,
        gitOid: !entry.lfs && /^[0-9a-f]{40}$/.test(entry.oid) ? entry.oid : null,
        proof: "hub",
      }),
    );
  }
  if (one) {
    const path = hub.path.slice(start);
    const parts = ggufParts(path) ?? [path];
    const missing = parts.filter((part) => !files.has(part));
    if (missing.includes(path)) throw new StoreError("not-found", `${hub.repo} has no file ${shown(hub.path)} at ${shown(hub.revision)}.`);
    if (missing.length) throw lacks(hub.repo, missing);
    return pick(files, parts);
  }
  const address = (/** @type {string} */ path) => hubFile(hub, folder.path ? `${folder.path}/${path}` : path);
  return choose({ name: shown(hub.repo), files, address, look: async () => {}, net }, kind);
}

/**
 * @param {HubPlace} place
 * @param {Asking} net
 * @returns {Promise<any[]>}
 */
async function hubEntries(place, net) {
  const entries = [];
  let next = /** @type {string | null} */ (hubTree(place));
  for (let pages = 0; next; pages++) {
    if (pages >= MOST_PAGES || entries.length > MOST_ENTRIES) throw new StoreError("too-large", `${shown(place.repo)} holds more files than are looked through (${MOST_ENTRIES}): give the address of a folder in it.`);
    const answer = await read(next, net);
    if (!answer) throw new StoreError("not-found", `The Hub knows no ${shown(place.repo)}${place.path ? `/${shown(place.path)}` : ""} at ${shown(place.revision)}.`);
    const page = parse(answer.text, next);
    if (!Array.isArray(page)) throw new StoreError("bad-answer", `The Hub's list of files could not be read: ${shownUrl(next)}`);
    for (const entry of page) if (entry?.type === "file" && typeof entry.path === "string") entries.push(entry);
    next = following(answer.response.headers.get("Link") ?? "", next);
  }
  return entries;
}

/**
 * The address of a list's next page, on the same server.
 * @param {string} link the header
 * @param {string} now
 */
function following(link, now) {
  const found = /<([^>]+)>;\s*rel="next"/.exec(link)?.[1];
  if (!found || !URL.canParse(found, now)) return null;
  const next = new URL(found, now);
  return next.origin === new URL(now).origin && !next.username && next.href !== now ? next.href : null;
}

/**
 * @param {Map<string, PlannedFile>} files
 * @param {string[]} paths
 */
const pick = (files, paths) => [...new Set(paths)].flatMap((path) => files.get(path) ?? []);

/**
 * The files to fetch of a place. The first whole form counts; of several of one form one is chosen.
 * @param {Place} place
 * @param {Kind} kind
 * @returns {Promise<PlannedFile[]>}
 */
async function choose(place, kind) {
  const { files } = place;
  const manifest = files.get("manifest.json");
  if (manifest) {
    const listed = await manifestFiles(place, manifest, kind);
    if (listed) return listed;
  }
  const paths = new Set(files.keys());
  const top = await filled(place, formAt(paths, kind, ""));
  if (top && !top.missing.length) return withOwn(place, kind, top);
  const alone = singles(paths, kind);
  const best = alone.filter((form) => !form.missing.length);
  if (best.length === 1) return pick(files, best[0].files);
  if (best.length) throw ambiguous(place, best.map((form) => place.address(form.files[0])));
  const broken = top ?? alone[0];
  if (broken) throw lacks(place.name, broken.missing);
  const below = formsBelow(paths, kind);
  if (below.length > 1) throw ambiguous(place, below.map((form) => place.address(form.at)));
  const only = await filled(place, below[0] ?? null);
  if (only?.missing.length) throw lacks(place.name, only.missing);
  if (only) return withOwn(place, kind, only);
  await place.look(MARK_NAMES);
  throw nothing(new Set(files.keys()), kind, place.name);
}

/**
 * A form with the shards that its index names.
 * @param {Place} place
 * @param {Form | null} form
 * @returns {Promise<Form | null>}
 */
async function filled(place, form) {
  if (!form?.index) return form;
  const names = shards(await text(place, form.index), place.address(form.index)).map((name) => form.at + name);
  await place.look(names);
  return { ...form, files: [...form.files, ...names.filter((name) => place.files.has(name))], missing: [...form.missing, ...names.filter((name) => !place.files.has(name))] };
}

/**
 * A model's files with those of the dictionary that its report names and that lies in its own folder.
 * @param {Place} place
 * @param {Kind} kind
 * @param {Form} form
 */
async function withOwn(place, kind, form) {
  const report = `${form.at}report.json`;
  if (kind !== "model" || !form.files.includes(report)) return pick(place.files, form.files);
  const hook = parse(await text(place, report), place.address(report))?.hook;
  if (typeof hook !== "string" || !/^[\w.]+$/.test(hook)) return pick(place.files, form.files);
  const inside = [...SPARSIFY.needs, SPARSIFY.weights].map((name) => `${form.at}sae/${hook}/${name}`);
  await place.look(inside);
  return pick(place.files, [...form.files, ...(inside.every((path) => place.files.has(path)) ? inside : [])]);
}

/**
 * @param {Place} place
 * @param {string} path
 */
async function text(place, path) {
  const url = place.files.get(path)?.url ?? place.address(path);
  const found = await read(url, place.net);
  if (!found) throw new StoreError("not-found", `There is no such file: ${shownUrl(url)}`);
  return found.text;
}

/**
 * What manifest.json lists, and itself.
 * @param {Place} place
 * @param {PlannedFile} manifest
 * @param {Kind} kind
 * @returns {Promise<PlannedFile[] | null>} null where it is no list of files
 */
async function manifestFiles(place, manifest, kind) {
  const found = await read(manifest.url, place.net, { optional: true });
  // Some servers send their start page where a file is missing, and do not say what it is.
  if (!found || /^\s*</.test(found.text)) return null;
  const listed = parseManifest(found.text, manifest.url);
  if (!listed) return null;
  const paths = new Set(listed.map(({ path }) => path));
  const top = formAt(paths, kind, "");
  const alone = singles(paths, kind);
  const broken = [top, ...alone].filter((form) => form !== null);
  // Shards are checked when the index is there.
  if (broken.length && broken.every((form) => form.missing.length)) throw lacks(place.name, broken[0].missing);
  const below = broken.length ? [] : formsBelow(paths, kind);
  if (!broken.length && !below.length) throw nothing(paths, kind, place.name);
  // The dictionaries of a model lie in folders of its own.
  if (kind === "dictionary" && below.length > 1) throw ambiguous(place, below.map((form) => place.address(form.at)));
  const wanted = kind === "dictionary" && below.length ? new Set(below[0].files) : paths;
  const own = listed.filter(({ path }) => wanted.has(path) && path !== "manifest.json");
  const definite = own.map((file) => ({ ...file, url: place.files.get(file.path)?.url ?? place.address(file.path) }));
  return [...definite, planned("manifest.json", manifest.url, { bytes: found.bytes.length, sha256: sha256(found.bytes), proof: "manifest" })];
}

/**
 * @param {Place} place
 * @param {string[]} choices
 */
function ambiguous(place, choices) {
  const some = choices.slice(0, MOST_CHOICES);
  return new StoreError("ambiguous", `${place.name} holds ${choices.length} of them: choose one${choices.length > some.length ? ` (the first ${some.length} are listed)` : ""}.`, some);
}

/**
 * One file on a server that lists nothing, with its other parts if it is one of several. Beside the
 * page, a manifest in its folder knows their hashes.
 * @param {string} url
 * @param {Asking} net
 * @returns {Promise<PlannedFile[]>}
 */
async function single(url, net) {
  const name = fileName(url);
  const parts = ggufParts(name) ?? [name];
  const files = parts.map((part) => planned(part, part === name ? url : within(url, part)));
  if (new URL(url).origin === new URL(net.page).origin) {
    const at = within(url, "manifest.json");
    const manifest = await read(at, net, { optional: true });
    const listed = manifest && parseManifest(manifest.text, at);
    const known = parts.flatMap((part) => listed?.find(({ path }) => path === part) ?? []);
    if (known.length === parts.length) return known;
  }
  if (parts.length === 1) return files;
  const found = await each(files, async (file) => ({ file, known: await probe(file.url, net) }));
  const missing = found.filter(({ known }) => !known).map(({ file }) => file.path);
  if (missing.length) throw lacks(shownUrl(url), missing);
  return found.map(({ file, known }) => ({ ...file, ...known }));
}

/**
 * A folder on a server that lists nothing: a manifest, or else the usual names.
 * @param {string} base
 * @param {Kind} kind
 * @param {Asking} net
 * @returns {Promise<PlannedFile[]>}
 */
async function fromFolder(base, kind, net) {
  const address = (/** @type {string} */ path) => within(base, path);
  /** @type {Place} */
  const place = {
    name: shownUrl(base),
    files: new Map([["manifest.json", planned("manifest.json", address("manifest.json"))]]),
    address,
    net,
    look: async (paths) => {
      const unknown = paths.filter((path) => !place.files.has(path));
      const found = await each(unknown, async (path) => ({ path, known: await probe(address(path), net) }));
      for (const { path, known } of found) if (known) place.files.set(path, planned(path, address(path), known));
    },
  };
  const listed = await manifestFiles(place, /** @type {PlannedFile} */ (place.files.get("manifest.json")), kind);
  if (listed) return listed;
  place.files.delete("manifest.json");
  await place.look(NAMES[kind]);
  return choose(place, kind);
}

/**
 * The results of an action on each, some at a time, in order.
 * @template A, B
 * @param {A[]} all
 * @param {(one: A) => Promise<B>} action
 * @returns {Promise<B[]>}
 */
async function each(all, action) {
  /** @type {B[]} */
  const results = [];
  let next = 0;
  const lane = async () => {
    while (next < all.length) {
      const index = next++;
      results[index] = await action(all[index]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, all.length) }, lane));
  return results;
}

/**
 * Whether an index that has come agrees with the plan.
 * @param {string} path
 * @param {string} json
 * @param {Plan} plan
 */
export function checkIndex(path, json, plan) {
  if (path !== INDEX && !path.endsWith(`/${INDEX}`)) return;
  const at = path.slice(0, -INDEX.length);
  const known = new Set(plan.files.map((file) => file.path));
  const missing = shards(json, path).filter((name) => !known.has(at + name));
  if (missing.length) throw lacks(plan.name, missing);
}
