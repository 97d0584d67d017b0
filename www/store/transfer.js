// Downloads one file into a target: several range requests at once, taken up again where they broke
// off. A server that ignores ranges sends the file in one piece instead.

import { StoreError } from "./errors.js";
import { Parts, covered, missing, withRange } from "./ranges.js";
import { Passing, TRIES, statusError, waitAfter } from "./retry.js";

/** @import { Range } from "./ranges.js" */

/**
 * What is on disk of a file. `etag` is the server's name for this version of it.
 * @typedef {object} Progress
 * @property {number | null} total bytes, null before the first answer
 * @property {string | null} etag
 * @property {Range[]} done
 */

/**
 * Where the bytes go.
 * @typedef {object} Target
 * @property {Progress} progress what is there, which the transfer changes
 * @property {(total: number) => void} reserve makes room
 * @property {(at: number, bytes: Uint8Array) => void} write
 * @property {() => void} save makes what was written last, then the progress
 * @property {() => void} clear forgets all of it
 */

/**
 * @typedef {object} Options
 * @property {typeof fetch} fetch
 * @property {AbortSignal} signal
 * @property {number | null} bytes that the file must have, where that is known
 * @property {(milliseconds: number, signal: AbortSignal) => Promise<void>} sleep ends early, with an error, by the signal
 * @property {(url: string) => Promise<StoreError | null>} diagnose why no answer comes, where that will not pass
 * @property {() => number} random from 0 to 1
 * @property {() => void} onBytes told of every piece
 * @property {number} [connections]
 * @property {number} [part] bytes of one request
 * @property {number} [progress] bytes of progress that begin a new count of failures
 * @property {number} [stall] milliseconds without a byte before a request is given up
 */

/** Bytes between two notes of what is on disk. */
const SAVE_BYTES = 8 << 20;

/** The file is another than before. */
class Changed extends Error {}
/** The server does not know ranges. */
class NoRanges extends Error {}

/** The download of one file. */
export class Transfer {
  /**
   * @param {string} url
   * @param {Target} target
   * @param {Options} options
   */
  constructor(url, target, options) {
    this.url = url;
    this.target = target;
    this.options = { connections: 4, part: 8 << 20, progress: 16 << 10, stall: 30_000, ...options };
    this.unsaved = 0;
    /** Lanes that run. */
    this.active = 0;
    /** Bytes of an answer that holds the whole file, which count only at its end. */
    this.received = 0;
    this.parts = new Parts([], this.options.part);
  }

  /** Fetches what is missing. What has come is saved, however it ends. */
  async run() {
    let fresh = 0;
    try {
      for (;;) {
        try {
          await this.attempt();
          return;
        } catch (error) {
          if (!(error instanceof Changed)) throw error;
          if (++fresh > 2) throw new StoreError("changed", `The file keeps changing while it is downloaded: ${this.url}`);
          this.target.clear();
        }
      }
    } finally {
      if (this.unsaved) this.save();
    }
  }

  async attempt() {
    const { progress } = this.target;
    try {
      const opening = progress.total === null ? await this.retried(() => this.open()) : null;
      if (progress.total === null) return;
      this.parts = new Parts(missing(progress.done, progress.total), this.options.part);
      await this.parallel(opening);
    } catch (error) {
      if (!(error instanceof NoRanges)) throw error;
      await this.retried(() => this.whole());
    }
  }

