// What to do when the engine dies: when to start it again unasked, and where the conversation broke off.

/** @import { Turn } from "./conversation.js" */

/** Causes that are outside the model and pass: a new engine may well live. */
const SAFE = ["device-lost", "crashed"];

/** A second death within so many milliseconds waits for the visitor. */
const PEACE = 60_000;

/** A browser that starts its graphics process anew has no adapter for a moment. */
const STARTING = ["no-adapter", "device-lost"];
const STARTS = 6;
const BETWEEN = 1000;

/** What the last engine died in the middle of. */
export class Recovery {
  constructor() {
    /** @type {{turn: Turn | null, rest: string[] | null, length: number} | null} */
    this.interrupted = null;
    this.last = -Infinity;
  }

  /**
   * @param {string} code of the error
   * @param {Turn | null} turn in whose middle it died
   * @param {string[] | null} rest messages still to be answered, null when nothing is to be repeated
   * @param {number} length of the script they belong to
   * @param {number} now milliseconds
   * @returns {boolean} whether to start a new engine at once
   */
  note(code, turn, rest, length, now) {
    this.interrupted = { turn, rest, length };
    const safe = SAFE.includes(code) && now - this.last > PEACE;
    if (safe) this.last = now;
    return safe;
  }

  /**
   * Starts a new engine, with patience for the browser.
   * @template T
   * @param {() => Promise<T>} start
   * @param {(milliseconds: number) => Promise<unknown>} [sleep]
   * @returns {Promise<T>}
   */
  async restart(start, sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))) {
    for (let tries = 1; ; tries++) {
      try {
        return await start();
      } catch (error) {
        if (!STARTING.includes(/** @type {any} */ (error)?.code) || tries >= STARTS) throw error;
        await sleep(BETWEEN);
      }
    }
  }

  take() {
    const { interrupted } = this;
    this.interrupted = null;
    return interrupted;
  }
}
