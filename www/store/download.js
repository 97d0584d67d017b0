// Brings a model or dictionary into the store, file after file, and proves each by its hash.

import { HEAD, checkConfig, checkHead, isText, mostBytes } from "./content.js";
import { StoreError } from "./errors.js";
import { Meter } from "./meter.js";
import { shown, shownUrl } from "./shown.js";
import { checkIndex, resolve } from "./sources.js";
import { dataName, describeItem, exclusively, makeItem, openItem } from "./store.js";
import { StoredFile } from "./stored-file.js";
import { Changed, Transfer } from "./transfer.js";

/** @import { Kind } from "./forms.js" */
/** @import { PlannedFile } from "./manifest.js" */
/** @import { DownloadProgress } from "./meter.js" */
/** @import { Plan, World } from "./sources.js" */
/** @import { Item } from "./store.js" */

/** @typedef {World & {ranges: boolean}} Fetching */

/** Plans that are made in one download, at most: a server whose files change faster is not waited for. */
const PLANS = 4;

/** The plan does not fit what the server has. */
class Stale extends Error {
  /**
   * @param {"changed" | "hash" | "length" | "gone"} why
   * @param {StoreError} error to report where a new plan says the same
   * @param {PlannedFile} file
   * @param {boolean} [fresh] whether all of the file came in this download
   */
  constructor(why, error, file, fresh = false) {
    super(error.message);
    this.why = why;
    this.error = error;
    this.file = file;
    this.fresh = fresh;
  }
}

/**
 * Downloads what is missing and checks all of it.
 * @param {{key: string, kind: Kind, url: string, name: string}} what
 * @param {World} world
 * @param {(progress: DownloadProgress) => void} tell
 * @returns {Promise<Item>}
 */
export function download(what, world, tell) {
  const { key } = what;
  return exclusively(key, async () => {
    const list = () => tell({ stage: "list", file: "", index: 0, count: 0, loaded: 0, total: null, received: 0 });
    list();
    const known = await describeItem(key);
    // What is all there is not asked for again.
    if (known?.state === "whole") return known;
    // What has come from a server shows that it lets itself be read.
    const begun = (await openItem(key))?.plan.files ?? [];
    for (const [index, { url }] of begun.entries()) if (known?.files[index].loaded) world.reached.add(new URL(url).origin);
    let plan = await firstPlan(what, world);
    for (let plans = 1; ; plans++) {
      const made = await makeItem(key, plan);
      // Machines behind one address may each call the same file another version: one answer is of one.
      const ranges = plans < PLANS;
      try {
        await bringAll(made.folder, made.plan, { ...world, ranges }, new Meter(made.plan, await describeItem(key), tell));
        return /** @type {Item} */ (await describeItem(key));
      } catch (error) {
        if (!(error instanceof Stale)) throw error;
        if (plans >= PLANS) throw error.error;
        list();
        plan = await nextPlan(what, world, made, error);
      }
    }
  });
}

/**
 * The list as the server has it now. What is on disk was begun with another, perhaps an older one, which
 * counts where no new one can be had.
 * @param {{key: string, kind: Kind, url: string, name: string}} what
 * @param {World} world
 * @returns {Promise<Plan>}
 */
async function firstPlan({ key, kind, url, name }, world) {
  try {
    return { ...(await resolve(url, kind, world)), name };
  } catch (error) {
    world.signal.throwIfAborted();
    const known = await openItem(key);
    if (!known) throw error;
    return known.plan;
  }
}

/**
 * The list anew, after it did not fit; if it is still the same, what it says of the file counts.
 * @param {{kind: Kind, url: string, name: string}} what
 * @param {World} world
 * @param {{folder: FileSystemDirectoryHandle, plan: Plan}} made
 * @param {Stale} stale
 * @returns {Promise<Plan>}
 */
async function nextPlan({ kind, url, name }, world, { folder, plan }, stale) {
  const fresh = await resolve(url, kind, world).catch((error) => {
    world.signal.throwIfAborted();
    throw stale.why === "gone" ? error : stale.error;
  });
  const next = { ...fresh, name };
  const promise = (/** @type {PlannedFile | undefined} */ file) => file && JSON.stringify([file.path, file.url, file.bytes, file.sha256, file.gitOid]);
  const { file } = stale;
  // Another promise for this file: what there is of it is judged by that.
  if (promise(file) !== promise(next.files.find(({ path }) => path === file.path))) return next;
  if (stale.why === "length" || stale.why === "gone") throw stale.error;
  const index = plan.files.findIndex(({ path }) => path === file.path);
  const stored = await StoredFile.open(folder, dataName(plan.files[index], index), file.path);
  try {
    // The hash at the end will tell whether what was begun and the rest belong together.
    if (stale.why === "changed" && file.proof) stored.anyVersion();
    else stored.clear();
  } finally {
    stored.close();
  }
  // Bytes that came all at once and are wrong are wrong on the server.
  if (stale.why === "hash" && stale.fresh) throw stale.error;
  return next;
}

/**
 * All files, descriptions first: what cannot run is found out before its weights come.
 * @param {FileSystemDirectoryHandle} folder
 * @param {Plan} plan
 * @param {Fetching} world
 * @param {Meter} meter
 */
