// The store's worker: downloads, hashes and keeps models while the engine chats in its own worker.
// It speaks the protocol of ../line.js; errors may carry `choices`, addresses to choose from:
//   method    args                      events            ok
//   list      []                        none              Listing
//   download  [{kind, url, name}]       DownloadProgress  Item
//   put       [{kind, url, name},        none              Item   keeps files that were made here
//              {path, bytes}[]]
//   stop      [key]                     none              null   ends a download or check; what came stays
//   open      [key]                     none              File[]
//   verify    [key]                     DownloadProgress  Item
//   remove    [key]                     none              null   ends a download of it first
// Workers of other tabs are told on the channel CHANNEL when something on the disk begins or ends to change: {key}.
// The pages themselves tell there what was deleted: {removed} (../downloads.js).

import { holdLock } from "../lifeline.js";
import { diagnose } from "./diagnose.js";
import { normalise } from "./address.js";
import { download, verify } from "./download.js";
import { StoreError, toldCode } from "./errors.js";
import { put } from "./put.js";
import { CHANNEL, busyKeys, itemFiles, keyOf, listItems, removeItem } from "./store.js";

/** @import { WorkerReply, WorkerRequest } from "../types.d.ts" */
/**
 * All that is stored, and the room for it.
 * @typedef {object} Listing
 * @property {import("./store.js").Item[]} items
 * @property {string[]} elsewhere keys of what other tabs work on, also before anything of it is there
 * @property {number | null} usage bytes of this site, all told
 * @property {number | null} quota bytes that the browser grants it
 * @property {boolean} persisted whether the browser promises not to clear it by itself
 */

/** @type {(reply: WorkerReply) => void} */
const post = (reply) => self.postMessage(reply);

/** What runs, by key. @type {Map<string, {abort: AbortController, ended: Promise<unknown>}>} */
const running = new Map();

/** Origins that have answered. @type {Set<string>} */
const reached = new Set();

const others = new BroadcastChannel(CHANNEL);

/** The page's folder. */
const page = new URL("../../", import.meta.url).href;

/**
 * Runs a job that can be stopped.
 * @template T
 * @param {string} key
 * @param {(signal: AbortSignal) => Promise<T>} action
 * @returns {Promise<T>}
 */
async function job(key, action) {
  if (running.has(key)) throw new StoreError("busy", "These files are being worked on already.");
  const abort = new AbortController();
  const ended = action(abort.signal);
  running.set(key, { abort, ended: ended.catch(() => {}) });
  others.postMessage({ key });
  try {
    return await ended;
  } catch (error) {
    throw abort.signal.aborted ? new StoreError("stopped", "The download was paused.") : error;
  } finally {
    running.delete(key);
    others.postMessage({ key });
  }
}

/** @param {string} key */
async function stop(key) {
  const one = running.get(key);
  one?.abort.abort();
  await one?.ended;
}

/** @type {Record<string, (id: number, ...args: any[]) => Promise<unknown>>} */
const methods = {
  async list() {
    const elsewhere = (await busyKeys()).filter((key) => !running.has(key));
    const items = await listItems(elsewhere);
    const { usage = null, quota = null } = (await navigator.storage.estimate?.().catch(() => null)) ?? {};
    const persisted = (await navigator.storage.persisted?.().catch(() => false)) ?? false;
    return { items, elsewhere, usage, quota, persisted };
  },
  async download(id, { kind, url, name }) {
    const href = normalise(url, page);
    const key = keyOf(kind, href);
    return job(key, (signal) =>
      download(
        { key, kind, url: href, name },
        { fetch: (input, init) => fetch(input, init), page, signal, sleep, random: Math.random, reached, diagnose: (at) => diagnose(at, page, navigator.onLine) },
        (event) => post({ id, event }),
      ),
    );
  },
  async put(_id, { kind, url, name }, files) {
    const href = normalise(url, page);
    const key = keyOf(kind, href);
    return job(key, () => put({ key, kind, url: href, name }, files));
  },
  async verify(id, key) {
    return job(key, (signal) => verify(key, signal, (event) => post({ id, event })));
  },
  async stop(_id, key) {
    await stop(key);
  },
  async open(_id, key) {
    return itemFiles(key);
  },
  async remove(_id, key) {
    await stop(key);
    await removeItem(key);
    others.postMessage({ key });
  },
};

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, milliseconds);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}

self.onmessage = async (/** @type {MessageEvent<WorkerRequest>} */ message) => {
  const { id, method, args } = message.data;
  try {
    post({ id, ok: (await methods[method](id, ...args)) ?? null });
  } catch (error) {
    const { message: text } = /** @type {any} */ (error);
    const { code, choices } = error instanceof StoreError ? error : { code: "store-failed", choices: undefined };
    post({ id, error: { code: toldCode(code, navigator.onLine), message: String(text ?? error), choices } });
  }
};

post({ ready: true, lock: await holdLock(self.name) });
