// A small markdown parser that remembers where every visible character came from, so that the
// page can render markdown and tint the model's tokens in it at once. It covers what chat models
// write: paragraphs, headings, lists, quotes, fenced code, tables, rules, emphasis, code, links.
// Raw HTML stays text. It never throws, and takes time linear in the text whatever the text is: no
// pattern may try one stretch of it in more than one way, and nothing is searched twice in vain.

/**
 * Visible text that knows where in the source it is: see `placeOf`.
 * @typedef {object} Mapped
 * @property {string} text
 * @property {number} from where its first character is
 * @property {Int32Array | null} at where each character is; null where they follow one another
 */

/**
 * @typedef {{ type: "text", run: Mapped }
 *   | { type: "code", run: Mapped }
 *   | { type: "break" }
 *   | { type: "strong" | "em" | "del", children: Inline[] }
 *   | { type: "link", href: string, children: Inline[] }} Inline
 */

/**
 * `from`: where it begins in the source.
 * @typedef {{ from: number } & ({ type: "paragraph", children: Inline[] }
 *   | { type: "heading", level: number, children: Inline[] }
 *   | { type: "code", run: Mapped }
 *   | { type: "quote", blocks: Block[] }
 *   | { type: "list", ordered: boolean, start: number, items: Block[][] }
 *   | { type: "table", head: Inline[][], rows: Inline[][][] }
 *   | { type: "rule" })} Block
 */

const MAX_DEPTH = 8;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+|$)/;
const BULLET = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const QUOTE = /^ {0,3}> ?/;
/** What text must hold to be more than plain. */
const SPECIAL = /[\\\n`*_~[]|https?:\/\//;
const CELL_RULE = /^:?-+:?$/;

/** Characters of a link's text and of its address. */
const LONGEST_LABEL = 1000;
const LONGEST_ADDRESS = 2048;

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
const cut = (run, from, to) => ({ text: run.text.slice(from, to), from: placeOf(run, from) ?? run.from, at: run.at && run.at.subarray(from, to) });

/**
 * Runs one after the other, with `between` in the place of what was between them.
 * @param {Mapped[]} runs
 * @param {"\n" | ""} between
 * @returns {Mapped}
 */
function join(runs, between) {
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

/**
 * @param {string} source
 * @param {number} [from] where to begin: at the beginning of a line
 * @returns {Block[]}
 */
export function parseMarkdown(source, from = 0) {
  let offset = from;
  const lines = source
    .slice(from)
    .split("\n")
    .map((text) => {
      const line = { text, from: offset, at: null };
      offset += text.length + 1;
      return line;
    });
  return parseBlocks(lines, 0);
}

/**
 * @param {Mapped[]} lines
 * @param {number} depth
 * @returns {Block[]}
 */
function parseBlocks(lines, depth) {
  /** @type {Block[]} */
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (!line.text.trim()) {
      i++;
      continue;
    }
    const { from } = line;
    const fence = openFence(line.text);
    if (fence) {
      let end = i + 1;
      while (end < lines.length && !closesFence(lines[end].text, fence)) end++;
      blocks.push({ type: "code", from, run: join(lines.slice(i + 1, end), "\n") });
      i = end + 1;
      continue;
    }
    const heading = HEADING.exec(line.text);
    if (heading) {
      const body = cut(line, heading[0].length, Math.max(headingEnd(line.text), heading[0].length));
      blocks.push({ type: "heading", from, level: heading[1].length, children: parseInline(body, 0) });
      i++;
      continue;
    }
    if (isRule(line.text)) {
      blocks.push({ type: "rule", from });
      i++;
      continue;
    }
    if (QUOTE.test(line.text) && depth < MAX_DEPTH) {
      /** @type {Mapped[]} */
      const inner = [];
      while (i < lines.length && QUOTE.test(lines[i].text)) {
        inner.push(cut(lines[i], QUOTE.exec(lines[i].text)?.[0].length ?? 0));
        i++;
      }
      blocks.push({ type: "quote", from, blocks: parseBlocks(inner, depth + 1) });
      continue;
    }
    if (BULLET.test(line.text) && depth < MAX_DEPTH) {
      i = parseList(lines, i, depth, blocks);
      continue;
    }
    if (line.text.includes("|") && i + 1 < lines.length && isTableRule(lines[i + 1].text)) {
      const head = cells(line);
      let end = i + 2;
      /** @type {Inline[][][]} */
      const rows = [];
      while (end < lines.length && lines[end].text.includes("|")) rows.push(cells(lines[end++]));
      blocks.push({ type: "table", from, head, rows });
      i = end;
      continue;
    }
    const start = i++;
    while (i < lines.length && !startsBlock(lines[i].text)) i++;
    const body = lines.slice(start, i).map((part) => cut(part, part.text.length - part.text.trimStart().length));
    blocks.push({ type: "paragraph", from, children: parseInline(join(body, "\n"), 0) });
  }
  return blocks;
}

/**
 * @param {string} text
 * @returns {boolean}
 */
function startsBlock(text) {
  return !text.trim() || openFence(text) !== null || HEADING.test(text) || isRule(text) || QUOTE.test(text) || BULLET.test(text);
}

/**
 * The marks that open a fence, if the line does.
 * @param {string} text
 * @returns {string | null}
 */
function openFence(text) {
  const match = FENCE.exec(text);
  return match && !text.includes("`", match[0].length) ? match[1] : null;
}

