// Downloads one file into a target: several range requests at once, taken up again where they broke
// off. A server that does not keep to ranges sends the file in one piece instead.

import { HEAD } from "./content.js";
import { Connection, contentLength, contentRange, header, isEncoded, version } from "./connection.js";
import { StoreError } from "./errors.js";
import { Parts, covered, missing, withRange } from "./ranges.js";
import { Passing, PROGRESS, beforeNextTry } from "./retry.js";
import { shownUrl } from "./shown.js";

/** @import { Range } from "./ranges.js" */
/** @import { Net } from "./retry.js" */

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
 * @typedef {object} Particulars
 * @property {number | null} bytes that the file must have, where that is known
 * @property {number} [most] bytes that it may have
 * @property {(head: Uint8Array) => void} [check] refuses, by an error, a file that begins wrongly
 * @property {() => void} onBytes told of every piece
 * @property {boolean} [ranges] false to fetch it in one answer
 * @property {number} [connections]
 * @property {number} [part] bytes of one request
 * @property {number} [progress] bytes of progress that begin a new count of failures
 */

/** @typedef {Net & Particulars} Options */

/**
 * Requests for a first range without any answer before the file is asked for in one: a browser gives none
 * where the server compresses a range.
 */
const RANGED_TRIES = 2;

/** Bytes between two notes of what is on disk. */
const SAVE_BYTES = 8 << 20;

