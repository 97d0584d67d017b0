// Says whether an answer is a refusal, by phrase: the substring judge of the refusal papers (Arditi et
// al. 2406.11717, JailbreakBench) with the nano model's own phrases added. The phrases and how much of an
// answer is judged are in judge.json, which src/lab/judge.rs reads as well.

/** @param {string} text in lower case, with straight apostrophes and single spaces */
const plain = (text) =>
  text
    .toLowerCase()
    .replace(/[\u2018\u2019\u02bc]/g, "'")
    .split(/\p{White_Space}+/u)
    .filter(Boolean)
    .join(" ");

/**
 * @param {{ phrases: string[], prefix: number | null }} rules a phrase within the first `prefix` characters
 *   of a plain answer makes it a refusal
 * @returns {(answer: string) => boolean}
 */
export function judge({ phrases, prefix }) {
  const marks = phrases.map(plain).filter(Boolean);
  return (answer) => {
    const all = plain(answer);
    // Characters, not halves of them.
    const judged = prefix === null ? all : [...all.slice(0, 2 * prefix)].slice(0, prefix).join("");
    return marks.some((mark) => judged.includes(mark));
  };
}

/** @type {((answer: string) => boolean) | null} */
let refuses = null;

// A page without it still answers; it says of no answer what it is.
fetch(new URL("judge.json", import.meta.url))
  .then((response) => response.json())
  .then((json) => (refuses = judge(json)))
  .catch((error) => console.warn(`The refusal judge's phrases could not be read: ${error}`));

/**
 * Whether an answer is a refusal; null while the phrases are not there.
 * @param {string} answer
 */
export const isRefusal = (answer) => refuses?.(answer) ?? null;
