// The store: models and dictionaries in the origin's private file system, one folder each, and what
// is known of them. Nothing is handed out unless all of it is there and was hashed.

import { isText } from "./content.js";
import { StoreError, diskError, patiently } from "./errors.js";
import { covered } from "./ranges.js";
import { RecordFile, readRecord } from "./record.js";
import { sha256 } from "./sha256.js";
import { shown } from "./shown.js";
import { readFileRecord } from "./stored-file.js";

/** @import { Kind } from "./forms.js" */
/** @import { PlannedFile } from "./manifest.js" */
/** @import { Plan } from "./sources.js" */
/** @import { FileRecord } from "./stored-file.js" */

/**
 * What the page is told of a model or dictionary on disk.
 * @typedef {object} Item
 * @property {string} key
 * @property {Kind} kind
 * @property {string} url
 * @property {string} name
 * @property {"whole" | "part"} state
 * @property {number} loaded bytes on disk
 * @property {number | null} total bytes, null where some length is not known yet
 * @property {ItemFile[]} files
 * @property {boolean} elsewhere whether another tab is working on it
 */

/**
 * @typedef {object} ItemFile
 * @property {string} path
 * @property {number} loaded
 * @property {number | null} total
 * @property {boolean} whole
 * @property {string | null} sha256
 * @property {PlannedFile["proof"]} proof who says that the hash is right, null where it was taken at the first download
 */

/** The folder of everything; another layout gets another name. */
const ROOT = "phi3-steer-1";
/** Where tabs tell each other of changes, by an item's key. */
export const CHANNEL = "phi3-steer store";
const PLAN = "plan";

/**
 * The name of an item's folder and lock.
 * @param {Kind} kind
 * @param {string} url
 */
export const keyOf = (kind, url) => sha256(new TextEncoder().encode(`${kind} ${url}`)).slice(0, 24);

/**
 * The name of a planned file on disk.
 * @param {PlannedFile} file
 * @param {number} index of it in its plan
 */
export const dataName = (file, index) => `file-${file.slot ?? index}`;

/** @returns {Promise<FileSystemDirectoryHandle>} */
async function root() {
  const missing = (/** @type {string} */ why) => new StoreError("no-storage", `This browser keeps no files for the page: ${why}`);
  if (!navigator.storage?.getDirectory) throw missing("it has no private file system here, or the page is not served over https or from localhost.");
  try {
    return await (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT, { create: true });
  } catch (error) {
    // Private windows of some browsers refuse.
    throw missing(String(/** @type {any} */ (error)?.message ?? error));
  }
}

const lockName = (/** @type {string} */ key) => `phi3-steer ${key}`;

/**
 * Holds an item's lock while `action` runs, so that one tab at a time changes it.
 * @template T
 * @param {string} key
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export function exclusively(key, action) {
  return navigator.locks.request(lockName(key), { ifAvailable: true }, (lock) => {
    if (!lock) {
      throw new StoreError("busy-elsewhere", "Another tab is working on these files: wait for it, or stop it there.");
    }
    return action();
  });
}

/**
 * An item's folder and plan.
 * @param {string} key
 * @returns {Promise<{folder: FileSystemDirectoryHandle, plan: Plan} | null>}
 */
export async function openItem(key) {
  let folder;
  try {
    folder = await (await root()).getDirectoryHandle(key);
  } catch (error) {
    if (error instanceof StoreError) throw error;
    return null;
  }
  const plan = await readRecord(folder, PLAN);
  return plan && Array.isArray(plan.files) ? { folder, plan } : null;
}

/**
 * Makes an item's folder, or brings an existing one in line with the plan: what is there of files that
 * are still the same stays, under whatever name. Needs the lock.
 * @param {string} key
 * @param {Plan} plan
 * @returns {Promise<{folder: FileSystemDirectoryHandle, plan: Plan}>} the plan with the files' places on disk
 */
export async function makeItem(key, plan) {
  try {
    const old = await openItem(key);
    const folder = await (await root()).getDirectoryHandle(key, { create: true });
    const there = await Promise.all(
      (old?.plan.files ?? []).map(async (file, index) => ({ file: { ...file, slot: file.slot ?? index }, record: await readFileRecord(folder, dataName(file, index)) })),
    );
    const placed = { ...plan, files: place(plan.files, there) };
    const record = await RecordFile.open(folder, PLAN);
    try {
      // First the plan: until then what it replaces stands.
      record.write(placed);
    } finally {
      record.close();
    }
    await sweep(folder, placed);
    return { folder, plan: placed };
  } catch (error) {
    throw diskError(error, plan.name);
  }
}

/**
 * Gives each planned file its place: that of bytes that are still right, or a new one.
 * @param {PlannedFile[]} files
 * @param {{file: PlannedFile, record: FileRecord}[]} there
 * @returns {PlannedFile[]}
 */
