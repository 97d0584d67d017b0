// JSON as programs write it, Python's among them.

/** Words that Python writes where JSON has none. */
const WORDS = ["NaN", "-Infinity", "Infinity"];

/**
 * Reads JSON that may begin with a byte order mark and hold NaN and Infinity, which come as null.
 * @param {string} text
 * @returns {any}
 * @throws {SyntaxError} where it is no JSON
 */
export function looseJson(text) {
  const bare = text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
  try {
    return JSON.parse(bare);
  } catch (error) {
    const plain = withoutWords(bare);
    if (plain === bare) throw error;
    return JSON.parse(plain);
  }
}

/**
 * The text with null for those words, except within strings.
 * @param {string} text
 */
function withoutWords(text) {
  const out = [];
  let from = 0;
  let inside = false;
  for (let at = 0; at < text.length; at++) {
    const one = text[at];
    if (inside) {
      if (one === "\\") at += 1;
      else if (one === '"') inside = false;
    } else if (one === '"') inside = true;
    else if (one === "N" || one === "I" || one === "-") {
      const word = WORDS.find((known) => text.startsWith(known, at));
      if (!word) continue;
      out.push(text.slice(from, at), "null");
      from = at + word.length;
      at = from - 1;
    }
  }
  return from === 0 ? text : out.join("") + text.slice(from);
}
