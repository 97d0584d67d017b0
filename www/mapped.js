// Text cut out of a source that remembers where every character came from.

/**
 * Visible text that knows where in the source it is: see `placeOf`.
 * @typedef {object} Mapped
 * @property {string} text
 * @property {number} from where its first character is
 * @property {Int32Array | null} at where each character is; null where they follow one another
 */

/**
 * Where a character of a run is in the source.
 * @param {Mapped} run
 * @param {number} index
 * @returns {number}
 */
export const placeOf = (run, index) => (run.at ? run.at[index] : run.from + index);

/**
 * @param {Mapped} run
 * @param {number} from
 * @param {number} [to]
 * @returns {Mapped}
 */
export const cut = (run, from, to) => ({ text: run.text.slice(from, to), from: placeOf(run, from) ?? run.from, at: run.at && run.at.subarray(from, to) });

/**
 * Runs one after the other, with `between` in the place of what was between them.
 * @param {Mapped[]} runs
 * @param {"\n" | ""} between
 * @returns {Mapped}
 */
export function join(runs, between) {
  if (!runs.length) return { text: "", from: 0, at: null };
  if (runs.length === 1) return runs[0];
  const text = runs.map((run) => run.text).join(between);
  const gap = between.length;
  const follows = (/** @type {Mapped} */ run, /** @type {number} */ index) =>
    !run.at && (index === 0 || run.from === runs[index - 1].from + runs[index - 1].text.length + gap);
  if (runs.every(follows)) return { text, from: runs[0].from, at: null };
  const at = new Int32Array(text.length);
  let length = 0;
  runs.forEach((run, index) => {
    // A line break stands behind the character before it, whatever the source has there.
    if (index > 0 && gap) {
      at[length] = length > 0 ? at[length - 1] + 1 : runs[0].from;
      length++;
    }
    for (let i = 0; i < run.text.length; i++) at[length++] = placeOf(run, i);
  });
  return { text, from: at[0] ?? 0, at };
}
