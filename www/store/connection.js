// One request and the reading of its answer, with a limit to its silence.

import { StoreError } from "./errors.js";
import { Passing, statusError } from "./retry.js";
import { shownUrl } from "./shown.js";

/** @import { Net } from "./retry.js" */

/** Milliseconds without a byte before a request is given up. */
export const STALL = 30_000;

/** One request. */
export class Connection {
  /**
   * @param {string} url
   * @param {Net} net
   * @param {AbortSignal} [signal] the net's own if not given
   */
  constructor(url, net, signal = net.signal) {
    this.url = url;
    this.net = net;
    this.stall = net.stall ?? STALL;
    this.outer = signal;
    this.own = new AbortController();
    /** @type {Response} */
    this.response = Response.error();
    /**
     * The body, once it is being read.
     * @type {ReadableStreamDefaultReader<Uint8Array> | undefined}
     */
    this.reader = undefined;
    /**
     * What was read of it and not used.
     * @type {Uint8Array | null}
     */
    this.ahead = null;
    /** Whether the answer calls itself a web page. */
    this.isPage = false;
    this.timer = /** @type {any} */ (0);
  }

  /** Counts the silence anew. */
  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.own.abort(), this.stall);
  }

  /**
   * Asks, and reads the head of the answer: 200, 206 or 416, and no web page, which only a body tells.
   * @param {{range?: string | null, method?: "GET" | "HEAD"}} [how]
   */
  async open({ range = null, method = "GET" } = {}) {
    this.heard();
    const signal = AbortSignal.any([this.outer, this.own.signal]);
    try {
      // The browser's own cache would hold a second copy.
      this.response = await this.net.fetch(this.url, { method, signal, cache: "no-store", headers: range ? { Range: range } : {} });
    } catch (error) {
      throw this.failed(error, null);
    }
    this.net.reached.add(new URL(this.url).origin);
    // Where it was sent on to.
    if (this.response.url) this.net.reached.add(new URL(this.response.url).origin);
    const { status } = this.response;
    if (![200, 206, 416].includes(status)) {
      const error = statusError(status, this.url, header(this.response, "Retry-After"), Date.now());
      this.close();
      throw error;
    }
    this.isPage = status !== 416 && isPage(header(this.response, "Content-Type"));
    // Hosts of single-page sites answer with their start page where a file is missing; others call everything a page.
    if (this.isPage && method !== "HEAD" && (range === null || range.startsWith("bytes=0-"))) {
      this.ahead = await this.piece(0);
      if (this.ahead !== null && !beginsAsPage(this.ahead)) return;
      this.close();
      throw new StoreError("not-found", `A web page is there instead of the file: ${shownUrl(this.url)}`);
    }
  }

  /**
   * The next piece of the body, null at its end.
   * @param {number} at bytes that came before
   * @returns {Promise<Uint8Array | null>}
   */
  async piece(at) {
    const { ahead } = this;
    this.ahead = null;
    if (ahead) return ahead;
    this.reader ??= this.response.body?.getReader();
    this.heard();
    try {
      const step = await this.reader?.read();
      return step?.value ?? null;
    } catch (error) {
      throw this.failed(error, at);
    }
  }

  /**
   * Hands on at most `limit` bytes, then closes.
   * @param {number} limit
   * @param {(piece: Uint8Array) => void} take
   * @param {boolean} whole whether to look if the answer ends there
   * @returns {Promise<boolean>} whether the answer has more, as far as was looked
   */
  async read(limit, take, whole) {
    let left = limit;
    try {
      while (left > 0 || whole) {
        const read = await this.piece(limit - left);
        if (read === null) return false;
        const piece = read.length > left ? read.subarray(0, left) : read;
        if (piece.length) take(piece);
        left -= piece.length;
        if (piece.length < read.length) return true;
      }
      return false;
    } finally {
      this.close();
    }
  }

  /**
   * @param {any} error
   * @param {number | null} at bytes that came, null where there was no answer at all
   */
  failed(error, at) {
    const stalled = this.own.signal.aborted;
    this.close();
    if (this.outer.aborted) return this.outer.reason;
    const what = stalled ? `no byte came for ${Math.round(this.stall / 1000)} seconds` : (error?.message ?? error);
    if (at === null) return new Passing(new StoreError("unreachable", `No answer came (${what}): ${shownUrl(this.url)}`), { unanswered: this.url });
    return new Passing(new StoreError("network", `The connection failed after ${at} bytes of an answer (${what}): ${shownUrl(this.url)}`));
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
export const header = (response, name) => response.headers.get(name);

/**
 * The server's name for this version of a file: its ETag, or the date of its last change where it has none.
 * @param {Response} response
 */
export const version = (response) => header(response, "ETag") ?? header(response, "Last-Modified");

/**
 * The length of what was sent, which is not that of the file where it is compressed.
 * @param {Response} response
 */
export function contentLength(response) {
  const text = header(response, "Content-Length")?.trim() ?? "";
  return /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/**
 * Whether the answer says that its bytes are not the file's own. A foreign server need not show it.
 * @param {Response} response
 */
export const isEncoded = (response) => !["", "identity"].includes(header(response, "Content-Encoding")?.trim().toLowerCase() ?? "");

/**
 * Whether a Content-Type is that of a web page.
 * @param {string | null} kind
 */
export const isPage = (kind) => /^\s*(text\/html|application\/xhtml)/i.test(kind ?? "");

/**
 * Whether the first bytes are those of a web page.
 * @param {Uint8Array} bytes
 */
export const beginsAsPage = (bytes) => /^\s*(<|$)/.test(new TextDecoder().decode(bytes.subarray(0, 256)));

/**
 * "bytes 0-9/100"; the total is null for "*".
 * @param {string} text
 * @returns {{start: number, end: number, total: number | null} | null}
 */
export function contentRange(text) {
  const match = /^\s*bytes\s+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)\s*$/i.exec(text);
  if (!match) return null;
  const [start, last, total] = [Number(match[1]), Number(match[2]), match[3] === "*" ? null : Number(match[3])];
  return last < start || (total !== null && last >= total) ? null : { start, end: last + 1, total };
}
