// Which failures of a download pass by themselves, and how long to wait for that: the engine has the same rules
// (src/checkpoint/http), tested on the same cases.

import { StoreError } from "./errors.js";
import { shownUrl } from "./shown.js";

/** Failures in a row before the last one is final. */
export const TRIES = 5;

/** Bytes of progress that begin a new count of failures. */
export const PROGRESS = 16 << 10;

/** The wait after the first failure, at most, in milliseconds; twice as long after each further one. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A server that asks for more patience than this gets none. */
const LONGEST_RETRY_AFTER = 120_000;

const PASSING = [408, 425, 429, 500, 502, 503, 504];

/** Failures in a row without any answer after which the reason is looked for. */
const ASK_WHY = 3;

/**
 * What requests need of the world.
 * @typedef {object} Net
 * @property {typeof fetch} fetch
 * @property {AbortSignal} signal
 * @property {(milliseconds: number, signal: AbortSignal) => Promise<void>} sleep ends early, with an error, by the signal
 * @property {() => number} random from 0 to 1
 * @property {(url: string) => Promise<StoreError | null>} diagnose why no answer comes, where that will not pass
 * @property {Set<string>} reached origins that have answered, and so allow reading
 * @property {number} [stall] milliseconds without a byte before a request is given up
 * @property {number} [longest] milliseconds that the reading of a list may take in all
 */

/** A request that failed in a way that another may not. */
export class Passing extends Error {
  /**
   * @param {StoreError} error what to report when it does not pass
   * @param {{wait?: number | null, throttled?: boolean, unanswered?: string | null}} [more] milliseconds
   *   that the server asks for; whether it wants fewer requests; the address that gave no answer at all
   */
  constructor(error, { wait = null, throttled = false, unanswered = null } = {}) {
    super(error.message);
    this.error = error;
    this.wait = wait;
    this.throttled = throttled;
    this.unanswered = unanswered;
  }
}

/**
 * Waits for the next try, or throws what is final.
 * @param {unknown} error of the last try
 * @param {number} failures in a row, from 1
 * @param {Net} net
 * @param {AbortSignal} [signal]
 */
export async function beforeNextTry(error, failures, net, signal = net.signal) {
  if (!(error instanceof Passing)) throw error;
  // A browser says the same of a broken connection and of a server that forbids reading. One that was
  // read before does not forbid it.
  if (error.unanswered && failures >= ASK_WHY && !net.reached.has(new URL(error.unanswered).origin)) {
    const lasting = await net.diagnose(error.unanswered);
    if (lasting) throw lasting;
  }
  if (failures >= TRIES) throw error.error;
  await net.sleep(waitAfter(failures, error.wait, net.random), signal);
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
    return new StoreError("throttled", `The server asks to wait ${Math.ceil(wait / 60_000)} minutes before the next try: ${shownUrl(url)}`);
  }
  return new Passing(error, { wait, throttled: status === 429 || status === 503 });
}

/**
 * @param {number} status
 * @param {string} address
 * @returns {[string, string]} code and message
 */
function describe(status, address) {
  const url = shownUrl(address);
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
  if (/^\d{1,15}$/.test(text)) return Number(text) * 1000;
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
