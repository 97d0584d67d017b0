// What is on disk and what is on its way there: the store's worker as the page sees it.

import { bytes } from "./dom.js";
import { asEngineError, EngineError, Line } from "./line.js";
import { normalise } from "./store/address.js";
import { shown } from "./store/shown.js";
import { CHANNEL, keyOf } from "./store/store.js";

/** @import { DownloadProgress } from "./store/meter.js" */
/** @import { Item } from "./store/store.js" */
/** @import { Listing } from "./store/worker.js" */
/** @import { Entry } from "./types.d.ts" */

/**
 * A download or check under way, or the error that ended the last one.
 * @typedef {object} Job
 * @property {Entry} entry
 * @property {DownloadProgress | null} progress
 * @property {number} rate bytes a second over the last seconds, 0 when not known
 * @property {[number, number][]} samples milliseconds and bytes received
 * @property {boolean} running
 * @property {EngineError | null} error
 */

/** The rate is that of the last so many milliseconds. */
const WINDOW = 6000;

/** Milliseconds between two looks at what another tab is working on. */
const LOOK = 1000;

/**
 * Something that was deleted from the disk.
 * @typedef {{ kind: Entry["kind"], url: string }} Removed
 */

/** Events: "removed" with what somebody deleted, here or in another tab; "change" after anything that shows; "whole" with the entry when a download has ended well. */
export class Downloads extends EventTarget {
  constructor() {
    super();
    /** @type {Line | null} */
    this.line = null;
    /** @type {Listing | null} */
    this.listing = null;
    /** @type {Map<string, Job>} */
    this.jobs = new Map();
    this.looking = /** @type {any} */ (0);
    // What other tabs begin, end and delete.
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.onmessage = ({ data }) => {
      if (data.removed) this.removed(data.removed);
      if (this.listing) this.refresh();
    };
  }

  /**
   * @param {string} method
   * @param {unknown[]} args
   * @param {(event: any) => void} [onEvent]
   */
  call(method, args, onEvent) {
    // A worker that died is started anew: what it had written is on disk.
    if (!this.line || this.line.closed) this.line = new Line("store");
    return this.line.call(method, args, onEvent);
  }

  /** @param {Entry} entry */
  key(entry) {
    return keyOf(entry.kind, normalise(entry.url ?? "", document.baseURI));
  }

  /**
   * @param {Entry} entry
   * @returns {Item | undefined}
   */
  item(entry) {
    if (!entry.url) return undefined;
    const key = this.key(entry);
    return this.listing?.items.find((item) => item.key === key);
  }

  /** @param {Entry} entry */
  job(entry) {
    return entry.url ? this.jobs.get(this.key(entry)) : undefined;
  }

  /** Reads again what is on disk. */
  async refresh() {
    try {
      this.listing = await this.call("list", []);
    } catch (error) {
      this.listing = { items: [], elsewhere: [], usage: null, quota: null, persisted: false };
      this.unusable = asEngineError(error);
    }
    const elsewhere = this.listing?.elsewhere ?? [];
    // The other tab has ended: its being there is no trouble any more.
    for (const [key, job] of this.jobs) if (job.error?.code === "busy-elsewhere" && !elsewhere.includes(key)) this.jobs.delete(key);
    // Its progress is on the disk; a tab that was killed says nothing when it ends.
    clearTimeout(this.looking);
    if (elsewhere.length) this.looking = setTimeout(() => this.refresh(), LOOK);
    this.changed();
  }

  /**
   * Downloads what is missing of an entry, or checks what is there.
   * @param {Entry} entry
   * @param {"download" | "verify"} [method]
   * @returns {Promise<boolean>} whether all of it is there now; the job holds the error
   */
  async run(entry, method = "download") {
    const key = this.key(entry);
    if (this.jobs.get(key)?.running) return false;
    /** @type {Job} */
    const job = { entry, progress: null, rate: 0, samples: [], running: true, error: null };
    this.jobs.set(key, job);
    this.changed();
    try {
      if (method === "download") await this.room(entry);
      const args = method === "download" ? { kind: entry.kind, url: entry.url, name: entry.name } : key;
      await this.call(method, [args], (progress) => {
        job.progress = progress;
        measure(job, performance.now());
        this.changed();
      });
      this.jobs.delete(key);
      await this.refresh();
      if (method === "download") this.dispatchEvent(new CustomEvent("whole", { detail: entry }));
      return true;
    } catch (error) {
      job.running = false;
      job.error = asEngineError(error);
      // Paused is no failure, and what was removed has none to show.
      if (job.error.code === "stopped" || !this.jobs.has(key)) this.jobs.delete(key);
      await this.refresh();
      return false;
    }
  }