async function bringAll(folder, plan, world, meter) {
  const order = [...plan.files.keys()].sort((a, b) => Number(isText(plan.files[b].path)) - Number(isText(plan.files[a].path)));
  for (const index of order) {
    const planned = plan.files[index];
    meter.begin(index);
    const file = await StoredFile.open(folder, dataName(planned, index), shown(planned.path));
    try {
      if (file.state.state !== "whole") await bring(file, planned, world, meter);
      if (plan.kind === "model" && isText(planned.path)) checkText(file, planned.path, plan);
    } finally {
      file.close();
    }
  }
}

/**
 * @param {StoredFile} file
 * @param {string} path
 * @param {Plan} plan
 */
function checkText(file, path, plan) {
  const text = () => new TextDecoder().decode(file.bytes());
  if (/(^|\/)config\.json$/.test(path) && !path.includes("sae/")) checkConfig(path, text());
  if (path.endsWith(".index.json")) checkIndex(path, text(), plan);
}

/**
 * One file: fetched, hashed, compared.
 * @param {StoredFile} file
 * @param {PlannedFile} planned
 * @param {Fetching} world
 * @param {Meter} meter
 */
async function bring(file, planned, world, meter) {
  if (!file.complete) await fetchRest(file, planned, world, meter);
  const sha256 = await file.sha256(world.signal, (hashed) => meter.hashed(hashed, file.state.total));
  if (await isRight(file, planned, sha256)) {
    file.finish(sha256);
    meter.loaded(file.loaded, file.state.total);
    return;
  }
  file.note(sha256);
  const who = planned.proof === "hub" ? "the Hub" : "manifest.json";
  const error = new StoreError("hash-mismatch", `${shown(planned.path)} came with bytes that are not those that ${who} promises, and was deleted: ${shownUrl(planned.url)}`);
  throw new Stale("hash", error, planned, file.fetched >= (file.state.total ?? 0));
}

/**
 * @param {StoredFile} file
 * @param {PlannedFile} planned
 * @param {Fetching} world
 * @param {Meter} meter
 */
async function fetchRest(file, planned, world, meter) {
  let refused = false;
  const transfer = new Transfer(planned.url, file, {
    ...world,
    // A length without a hash beside it was only asked for, and may be that of a compressed answer.
    bytes: planned.proof ? planned.bytes : null,
    most: mostBytes(planned.path),
    check: (head) => {
      refused = true;
      checkHead(planned.path, head.subarray(0, HEAD));
      refused = false;
    },
    onBytes: () => meter.loaded(file.loaded + transfer.received, file.state.total),
  });
  try {
    await transfer.run();
  } catch (error) {
    if (refused) file.clear();
    if (error instanceof Changed) throw new Stale("changed", error, planned);
    if (error instanceof StoreError && error.code === "wrong-length") throw new Stale("length", error, planned);
    if (error instanceof StoreError && error.code === "not-found" && !refused) throw new Stale("gone", error, planned);
    throw error;
  }
}

/**
 * Hashes every stored file anew and compares; what is not right is deleted.
 * @param {string} key
 * @param {AbortSignal} signal
 * @param {(progress: DownloadProgress) => void} tell
 * @returns {Promise<Item>}
 */
export function verify(key, signal, tell) {
  return exclusively(key, async () => {
    const item = await openItem(key);
    if (!item) throw new StoreError("not-stored", "These files are not on this disk.");
    const meter = new Meter(item.plan, null, tell);
    for (const [index, planned] of item.plan.files.entries()) {
      meter.begin(index);
      const file = await StoredFile.open(item.folder, dataName(planned, index), shown(planned.path));
      try {
        const { state, sha256 } = file.state;
        if (state !== "whole") throw new StoreError("incomplete", `${shown(planned.path)} is not all there yet: go on with the download.`);
        const found = await file.sha256(signal, (hashed) => meter.hashed(hashed, file.state.total), true);
        if (found !== sha256) {
          file.clear();
          throw new StoreError("hash-mismatch", `${shown(planned.path)} on disk is no longer what was downloaded, and was deleted: download it again.`);
        }
        meter.hashed(file.state.total ?? 0, file.state.total);
      } finally {
        file.close();
      }
    }
    return /** @type {Item} */ (await describeItem(key));
  });
}

/**
 * @param {StoredFile} file
 * @param {PlannedFile} planned
 * @param {string} sha256
 */
async function isRight(file, planned, sha256) {
  if (planned.sha256) return sha256 === planned.sha256;
  if (planned.gitOid && (file.state.total ?? 0) < 64 << 20) return (await gitOid(file.bytes())) === planned.gitOid;
  return true;
}

/**
 * Git's name for these bytes: the SHA-1 of a short header and them.
 * @param {Uint8Array} bytes
 */
export async function gitOid(bytes) {
  const head = new TextEncoder().encode(`blob ${bytes.length}\0`);
  const all = new Uint8Array(head.length + bytes.length);
  all.set(head);
  all.set(bytes, head.length);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-1", all));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
