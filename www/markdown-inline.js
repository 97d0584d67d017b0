// Markdown within a paragraph: emphasis, code, links, line breaks. In linear time, as in markdown.js.

import { cut, join } from "./mapped.js";

/** @import { Mapped } from "./mapped.js" */

/**
 * @typedef {{ type: "text", run: Mapped }
 *   | { type: "code", run: Mapped }
 *   | { type: "break" }
 *   | { type: "strong" | "em" | "del", children: Inline[] }
 *   | { type: "link", href: string, children: Inline[] }} Inline
 */

/** Marks within marks. */
export const MAX_DEPTH = 8;

const ESCAPABLE = /[!-/:-@[-`{-~]/;
/** What text must hold to be more than plain. */
const SPECIAL = /[\\\n`*_~[]|https?:\/\//;

/** Characters of a link's text and of its address. */
const LONGEST_LABEL = 1000;
const LONGEST_ADDRESS = 2048;

/** A link's address if it is one that a click may open: of the web, and without a name or a password to log in with. */
export function safeHref(/** @type {string} */ raw) {
  if (raw.length > LONGEST_ADDRESS || !/^https?:\/\//i.test(raw)) return null;
  try {
    const url = new URL(raw);
    return url.username || url.password ? null : url.href;
  } catch {
    return null;
  }
}

/**
 * @param {Mapped} run
 * @param {number} depth
 * @returns {Inline[]}
 */
export function parseInline(run, depth) {
  /** @type {Inline[]} */
  const out = [];
  const { text } = run;
  if (!SPECIAL.test(text)) return text ? [{ type: "text", run }] : [];
  /** Closers known to be missing from some position on, so that hostile text stays cheap. */
  const missing = new Set();
  /** @type {Links | null} */
  let links = null;
  /** Stretches of plain text, each from one position to another. */
  let plain = /** @type {[number, number][]} */ ([]);
  const flush = () => {
    if (plain.length) out.push({ type: "text", run: join(plain.map(([from, to]) => cut(run, from, to)), "") });
    plain = [];
  };
  const keep = (/** @type {number} */ from, /** @type {number} */ to) => {
    const last = plain.at(-1);
    if (last?.[1] === from) last[1] = to;
    else plain.push([from, to]);
  };

  let i = 0;
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && ESCAPABLE.test(text[i + 1] ?? "")) {
      keep(i + 1, i + 2);
      i += 2;
    } else if (c === "\n") {
      flush();
      out.push({ type: "break" });
      i++;
    } else if (c === "`") {
      const ticks = /** @type {RegExpExecArray} */ (/^`+/.exec(text.slice(i, i + 64)))[0];
      const end = missing.has(ticks) ? -1 : closingTicks(text, i + ticks.length, ticks);
      if (end < 0) {
        missing.add(ticks);
        keep(i, i + ticks.length);
        i += ticks.length;
      } else {
        flush();
        out.push({ type: "code", run: cut(run, i + ticks.length, end) });
        i = end + ticks.length;
      }
    } else if ((c === "*" || c === "_" || c === "~") && depth < MAX_DEPTH) {
      const mark = text.startsWith(c + c, i) ? c + c : c;
      const end = mark === "~" || missing.has(mark) ? -1 : closingMark(text, i, mark);
      if (end < 0) {
        if (end === -1) missing.add(mark);
        keep(i, i + mark.length);
        i += mark.length;
      } else {
        flush();
        const children = parseInline(cut(run, i + mark.length, end), depth + 1);
        out.push({ type: c === "~" ? "del" : mark.length === 2 ? "strong" : "em", children });
        i = end + mark.length;
      }
    } else if ((c === "[" || (c === "!" && text[i + 1] === "[")) && depth < MAX_DEPTH) {
      const open = c === "!" ? i + 1 : i;
      links ??= new Links(text);
      const link = links.at(open);
      if (!link) {
        keep(i, i + 1);
        i++;
      } else {
        flush();
        const children = parseInline(cut(run, open + 1, link.close), depth + 1);
        const href = safeHref(link.target);
        if (href) out.push({ type: "link", href, children });
        else out.push(...children);
        i = link.end;
      }
    } else if (c === "h" && (i === 0 || !/\w/.test(text[i - 1])) && /^https?:\/\//.test(text.slice(i, i + 8))) {
      const address = bareAddress(text.slice(i, i + LONGEST_ADDRESS));
      const href = safeHref(address);
      const end = i + Math.max(address.length, 1);
      if (href) {
        flush();
        out.push({ type: "link", href, children: [{ type: "text", run: cut(run, i, end) }] });
      } else {
        keep(i, end);
      }
      i = end;
    } else {
      keep(i, i + 1);
      i++;
    }
  }
  flush();
  return out;
}

/**
 * @param {string} text
 * @param {number} from
 * @param {string} ticks
 */
function closingTicks(text, from, ticks) {
  for (let at = text.indexOf(ticks, from); at >= 0; ) {
    let end = at;
    while (text[end] === "`") end++;
    if (end - at === ticks.length) return at;
    at = text.indexOf(ticks, end);
  }
  return -1;
}

/**
 * Where emphasis that opens at `open` closes; -1: nowhere from here on; -2: it does not open here.
 * @param {string} text
 * @param {number} open
 * @param {string} mark
 */
function closingMark(text, open, mark) {
  const word = /[\p{L}\p{N}]/u;
  const after = text[open + mark.length] ?? " ";
  if (/\s/.test(after) || (mark[0] === "_" && open > 0 && word.test(text[open - 1]))) return -2;
  for (let at = text.indexOf(mark, open + mark.length + 1); at >= 0; at = text.indexOf(mark, at + 1)) {
    if (mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark)) continue;
    if (/[\s\\]/.test(text[at - 1])) continue;
    if (mark[0] === "_" && word.test(text[at + mark.length] ?? " ")) continue;
    return at;
  }
  return -1;
}

/**
 * An address as it stands in running text, without the punctuation after it.
 * @param {string} text begins with the address
 */
function bareAddress(text) {
  let end = text.search(/[\s<>"`]/);
  if (end < 0) end = text.length;
  while (end > 0 && ".,;:!?)]*_'".includes(text[end - 1])) end--;
  return text.slice(0, end);
}

/** Finds links, each place of the text looked at once. */
class Links {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    /** The first "](" at or after the last place that was asked about; -1 if there is none. */
    this.close = text.indexOf("](");
    /** For each "(" of a "](", the ")" that ends its address. */
    this.ends = this.close < 0 ? null : addressEnds(text);
  }

  /**
   * The link whose text opens here. Places are asked about in order.
   * @param {number} open the position of "["
   * @returns {{close: number, target: string, end: number} | null}
   */
  at(open) {
    const { text, ends } = this;
    if (this.close >= 0 && this.close < open) this.close = text.indexOf("](", open);
    const { close } = this;
    if (close < 0 || close - open > LONGEST_LABEL || !ends) return null;
    const start = close + 2;
    const plain = ends.get(close + 1);
    if (plain !== undefined) return { close, target: text.slice(start, plain), end: plain + 1 };
    const match = TARGET.exec(text.slice(start, start + LONGEST_ADDRESS));
    return match && { close, target: match[1] ?? match[2], end: start + match[0].length };
  }
}

/** An address in angle brackets, or one with a title after it. */
const TARGET = /^(?:<([^\s<>]*)>|([^\s<>()"]+)\s{1,9}"[^"\n]{0,300}")\s{0,9}\)/;

/**
 * Where the addresses of links end: the brackets in one are balanced, and there is no space in it.
 * @param {string} text
 * @returns {Map<number, number>} from the position of each "(" to that of its ")"
 */
function addressEnds(text) {
  /** @type {Map<number, number>} */
  const ends = new Map();
  /** @type {number[]} */
  let open = [];
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    // "(", ")", and what an address cannot hold: white space, "<" and ">".
    if (c === 40) open.push(i);
    else if (c === 41) {
      const start = open.pop();
      if (start !== undefined && text[start - 1] === "]" && i - start <= LONGEST_ADDRESS) ends.set(start, i);
    } else if (open.length && (c === 60 || c === 62 || c <= 32 || c === 0xa0)) open = [];
  }
  return ends;
}