export function place(files, there) {
  const left = new Set(there);
  let next = there.reduce((most, { file }) => Math.max(most, (file.slot ?? 0) + 1), 0);
  const taken = files.map((file) => {
    // The very bytes count more than the name.
    const same = [...left].find((one) => file.sha256 && one.record.sha256 === file.sha256) ?? [...left].find((one) => isSame(file, one));
    if (same) left.delete(same);
    return same;
  });
  return files.map((file, index) => ({ ...file, slot: taken[index]?.file.slot ?? next++ }));
}

/**
 * Whether what is on disk belongs to a planned file.
 * @param {PlannedFile} file
 * @param {{file: PlannedFile, record: FileRecord}} one
 */
function isSame(file, { file: old, record }) {
  if (file.path !== old.path) return false;
  // Promises that are there must be the same, and so must bytes that were found to be other ones.
  if (file.sha256 || file.gitOid) return file.sha256 === old.sha256 && file.gitOid === old.gitOid;
  if (file.url !== old.url) return false;
  if (file.etag && record.etag) return file.etag === record.etag;
  // Descriptions are short: a length says too little.
  return !isText(file.path) && (file.bytes === null || record.total === null || file.bytes === record.total);
}

/**
 * Deletes what no file of the plan has for its own.
 * @param {FileSystemDirectoryHandle} folder
 * @param {Plan} plan
 */
async function sweep(folder, plan) {
  const known = new Set([PLAN, ...plan.files.map(dataName)]);
  const lost = [];
  for await (const name of folder.keys()) if (!known.has(name.replace(/\.[ab]$/, ""))) lost.push(name);
  // The records first: they must never count bytes that are gone.
  lost.sort((a, b) => Number(/\.[ab]$/.test(b)) - Number(/\.[ab]$/.test(a)));
  for (const name of lost) {
    await patiently(() => folder.removeEntry(name)).catch((error) => {
      if (error?.name !== "NotFoundError") throw error;
    });
  }
}

/**
 * @param {string} key
 * @returns {Promise<Item | null>}
 */
export async function describeItem(key) {
  const item = await openItem(key);
  if (!item) return null;
  const files = await Promise.all(
    item.plan.files.map(async (file, index) => {
      const record = await readFileRecord(item.folder, dataName(file, index));
      return {
        path: file.path,
        loaded: covered(record.done),
        total: record.total ?? file.bytes,
        whole: record.state === "whole",
        sha256: record.sha256,
        proof: file.proof,
      };
    }),
  );
  const { kind, url, name } = item.plan;
  const total = files.reduce((sum, file) => (sum === null || file.total === null ? null : sum + file.total), /** @type {number | null} */ (0));
  const loaded = files.reduce((sum, file) => sum + file.loaded, 0);
  return { key, kind, url, name, state: files.every((file) => file.whole) ? "whole" : "part", loaded, total, files, elsewhere: false };
}

/** Keys of what some tab is working on. */
export async function busyKeys() {
  const { held = [] } = await navigator.locks.query();
  const prefix = lockName("");
  return held.flatMap(({ name }) => (name?.startsWith(prefix) ? [name.slice(prefix.length)] : []));
}

/**
 * @param {string[]} [elsewhere] keys of what other tabs work on
 * @returns {Promise<Item[]>}
 */
export async function listItems(elsewhere = []) {
  const items = [];
  for await (const [key, handle] of (await root()).entries()) {
    if (handle.kind !== "directory") continue;
    const item = await describeItem(key);
    // A folder without a plan is what a crash at its making or removal left.
    if (item) items.push({ ...item, elsewhere: elsewhere.includes(key) });
    else await removeItem(key).catch(() => {});
  }
  return items.sort((a, b) => a.name.localeCompare(b.name));
}

/**
 * The files of an item, each under its path; they are read from disk by slices.
 * @param {string} key
 * @returns {Promise<File[]>}
 */
export async function itemFiles(key) {
  const item = await openItem(key);
  if (!item) throw new StoreError("not-stored", "These files are not on this disk.");
  return Promise.all(
    item.plan.files.map(async (planned, index) => {
      const { path } = planned;
      const name = dataName(planned, index);
      const [record, file] = await Promise.all([
        readFileRecord(item.folder, name),
        item.folder.getFileHandle(name).then((handle) => handle.getFile(), () => null),
      ]);
      if (record.state !== "whole" || !file) {
        throw new StoreError("incomplete", `${shown(path)} is not all there: go on with the download.`);
      }
      // Named by its path; the bytes stay on disk.
      return new File([file], path);
    }),
  );
}

/**
 * Deletes an item; another tab may not be working on it.
 * @param {string} key
 */
export async function removeItem(key) {
  await exclusively(key, async () => {
    try {
      const folder = await root();
      await patiently(() => folder.removeEntry(key, { recursive: true }));
    } catch (error) {
      if (/** @type {any} */ (error)?.name !== "NotFoundError") throw diskError(error, "the stored files");
    }
  });
}
