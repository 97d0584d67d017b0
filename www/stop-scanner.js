// Texts that end an answer, looked for in what comes piece by piece: the result does not depend on the pieces.

/** Gives out text up to a stop, and holds back what may become one. */
export class StopScanner {
  /** @param {string[]} stops none of them empty */
  constructor(stops) {
    /** @private */
    this.stops = stops;
    /** @private */
    this.held = "";
    /** Whether a stop has come. */
    this.found = false;
    /** Characters that came. */
    this.taken = 0;
    /** Characters that were given out. */
    this.given = 0;
  }

  /**
   * Of several stops the one counts that is complete first, of those the longest.
   * @param {string} text what comes next
   * @returns {string} what is certain now to come before any stop
   */
  push(text) {
    const all = this.held + text;
    this.taken += text.length;
    let [from, end] = [all.length, Infinity];
    for (const stop of this.stops) {
      const at = all.indexOf(stop);
      if (at < 0) continue;
      const after = at + stop.length;
      if (after < end || (after === end && at < from)) [from, end] = [at, after];
    }
    this.found = end !== Infinity;
    const keep = this.found ? 0 : this.beginning(all);
    this.held = all.slice(all.length - keep);
    return this.give(all.slice(0, this.found ? from : all.length - keep));
  }

  /** @returns {string} what was held back, since nothing more comes */
  finish() {
    const rest = this.held;
    this.held = "";
    return this.give(rest);
  }

  /**
   * @param {string} text
   * @private
   */
  give(text) {
    this.given += text.length;
    return text;
  }

  /**
   * Characters at the end of a text with which a stop may begin.
   * @param {string} text
   * @returns {number}
   * @private
   */
  beginning(text) {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const tail = text.slice(text.length - length);
      if (this.stops.some((stop) => stop.startsWith(tail) && stop !== tail)) return length;
    }
    return 0;
  }
}
