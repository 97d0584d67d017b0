// The store: models and dictionaries in the origin's private file system, one folder each, and what
// is known of them. Nothing is handed out unless all of it is there and was hashed.

import { StoreError, diskError, patiently } from "./errors.js";
import { covered } from "./ranges.js";
import { RecordFile, readRecord } from "./record.js";
import { sha256 } from "./sha256.js";
import { readFileRecord } from "./stored-file.js";

/** @import { Kind, Plan, PlannedFile } from "./sources.js" */

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
const PLAN = "plan";

/**
 * The name of an item's folder and lock.
 * @param {Kind} kind
 * @param {string} url
 */
export const keyOf = (kind, url) => sha256(new TextEncoder().encode(`${kind} ${url}`)).slice(0, 24);

/** @param {number} index */
const dataName = (index) => `file-${index}`;

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

/**
 * Holds an item's lock while `action` runs, so that one tab at a time changes it.
 * @template T
 * @param {string} key
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export function exclusively(key, action) {
  return navigator.locks.request(`phi3-steer ${key}`, { ifAvailable: true }, (lock) => {
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
 * Makes an item's folder, or brings an existing one in line with the plan: a file of another address
 * or hash than before begins anew. Needs the lock.
 * @param {string} key
 * @param {Plan} plan
 */
export async function makeItem(key, plan) {
  const old = await openItem(key);
  try {
    const folder = await (await root()).getDirectoryHandle(key, { create: true });
    const same = (/** @type {PlannedFile} */ a, /** @type {PlannedFile | undefined} */ b) =>
      b && a.path === b.path && a.url === b.url && (a.sha256 ?? b.sha256) === b.sha256 && (a.gitOid ?? b.gitOid) === b.gitOid;
    const changed = plan.files.some((file, index) => !same(file, old?.plan.files[index])) || plan.files.length !== old?.plan.files.length;
    if (changed) {
      for (let index = 0; index < (old?.plan.files.length ?? 0); index++) {
        if (!same(plan.files[index] ?? { path: "" }, old?.plan.files[index])) await removeFile(folder, index);
      }
      const record = await RecordFile.open(folder, PLAN);
      try {
        record.write(plan);
      } finally {
        record.close();
      }
    }
    return folder;
  } catch (error) {
    throw diskError(error, plan.name);
  }
}

/**
 * @param {FileSystemDirectoryHandle} folder
 * @param {number} index
 */
async function removeFile(folder, index) {
  // The records first: they must never count bytes that are gone.
  for (const name of [`${dataName(index)}.a`, `${dataName(index)}.b`, dataName(index)]) {
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
      const record = await readFileRecord(item.folder, dataName(index));
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
  return { key, kind, url, name, state: files.every((file) => file.whole) ? "whole" : "part", loaded, total, files };
}

/** @returns {Promise<Item[]>} */
export async function listItems() {
  const items = [];
  for await (const [key, handle] of (await root()).entries()) {
    if (handle.kind !== "directory") continue;
    const item = await describeItem(key);
    // A folder without a plan is what a crash at its making or removal left.
    if (item) items.push(item);
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
    item.plan.files.map(async ({ path }, index) => {
      const [record, file] = await Promise.all([
        readFileRecord(item.folder, dataName(index)),
        item.folder.getFileHandle(dataName(index)).then((handle) => handle.getFile(), () => null),
      ]);
      if (record.state !== "whole" || !file) {
        throw new StoreError("incomplete", `${path} is not all there: go on with the download.`);
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
