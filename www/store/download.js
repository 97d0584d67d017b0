// Brings a model or dictionary into the store, file after file, and proves each by its hash.

import { StoreError } from "./errors.js";
import { describeItem, exclusively, makeItem, openItem } from "./store.js";
import { StoredFile } from "./stored-file.js";
import { resolve } from "./sources.js";
import { Transfer } from "./transfer.js";

/** @import { Kind, Plan, PlannedFile, World } from "./sources.js" */
/** @import { Item } from "./store.js" */

/**
 * How far a download is.
 * @typedef {object} DownloadProgress
 * @property {"list" | "download" | "verify"} stage
 * @property {string} file the one at work, "" while the list is made
 * @property {number} index of it, from 0
 * @property {number} count of files
 * @property {number} loaded bytes of all files
 * @property {number | null} total null where some length is not known yet
 * @property {number} received bytes that came from the network since the start
 */

/** Milliseconds between two progress events. */
const EVERY = 200;

/**
 * Downloads what is missing and checks all of it.
 * @param {{key: string, kind: Kind, url: string, name: string}} what
 * @param {World} world
 * @param {(progress: DownloadProgress) => void} tell
 * @returns {Promise<Item>}
 */
export function download({ key, kind, url, name }, world, tell) {
  return exclusively(key, async () => {
    tell({ stage: "list", file: "", index: 0, count: 0, loaded: 0, total: null, received: 0 });
    const known = await openItem(key);
    // A list that was made once holds: what is on disk was begun with it.
    const plan = known?.plan ?? { ...(await resolve(url, kind, world)), name };
    const folder = await makeItem(key, plan);
    const meter = new Meter(plan, await describeItem(key), tell);
    for (const [index, planned] of plan.files.entries()) {
      meter.begin(index);
      const file = await StoredFile.open(folder, `file-${index}`, planned.path);
      try {
        if (file.state.state !== "whole") await bring(file, planned, world, meter);
      } finally {
        file.close();
      }
    }
    return /** @type {Item} */ (await describeItem(key));
  });
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
      const file = await StoredFile.open(item.folder, `file-${index}`, planned.path);
      try {
        const { state, sha256 } = file.state;
        if (state !== "whole") throw new StoreError("incomplete", `${planned.path} is not all there yet: go on with the download.`);
        const found = await file.sha256(signal, (hashed) => meter.hashed(hashed, file.state.total), true);
        if (found !== sha256) {
          file.clear();
          throw new StoreError("hash-mismatch", `${planned.path} on disk is no longer what was downloaded, and was deleted: download it again.`);
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
 * One file: fetched, hashed, compared. Bytes that prove wrong are fetched once more.
 * @param {StoredFile} file
 * @param {PlannedFile} planned
 * @param {World} world
 * @param {Meter} meter
 */
async function bring(file, planned, world, meter) {
  for (let wrong = 0; ; ) {
    if (!file.complete) {
      const { fetch, signal, sleep, random, diagnose } = world;
      const transfer = new Transfer(planned.url, file, {
        fetch,
        signal,
        sleep,
        random,
        diagnose,
        // A length without a hash beside it was only asked for, and may be that of a compressed answer.
        bytes: planned.proof ? planned.bytes : null,
        onBytes: () => meter.loaded(file.loaded + transfer.received, file.state.total),
      });
      await transfer.run();
    }
    const sha256 = await file.sha256(world.signal, (hashed) => meter.hashed(hashed, file.state.total));
    if (await isRight(file, planned, sha256)) {
      file.finish(sha256);
      meter.loaded(file.loaded, file.state.total);
      return;
    }
    file.clear();
    if (++wrong > 1) {
      const who = planned.proof === "hub" ? "the Hub" : "manifest.json";
      throw new StoreError("hash-mismatch", `${planned.path} came twice with bytes that are not those that ${who} promises, and was deleted: ${planned.url}`);
    }
  }
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

/** Adds up the files and tells the page at most five times a second. */
class Meter {
  /**
   * @param {Plan} plan
   * @param {Item | null} item what is there, null to count from zero
   * @param {(progress: DownloadProgress) => void} tell
   */
  constructor(plan, item, tell) {
    this.plan = plan;
    this.tell = tell;
    this.index = 0;
    this.have = plan.files.map((_, index) => item?.files[index].loaded ?? 0);
    this.totals = plan.files.map((file, index) => item?.files[index].total ?? file.bytes);
    this.start = this.sum();
    this.last = -Infinity;
    this.stage = /** @type {DownloadProgress["stage"]} */ ("download");
  }

  sum() {
    return this.have.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** @param {number} index of the file that comes next */
  begin(index) {
    this.index = index;
    this.last = -Infinity;
  }

  /**
   * @param {number} bytes of the file so far
   * @param {number | null} total
   */
  loaded(bytes, total) {
    this.note("download", bytes, total);
  }

  /**
   * @param {number} bytes
   * @param {number | null} total
   */
  hashed(bytes, total) {
    this.note("verify", bytes, total);
  }

  /**
   * @param {DownloadProgress["stage"]} stage
   * @param {number} bytes
   * @param {number | null} total
   */
  note(stage, bytes, total) {
    const { index, plan } = this;
    this.have[index] = bytes;
    this.totals[index] = total ?? this.totals[index];
    const now = performance.now();
    if (now - this.last < EVERY && stage === this.stage && bytes !== total) return;
    this.last = now;
    this.stage = stage;
    const loaded = this.sum();
    const sum = this.totals.reduce((all, one) => (all === null || one === null ? null : all + one), /** @type {number | null} */ (0));
    this.tell({ stage, file: plan.files[index].path, index, count: plan.files.length, loaded, total: sum, received: Math.max(0, loaded - this.start) });
  }
}
