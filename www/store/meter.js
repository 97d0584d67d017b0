// Adds up the files of a download or check, and tells of it at most five times a second.

/** @import { Plan } from "./sources.js" */
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

/** The sum of what is there. */
export class Meter {
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
