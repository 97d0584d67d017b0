// Which failures of a download pass by themselves, and how long to wait for that.

import { StoreError } from "./errors.js";

/** Failures in a row before the last one is final. */
export const TRIES = 5;

/** The wait after the first failure, at most, in milliseconds; twice as long after each further one. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A server that asks for more patience than this gets none. */
const LONGEST_RETRY_AFTER = 120_000;

const PASSING = [408, 425, 429, 500, 502, 503, 504];

/** A request that failed in a way that another may not. */
export class Passing extends Error {
  /**
   * @param {StoreError} error what to report when it does not pass
   * @param {number | null} [wait] milliseconds that the server asks for
   * @param {boolean} [throttled] the server wants fewer requests
   */
  constructor(error, wait = null, throttled = false) {
    super(error.message);
    this.error = error;
    this.wait = wait;
    this.throttled = throttled;
  }
}

/**
 * The error of an answer that is not what was asked for.
 * @param {number} status
 * @param {string} url
 * @param {string | null} retryAfter the header
 * @param {number} now milliseconds since 1970
 * @returns {StoreError | Passing}
 */
export function statusError(status, url, retryAfter, now) {
  const error = new StoreError(...describe(status, url));
  if (!PASSING.includes(status)) return error;
  const wait = parseRetryAfter(retryAfter, now);
  if (wait !== null && wait > LONGEST_RETRY_AFTER) {
    return new StoreError("throttled", `The server asks to wait ${Math.ceil(wait / 60_000)} minutes before the next try: ${url}`);
  }
  return new Passing(error, wait, status === 429 || status === 503);
}

/**
 * @param {number} status
 * @param {string} url
 * @returns {[string, string]} code and message
 */
function describe(status, url) {
  if (status === 404 || status === 410) return ["not-found", `There is no such file (status ${status}): ${url}`];
  if (status === 401 || status === 403) return ["forbidden", `The server does not hand this file out (status ${status}): ${url}`];
  if (status === 429) return ["throttled", `The server has had too many requests (status 429): ${url}`];
  if (status >= 500) return ["server", `The server is in trouble (status ${status}): ${url}`];
  return ["bad-answer", `The server answered with status ${status}: ${url}`];
}

/**
 * Milliseconds of a Retry-After header, which holds seconds or a date.
 * @param {string | null} value
 * @param {number} now
 * @returns {number | null}
 */
export function parseRetryAfter(value, now) {
  const text = value?.trim();
  if (!text) return null;
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.max(0, date - now);
}

/**
 * How long to wait after `failures` failures in a row: drawn at random up to a limit that doubles,
 * so that many clients do not come back at once.
 * @param {number} failures from 1
 * @param {number | null} asked by the server
 * @param {() => number} random
 */
export function waitAfter(failures, asked, random) {
  const limit = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1));
  return (asked ?? 0) + limit * (asked === null ? random() : random() / 4);
}