/**
 * @param {string} text
 * @param {string} fence the marks that opened it
 */
function closesFence(text, fence) {
  const match = FENCE.exec(text);
  return match !== null && match[1].startsWith(fence) && !text.slice(match[0].length).trim();
}

/**
 * Where a heading's text ends: before closing marks that stand apart.
 * @param {string} text
 */
function headingEnd(text) {
  const end = text.trimEnd().length;
  let marks = end;
  while (marks > 0 && text[marks - 1] === "#") marks--;
  return marks < end && /\s/.test(text[marks - 1] ?? " ") ? text.slice(0, marks).trimEnd().length : end;
}

/**
 * Three or more of the same mark and nothing else.
 * @param {string} text
 */
function isRule(text) {
  const first = text.length - text.trimStart().length;
  const mark = text[first];
  if (first > 3 || !"-*_".includes(mark ?? "x")) return false;
  let marks = 0;
  for (const c of text) {
    if (c === mark) marks++;
    else if (!/\s/.test(c)) return false;
  }
  return marks >= 3;
}

/**
 * The line between a table's head and its rows, of two columns or more.
 * @param {string} text
 */
function isTableRule(text) {
  if (text.length - text.trimStart().length > 3) return false;
  const columns = text.trim().replace(/^\|/, "").replace(/\|$/, "").split("|");
  return columns.length > 1 && columns.every((column) => CELL_RULE.test(column.trim()));
}

/**
 * @param {Mapped[]} lines
 * @param {number} first
 * @param {number} depth
 * @param {Block[]} blocks
 * @returns {number} the line after the list
 */
function parseList(lines, first, depth, blocks) {
  const marker = /** @type {RegExpExecArray} */ (BULLET.exec(lines[first].text))[2];
  const ordered = /\d/.test(marker);
  /** @type {Block[][]} */
  const items = [];
  let i = first;
  while (i < lines.length) {
    const match = BULLET.exec(lines[i].text);
    if (!match || /\d/.test(match[2]) !== ordered || isRule(lines[i].text)) break;
    const width = match[1].length + match[2].length + Math.max(1, Math.min(match[3].length, 4));
    const body = [cut(lines[i], Math.min(width, lines[i].text.length))];
    i++;
    while (i < lines.length) {
      const { text } = lines[i];
      const indent = text.length - text.trimStart().length;
      if (!text.trim()) {
        const next = lines[i + 1]?.text ?? "";
        if (!next.trim() || next.length - next.trimStart().length < 2) break;
        body.push(lines[i]);
      } else if (indent >= 2) {
        body.push(cut(lines[i], Math.min(indent, width)));
      } else if (!startsBlock(text)) {
        body.push(lines[i]);
      } else {
        break;
      }
      i++;
    }
    items.push(parseBlocks(body, depth + 1));
    while (i < lines.length && !lines[i].text.trim() && BULLET.test(lines[i + 1]?.text ?? "")) i++;
  }
  blocks.push({ type: "list", from: lines[first].from, ordered, start: ordered ? Number.parseInt(marker, 10) : 1, items });
  return i;
}

/**
 * @param {Mapped} line
 * @returns {Inline[][]}
 */
function cells(line) {
  let from = 0;
  let to = line.text.trimEnd().length;
  while (from < to && /\s/.test(line.text[from])) from++;
  if (line.text[from] === "|") from++;
  if (to > from && line.text[to - 1] === "|") to--;
  /** @type {Inline[][]} */
  const out = [];
  let start = from;
  for (let i = from; i <= to; i++) {
    if (i === to || (line.text[i] === "|" && line.text[i - 1] !== "\\")) {
      const raw = line.text.slice(start, i);
      const lead = raw.length - raw.trimStart().length;
      out.push(parseInline(cut(line, start + lead, start + Math.max(lead, raw.trimEnd().length)), 0));
      start = i + 1;
    }
  }
  return out;
}

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
function parseInline(run, depth) {
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