  /**
   * Runs the lanes; the first to fail ends the others.
   * @param {Connection | null} opening a connection that starts at the first byte
   */
  async parallel(opening) {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.options.signal, stop.signal]);
    const { connections, part } = this.options;
    const wanted = Math.max(1, Math.min(connections, Math.ceil(covered(this.parts.gaps) / part)));
    this.active = wanted;
    let first = /** @type {unknown} */ (null);
    const lanes = Array.from({ length: wanted }, (_, index) =>
      this.lane(signal, index === 0 ? opening : null).catch((error) => {
        first ??= error;
        stop.abort();
      }),
    );
    await Promise.all(lanes);
    if (first) throw first;
  }

  /**
   * Fetches one part after the other.
   * @param {AbortSignal} signal
   * @param {Connection | null} opening
   */
  async lane(signal, opening) {
    let failures = 0;
    for (;;) {
      const part = this.parts.take();
      if (!part) break;
      let [at] = part;
      const end = part[1];
      const start = at;
      try {
        const connection = opening ?? (await this.ask(at, end, signal));
        opening = null;
        await connection.read(end - at, (piece) => {
          this.put(at, piece);
          at += piece.length;
        });
        if (at < end) throw new Passing(this.broken(at));
        failures = 0;
      } catch (error) {
        this.parts.giveBack(at, end);
        if (!(error instanceof Passing)) throw error;
        if (at - start >= this.options.progress) failures = 0;
        failures += 1;
        // The others go on: fewer at once is what the server wants.
        if (error.throttled && this.active > 1) break;
        await this.pause(error, failures, signal);
      }
    }
    this.active -= 1;
  }

  /**
   * Tries again what fails in passing.
   * @template T
   * @param {() => Promise<T>} action
   * @returns {Promise<T>}
   */
  async retried(action) {
    for (let failures = 1; ; failures++) {
      try {
        return await action();
      } catch (error) {
        if (!(error instanceof Passing)) throw error;
        await this.pause(error, failures, this.options.signal);
      }
    }
  }

  /**
   * @param {Passing} error
   * @param {number} failures
   * @param {AbortSignal} signal
   */
  async pause(error, failures, signal) {
    if (failures >= TRIES) throw error.error;
    await this.options.sleep(waitAfter(failures, error.wait, this.options.random), signal);
  }

  /**
   * The first request: says how long the file is, and brings its first part.
   * @returns {Promise<Connection | null>} null for an empty file
   */
  async open() {
    // This form of range needs no permission of a foreign server beyond that for reading, and its
    // length header can be read where Content-Range is hidden.
    const connection = await this.connect("bytes=0-", this.options.signal);
    const { response } = connection;
    if (response.status === 416 && /\/0$/.test(header(response, "Content-Range") ?? "")) {
      connection.close();
      this.learn(0, response);
      return null;
    }
    if (response.status === 200) {
      connection.close();
      throw new NoRanges();
    }
    const range = this.checked(connection, 0);
    const total = range?.total ?? contentLength(response);
    if (total === null) {
      connection.close();
      throw new StoreError("bad-answer", `The server does not say how long the file is; let it expose the header Content-Range: ${this.url}`);
    }
    this.learn(total, response);
    return connection;
  }

  /**
   * A connection that brings bytes `at` to `end`.
   * @param {number} at
   * @param {number} end
   * @param {AbortSignal} signal
   */
  async ask(at, end, signal) {
    const connection = await this.connect(`bytes=${at}-${end - 1}`, signal);
    const { response } = connection;
    if (response.status === 200) {
      connection.close();
      throw new NoRanges();
    }
    const { progress } = this.target;
    const range = response.status === 416 ? { start: at, total: -1 } : this.checked(connection, at);
    const etag = header(response, "ETag");
    if ((range?.total ?? progress.total) !== progress.total || (etag && progress.etag && etag !== progress.etag)) {
      connection.close();
      throw new Changed();
    }
    return connection;
  }

  /** The whole file in one answer, from its first byte on; nothing counts as there before its end. */
  async whole() {
    const connection = await this.connect(null, this.options.signal);
    const { response } = connection;
    const { bytes, onBytes } = this.options;
    // Of a compressed answer it is the compressed length, and a foreign server need not say which.
    const length = header(response, "Content-Encoding") ? null : contentLength(response);
    this.target.clear();
    this.received = 0;
    try {
      await connection.read(Infinity, (piece) => {
        this.target.write(this.received, piece);
        this.received += piece.length;
        onBytes();
      });
      if (this.received < (bytes ?? length ?? 0)) throw new Passing(this.broken(this.received));
      this.learn(this.received, response);
      this.target.progress.done = withRange([], 0, this.received);
      this.save();
    } finally {
      this.received = 0;
    }
  }

  /**
   * @param {string | null} range
   * @param {AbortSignal} signal
   */
  async connect(range, signal) {
    signal.throwIfAborted();
    const connection = new Connection(this.url, this.options.stall, signal);
    try {
      await connection.open(this.options.fetch, range);
    } catch (error) {
      const lasting = error instanceof Passing && error.error.code === "network" ? await this.options.diagnose(this.url) : null;
      throw lasting ?? error;
    }
    return connection;
  }

  /**
   * The range that an answer says it holds, which must begin where it was asked to.
   * @param {Connection} connection
   * @param {number} at
   */
  checked(connection, at) {
    const text = header(connection.response, "Content-Range");
    if (text === null) return null;
    const range = contentRange(text);
    if (!range || range.start !== at) {
      connection.close();
      throw new StoreError("bad-answer", `Bytes from ${at} were asked for, "${text}" came: ${this.url}`);
    }
    return range;
  }

  /**
   * @param {number} total
   * @param {Response} response
   */
  learn(total, response) {
    const { bytes } = this.options;
    if (bytes !== null && total !== bytes) {
      throw new StoreError("wrong-length", `The file should have ${bytes} bytes, and the server has ${total}: ${this.url}`);
    }
    const { progress } = this.target;
    progress.total = total;
    progress.etag = header(response, "ETag");
    this.target.reserve(total);
    this.save();
  }

  /**
   * @param {number} at
   * @param {Uint8Array} piece
   */
  put(at, piece) {
    const { target } = this;
    target.write(at, piece);
    target.progress.done = withRange(target.progress.done, at, at + piece.length);
    this.unsaved += piece.length;
    if (this.unsaved >= SAVE_BYTES) this.save();
    this.options.onBytes();
  }

  save() {
    this.unsaved = 0;
    this.target.save();
  }

  /** @param {number} at */
  broken(at) {
    return new StoreError("network", `The connection broke off at byte ${at} of ${this.target.progress.total ?? "an unknown number"}: ${this.url}`);
  }
}