  /**
   * Asks the browser to keep what is stored, and whether there is room.
   * @param {Entry} entry
   */
  async room(entry) {
    // Where it is not granted, the browser may clear the files when the disk runs full. The answer is not waited
    // for: Firefox asks the visitor, who may not look.
    navigator.storage?.persist?.().catch(() => false);
    const { usage = 0, quota = Infinity } = (await navigator.storage?.estimate?.().catch(() => null)) ?? {};
    const item = this.item(entry);
    const missing = (item?.total ?? entry.bytes ?? 0) - (item?.loaded ?? 0);
    if (missing > quota - usage) {
      throw new EngineError("quota", `${entry.name} needs ${bytes(missing)} more, and the browser grants this site ${bytes(Math.max(0, quota - usage))}.`);
    }
  }

  /**
   * Keeps files that were made in the page.
   * @param {Entry} entry whose address nobody else answers for
   * @param {{path: string, bytes: Uint8Array}[]} files
   */
  async put(entry, files) {
    const { kind, url, name } = entry;
    await this.call("put", [{ kind, url, name }, files]);
    await this.refresh();
  }

  /** @param {Entry} entry */
  async pause(entry) {
    await this.call("stop", [this.key(entry)]);
  }

  /**
   * Ends a download and deletes what is there.
   * @param {Entry} entry
   */
  async remove(entry) {
    const key = this.key(entry);
    this.jobs.delete(key);
    try {
      await this.call("remove", [key]);
      const removed = { kind: entry.kind, url: normalise(entry.url ?? "", document.baseURI) };
      this.removed(removed);
      this.channel.postMessage({ removed });
    } catch (error) {
      this.jobs.set(key, { entry, progress: null, rate: 0, samples: [], running: false, error: asEngineError(error) });
    }
    await this.refresh();
  }

  /**
   * The stored files, whose lengths were checked.
   * @param {Entry} entry
   * @returns {Promise<File[]>}
   */
  open(entry) {
    return this.call("open", [this.key(entry)]);
  }

  /** @param {Removed} detail */
  removed(detail) {
    this.dispatchEvent(new CustomEvent("removed", { detail }));
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * Brings a job's rate up to date.
 * @param {Pick<Job, "progress" | "rate" | "samples">} job
 * @param {number} now milliseconds
 */
export function measure(job, now) {
  if (job.progress?.stage !== "download") {
    job.samples = [];
    job.rate = 0;
    return;
  }
  job.samples.push([now, job.progress.received]);
  while (job.samples.length > 2 && now - job.samples[0][0] > WINDOW) job.samples.shift();
  const [since, before] = job.samples[0];
  job.rate = now - since > 500 ? (1000 * Math.max(0, job.progress.received - before)) / (now - since) : 0;
}

/**
 * "412 MB of 2.39 GB, 18.2 MB a second, 2 minutes left".
 * @param {Pick<Job, "progress" | "rate">} job
 * @param {number} [expected] total bytes as far as known beforehand
 */
export function describe(job, expected) {
  const { progress, rate } = job;
  if (!progress || progress.stage === "list") return "Looking at what there is to fetch";
  const total = progress.total ?? expected ?? null;
  const amount = total !== null && total >= progress.loaded ? `${bytes(progress.loaded)} of ${progress.total === null ? "about " : ""}${bytes(total)}` : bytes(progress.loaded);
  if (progress.stage === "verify") return `Checking ${shown(progress.file)}: ${amount}`;
  const parts = [amount];
  if (rate > 0) {
    parts.push(`${bytes(rate)} a second`);
    if (total !== null && total > progress.loaded) parts.push(`${duration((total - progress.loaded) / rate)} left`);
  }
  return parts.join(", ");
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
