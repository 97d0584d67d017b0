// A small markdown parser that remembers where every visible character came from, so that the
// page can render markdown and tint the model's tokens in it at once. It covers what chat models
// write: paragraphs, headings, lists, quotes, fenced code, tables, rules, emphasis, code, links.
// Raw HTML stays text. It never throws and takes time about linear in the text.

/**
 * Visible text with, for each character, its offset in the source.
 * @typedef {object} Mapped
 * @property {string} text
 * @property {number[]} at
 */

/**
 * @typedef {{ type: "text", run: Mapped }
 *   | { type: "code", run: Mapped }
 *   | { type: "break" }
 *   | { type: "strong" | "em" | "del", children: Inline[] }
 *   | { type: "link", href: string, children: Inline[] }} Inline
 */

/**
 * @typedef {{ type: "paragraph", children: Inline[] }
 *   | { type: "heading", level: number, children: Inline[] }
 *   | { type: "code", run: Mapped }
 *   | { type: "quote", blocks: Block[] }
 *   | { type: "list", ordered: boolean, start: number, items: Block[][] }
 *   | { type: "table", head: Inline[][], rows: Inline[][][] }
 *   | { type: "rule" }} Block
 */

const MAX_DEPTH = 8;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const FENCE = /^ {0,3}(`{3,}|~{3,})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+|$)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const BULLET = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const QUOTE = /^ {0,3}> ?/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;

/**
 * @param {Mapped} run
 * @param {number} from
 * @param {number} [to]
 * @returns {Mapped}
 */
const cut = (run, from, to) => ({ text: run.text.slice(from, to), at: run.at.slice(from, to) });

/**
 * @param {Mapped[]} lines
 * @returns {Mapped}
 */
function join(lines) {
  let text = "";
  /** @type {number[]} */
  const at = [];
  lines.forEach((line, index) => {
    if (index > 0) {
      text += "\n";
      at.push((at.at(-1) ?? 0) + 1);
    }
    text += line.text;
    for (const offset of line.at) at.push(offset);
  });
  return { text, at };
}

/**
 * @param {string} source
 * @returns {Block[]}
 */
export function parseMarkdown(source) {
  let offset = 0;
  const lines = source.split("\n").map((text) => {
    /** @type {number[]} */
    const at = new Array(text.length);
    for (let i = 0; i < text.length; i++) at[i] = offset + i;
    offset += text.length + 1;
    return { text, at };
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
    const fence = FENCE.exec(line.text);
    if (fence) {
      const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
      let end = i + 1;
      while (end < lines.length && !close.test(lines[end].text)) end++;
      blocks.push({ type: "code", run: join(lines.slice(i + 1, end)) });
      i = end + 1;
      continue;
    }
    const heading = HEADING.exec(line.text);
    if (heading) {
      const trimmed = line.text.replace(/\s+#*\s*$/, "").length;
      const body = cut(line, heading[0].length, Math.max(trimmed, heading[0].length));
      blocks.push({ type: "heading", level: heading[1].length, children: parseInline(body, 0) });
      i++;
      continue;
    }
    if (RULE.test(line.text)) {
      blocks.push({ type: "rule" });
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
      blocks.push({ type: "quote", blocks: parseBlocks(inner, depth + 1) });
      continue;
    }
    if (BULLET.test(line.text) && depth < MAX_DEPTH) {
      i = parseList(lines, i, depth, blocks);
      continue;
    }
    if (line.text.includes("|") && i + 1 < lines.length && TABLE_RULE.test(lines[i + 1].text)) {
      const head = cells(line);
      let end = i + 2;
      /** @type {Inline[][][]} */
      const rows = [];
      while (end < lines.length && lines[end].text.includes("|")) rows.push(cells(lines[end++]));
      blocks.push({ type: "table", head, rows });
      i = end;
      continue;
    }
    const start = i++;
    while (i < lines.length && !startsBlock(lines[i].text)) i++;
    const body = lines.slice(start, i).map((part) => cut(part, part.text.length - part.text.trimStart().length));
    blocks.push({ type: "paragraph", children: parseInline(join(body), 0) });
  }
  return blocks;
}

/**
 * @param {string} text
 * @returns {boolean}
 */
function startsBlock(text) {
  return !text.trim() || FENCE.test(text) || HEADING.test(text) || RULE.test(text) || QUOTE.test(text) || BULLET.test(text);
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
    if (!match || /\d/.test(match[2]) !== ordered || RULE.test(lines[i].text)) break;
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
  blocks.push({ type: "list", ordered, start: ordered ? Number.parseInt(marker, 10) : 1, items });
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

/** A link's address if it is one that a click may open. */
export function safeHref(/** @type {string} */ raw) {
  try {
    const url = new URL(raw);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
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
  /** Closers known to be missing from some position on, so that hostile text stays cheap. */
  const missing = new Set();
  let plain = { text: "", at: /** @type {number[]} */ ([]) };
  const flush = () => {
    if (plain.text) out.push({ type: "text", run: plain });
    plain = { text: "", at: [] };
  };
  const keep = (/** @type {number} */ from, /** @type {number} */ to) => {
    plain.text += text.slice(from, to);
    for (let j = from; j < to; j++) plain.at.push(run.at[j]);
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
    } else if ((c === "[" || (c === "!" && text[i + 1] === "[")) && depth < MAX_DEPTH && !missing.has("](")) {
      const open = c === "!" ? i + 1 : i;
      const link = readLink(text, open);
      if (!link) {
        if (text.indexOf("](", open) < 0) missing.add("](");
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
      const address = /** @type {RegExpExecArray} */ (/^[^\s<>"`]*/.exec(text.slice(i, i + 2048)))[0].replace(/[.,;:!?)\]*_']+$/, "");
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
 * @param {string} text
 * @param {number} open the position of "["
 * @returns {{close: number, target: string, end: number} | null}
 */
function readLink(text, open) {
  const close = text.indexOf("](", open);
  if (close < 0 || close - open > 1000) return null;
  const match = /^\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"\n]*")?\s*\)/.exec(text.slice(close + 2, close + 2050));
  return match && { close, target: match[1], end: close + 2 + match[0].length };
}