/** One request and the reading of its answer. */
class Connection {
  /**
   * @param {string} url
   * @param {number} stall
   * @param {AbortSignal} signal
   */
  constructor(url, stall, signal) {
    this.url = url;
    this.stall = stall;
    this.outer = signal;
    this.own = new AbortController();
    /** @type {Response} */
    this.response = Response.error();
    this.timer = /** @type {any} */ (0);
  }

  /** Counts the silence anew. */
  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.own.abort(), this.stall);
  }

  /**
   * @param {typeof globalThis.fetch} fetch
   * @param {string | null} range
   */
  async open(fetch, range) {
    this.heard();
    const signal = AbortSignal.any([this.outer, this.own.signal]);
    try {
      // The browser's own cache would hold a second copy.
      this.response = await fetch(this.url, { signal, cache: "no-store", headers: range ? { Range: range } : {} });
    } catch (error) {
      throw this.failed(error, 0);
    }
    const { status } = this.response;
    if (![200, 206, 416].includes(status)) {
      const error = statusError(status, this.url, header(this.response, "Retry-After"), Date.now());
      this.close();
      throw error;
    }
    if (status !== 416 && /^\s*text\/html/i.test(header(this.response, "Content-Type") ?? "")) {
      this.close();
      throw new StoreError("not-found", `A web page is there instead of the file: ${this.url}`);
    }
  }

  /**
   * Hands on at most `limit` bytes, then closes.
   * @param {number} limit
   * @param {(piece: Uint8Array) => void} take
   */
  async read(limit, take) {
    const reader = this.response.body?.getReader();
    let left = limit;
    try {
      while (reader && left > 0) {
        this.heard();
        let step;
        try {
          step = await reader.read();
        } catch (error) {
          throw this.failed(error, limit - left);
        }
        if (step.done) break;
        const piece = step.value.length > left ? step.value.subarray(0, left) : step.value;
        take(piece);
        left -= piece.length;
      }
    } finally {
      this.close();
    }
  }

  /**
   * @param {any} error
   * @param {number} at
   */
  failed(error, at) {
    const stalled = this.own.signal.aborted;
    this.close();
    if (this.outer.aborted) return this.outer.reason;
    const what = stalled ? `no byte came for ${Math.round(this.stall / 1000)} seconds` : (error?.message ?? error);
    return new Passing(new StoreError("network", `The connection failed after ${at} bytes of an answer (${what}): ${this.url}`));
  }

  /** Ends the request, read or not. */
  close() {
    clearTimeout(this.timer);
    this.own.abort();
  }
}

/**
 * @param {Response} response
 * @param {string} name
 */
const header = (response, name) => response.headers.get(name);

/** @param {Response} response */
function contentLength(response) {
  const text = header(response, "Content-Length")?.trim() ?? "";
  return /^\d+$/.test(text) ? Number(text) : null;
}

/**
 * "bytes 0-9/100"; the total is null for "*".
 * @param {string} text
 * @returns {{start: number, total: number | null} | null}
 */
export function contentRange(text) {
  const match = /^\s*bytes\s+(\d+)-(\d+)\/(\d+|\*)\s*$/.exec(text);
  if (!match) return null;
  const [start, last, total] = [Number(match[1]), Number(match[2]), match[3] === "*" ? null : Number(match[3])];
  return last < start || (total !== null && last >= total) ? null : { start, total };
}
