// How names and addresses that come from files, servers and links are shown: never raw, never long.

/** Characters of a name that are shown. */
const NAME = 80;
/** Characters of an address that are shown. */
const ADDRESS = 200;

/**
 * What has no picture of its own or moves the text around it: controls, line and paragraph separators,
 * the marks of writing direction, characters of no width, lone halves of pairs, private use.
 */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\u2028\u2029\u115f\u1160\u3164\uffa0]/gu;

/**
 * A name as it is shown: hidden characters by their numbers, the middle of a long one left out.
 * @param {unknown} name
 * @param {number} [most] characters
 * @returns {string}
 */
export function shown(name, most = NAME) {
  const text = typeof name === "string" ? name : String(name);
  // Cut first: what is not shown is not worked on.
  const half = Math.ceil(most / 2);
  const cut = text.length > most ? `${text.slice(0, half)}\u2026${text.slice(text.length - (most - half - 1))}` : text;
  return cut.replace(HIDDEN, (one) => `\\u{${one.codePointAt(0)?.toString(16)}}`);
}

/**
 * An address as it is shown: without what follows "?", where secrets stand.
 * @param {string} url
 * @returns {string}
 */
export function shownUrl(url) {
  const [bare] = url.split(/[?#]/, 1);
  return shown(bare.length < url.length ? `${bare}?\u2026` : bare, ADDRESS);
}
