// Which bytes of a file are there, and which are to be fetched by whom. A range is [start, end).

/** @typedef {[number, number]} Range */

/**
 * Sorted ranges with one more, joined where they touch.
 * @param {Range[]} ranges sorted, apart from each other
 * @param {number} start
 * @param {number} end
 * @returns {Range[]}
 */
export function withRange(ranges, start, end) {
  if (end <= start) return ranges;
  /** @type {Range[]} */
  const before = [];
  /** @type {Range[]} */
  const after = [];
  for (const range of ranges) {
    if (range[1] < start) before.push(range);
    else if (range[0] > end) after.push(range);
    else [start, end] = [Math.min(start, range[0]), Math.max(end, range[1])];
  }
  return [...before, [start, end], ...after];
}

/**
 * What of the first `total` bytes is in none of the ranges.
 * @param {Range[]} ranges
 * @param {number} total
 * @returns {Range[]}
 */
export function missing(ranges, total) {
  /** @type {Range[]} */
  const out = [];
  let at = 0;
  for (const [start, end] of ranges) {
    if (start > at) out.push([at, Math.min(start, total)]);
    at = Math.max(at, end);
  }
  if (at < total) out.push([at, total]);
  return out;
}

/** Bytes in sorted ranges. */
export const covered = (/** @type {Range[]} */ ranges) => ranges.reduce((sum, [start, end]) => sum + end - start, 0);

/** How many bytes from the first on are there without a gap. */
export const prefix = (/** @type {Range[]} */ ranges) => (ranges[0]?.[0] === 0 ? ranges[0][1] : 0);

/**
 * Whether a value read from disk is a list of sorted ranges, apart from each other, within `total` bytes.
 * @param {any} value
 * @param {number} total
 * @returns {value is Range[]}
 */
export function areRanges(value, total) {
  let at = -1;
  return (
    Array.isArray(value) &&
    value.every((range) => {
      if (!Array.isArray(range) || range.length !== 2 || !range.every(Number.isSafeInteger)) return false;
      const [start, end] = range;
      const good = start > at && start >= 0 && end > start && end <= total;
      at = end;
      return good;
    })
  );
}

/** Hands out what is missing, part by part, from the front. */
export class Parts {
  /**
   * @param {Range[]} gaps
   * @param {number} size of a part, in bytes
   */
  constructor(gaps, size) {
    /** @type {Range[]} */
    this.gaps = gaps.map(([start, end]) => [start, end]);
    this.size = size;
  }

  /** @returns {Range | null} null when nothing is left to hand out */
  take() {
    const gap = this.gaps[0];
    if (!gap) return null;
    const start = gap[0];
    const end = Math.min(gap[1], start + this.size);
    if (end === gap[1]) this.gaps.shift();
    else gap[0] = end;
    return [start, end];
  }

  /**
   * Returns what of a part was not fetched.
   * @param {number} start
   * @param {number} end
   */
  giveBack(start, end) {
    this.gaps = withRange(this.gaps, start, end);
  }
}