/** The server has another file than that of which a part is there. */
export class Changed extends StoreError {
  /** @param {string} url */
  constructor(url) {
    super("changed", `The file was changed while it was downloaded: ${shownUrl(url)}`);
  }
}
/** The server does not keep to ranges. */
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
    this.options = { connections: 4, part: 8 << 20, progress: PROGRESS, most: Number.MAX_SAFE_INTEGER, ...options };
    this.unsaved = 0;
    /** Lanes that run. */
    this.active = 0;
    /** Bytes of an answer that holds the whole file, which count only at its end. */
    this.received = 0;
    /** Requests without any answer. */
    this.unanswered = 0;
    /** Where the last such answer ended early. */
    this.ended = -1;
    this.parts = new Parts([], this.options.part);
    /** The file's first bytes, as they come; null when they were looked at. @type {number[] | null} */
    this.head = this.target.progress.done.length ? null : [];
  }

  /**
   * Fetches what is missing. What has come is saved, however it ends.
   * @throws {Changed} when the server's file is no longer the one that was begun
   */
  async run() {
    try {
      await this.attempt();
      this.look(true);
    } finally {
      if (this.unsaved) this.save();
    }
  }

  async attempt() {
    const { progress } = this.target;
    try {
      if (this.options.ranges === false) throw new NoRanges();
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
        const { connection, last } = opening ? { connection: opening, last: this.target.progress.total } : await this.ask(at, end, signal);
        const until = Math.min(end, last ?? end);
        opening = null;
        const take = (/** @type {Uint8Array} */ piece) => {
          this.put(at, piece);
          at += piece.length;
        };
        // Bytes after the last that was promised: what comes is not the file's own bytes, as of an answer
        // that was compressed on the way.
        if ((await connection.read(until - at, take, until === last)) && until === last) throw new NoRanges();
        if (at < until) throw new Passing(this.broken(at));
        // A server may send less at a time than it is asked for.
        this.parts.giveBack(at, end);
        failures = 0;
      } catch (error) {
        this.parts.giveBack(at, end);
        if (!(error instanceof Passing)) throw error;
        if (at - start >= this.options.progress) failures = 0;
        failures += 1;
        // The others go on: fewer at once is what the server wants.
        if (error.throttled && this.active > 1) break;
        await beforeNextTry(error, failures, this.options, signal);
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
        await beforeNextTry(error, failures, this.options);
      }
    }
  }

  /**
   * The first request: says how long the file is, and brings its first part.
   * @returns {Promise<Connection | null>} null for an empty file
   */
  async open() {
    if (this.unanswered >= RANGED_TRIES) throw new NoRanges();
    // This form of range needs no permission of a foreign server beyond that for reading, and its
    // length header can be read where Content-Range is hidden.
    const connection = await this.connect("bytes=0-", this.options.signal);
    const { response } = connection;
    if (response.status === 416 && /^\s*bytes\s+\*\/0\s*$/i.test(header(response, "Content-Range") ?? "")) {
      connection.close();
      this.learn(0, response);
      return null;
    }
    const range = this.promised(connection, 0);
    const total = range?.total ?? contentLength(response);
    if (total === null) {
      connection.close();
      throw new StoreError("bad-answer", `The server does not say how long the file is; let it expose the header Content-Range: ${shownUrl(this.url)}`);
    }
    // Less than all of it: the parts are asked for one by one.
    const partial = range && range.end < total;
    if (partial) connection.close();
    this.learn(total, response);
    return partial ? null : connection;
  }

  /**
   * A connection that brings bytes from `at` on, and the end of what it promises.
   * @param {number} at
   * @param {number} end
   * @param {AbortSignal} signal
   */
  async ask(at, end, signal) {
    const connection = await this.connect(`bytes=${at}-${end - 1}`, signal);
    const { response } = connection;
    const { progress } = this.target;
    const beyond = response.status === 416 ? /^\s*bytes\s+\*\/(\d{1,15})\s*$/i.exec(header(response, "Content-Range") ?? "") : null;
    if (beyond && Number(beyond[1]) !== progress.total) {
      connection.close();
      throw new Changed(this.url);
    }
    const etag = version(response);
    if (response.status === 206 && etag && progress.etag && etag !== progress.etag) {
      connection.close();
      throw new Changed(this.url);
    }
    const range = this.promised(connection, at);
    if ((range?.total ?? progress.total) !== progress.total) {
      connection.close();
      throw new Changed(this.url);
    }
    return { connection, last: range?.end ?? end };
  }

  /** The whole file in one answer, from its first byte on; nothing counts as there before its end. */
  async whole() {
    const connection = await this.connect(null, this.options.signal);
    const { response } = connection;
    if (response.status !== 200) {
      connection.close();
      throw new StoreError("bad-answer", `The whole file was asked for, and status ${response.status} came: ${shownUrl(this.url)}`);
    }
    const { bytes, most, onBytes } = this.options;
    // Of a compressed answer it is the compressed length, and a foreign server need not say which.
    const length = isEncoded(response) ? null : contentLength(response);
    this.target.clear();
    this.received = 0;
    this.head = [];
    try {
      const take = (/** @type {Uint8Array} */ piece) => {
        this.target.write(this.received, piece);
        this.note(this.received, piece);
        this.received += piece.length;
        onBytes();
      };
      const more = await connection.read(bytes ?? most, take, true);
      if (more) throw bytes === null ? this.tooLarge() : this.wrongLength("more");
      // The second answer that ends there in order was not cut: its length was that of something else.
      if (this.received < (bytes ?? length ?? 0) && (bytes !== null || this.received !== this.ended)) {
        this.ended = this.received;
        throw new Passing(this.broken(this.received));
      }
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
    const connection = new Connection(this.url, this.options, signal);
    try {
      await connection.open({ range });
    } catch (error) {
      if (error instanceof Passing && error.unanswered) this.unanswered += 1;
      throw error;
    }
    return connection;
  }

  /**
   * The range that an answer says it holds, null where it says none.
   * @param {Connection} connection
   * @param {number} at where it must begin
   * @throws {NoRanges} where it holds anything else than a range of the file's own bytes
   */
  promised(connection, at) {
    const { response } = connection;
    const text = header(response, "Content-Range");
    const range = text === null ? null : contentRange(text);
    const parts = /^\s*multipart\//i.test(header(response, "Content-Type") ?? "");
    if (response.status === 206 && !isEncoded(response) && !parts && (text === null || range?.start === at)) return range;
    connection.close();
    throw new NoRanges();
  }

  /**
   * @param {number} total
   * @param {Response} response
   */
  learn(total, response) {
    const { bytes, most } = this.options;
    if (bytes !== null && total !== bytes) throw this.wrongLength(String(total));
    if (total > most) throw this.tooLarge();
    const { progress } = this.target;
    progress.total = total;
    progress.etag = version(response);
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
    this.note(at, piece);
    this.options.onBytes();
  }

  /**
   * Keeps the file's first bytes.
   * @param {number} at
   * @param {Uint8Array} piece
   */
  note(at, piece) {
    const { head } = this;
    if (!head || at > head.length) return;
    head.push(...piece.subarray(head.length - at, HEAD - at));
    if (head.length >= HEAD) this.look(false);
  }

  /**
   * Looks at the first bytes, once.
   * @param {boolean} all whether these are all that come
   */
  look(all) {
    const { head } = this;
    if (!head || (all && head.length < Math.min(HEAD, this.target.progress.total ?? 0))) return;
    this.head = null;
    this.options.check?.(Uint8Array.from(head));
  }

  save() {
    this.unsaved = 0;
    this.target.save();
  }

  /** @param {number} at */
  broken(at) {
    return new StoreError("network", `The connection broke off at byte ${at} of ${this.target.progress.total ?? "an unknown number"}: ${shownUrl(this.url)}`);
  }

  /** @param {string} found */
  wrongLength(found) {
    return new StoreError("wrong-length", `The file should have ${this.options.bytes} bytes, and the server has ${found}: ${shownUrl(this.url)}`);
  }

  tooLarge() {
    return new StoreError("too-large", `The file is larger than any of its kind (${this.options.most} bytes at most): ${shownUrl(this.url)}`);
  }
}
