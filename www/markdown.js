// A small markdown parser that remembers where every visible character came from, so that the
// page can render markdown and tint the model's tokens in it at once. It covers what chat models
// write: paragraphs, headings, lists, quotes, fenced code, tables, rules, emphasis, code, links.
// Raw HTML stays text. It never throws, and takes time linear in the text whatever the text is: no
// pattern may try one stretch of it in more than one way, and nothing is searched twice in vain.

import { MAX_DEPTH, parseInline } from "./markdown-inline.js";
import { cut, join } from "./mapped.js";

/** @import { Inline } from "./markdown-inline.js" */
/** @import { Mapped } from "./mapped.js" */

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

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+|$)/;
const BULLET = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const QUOTE = /^ {0,3}> ?/;
const CELL_RULE = /^:?-+:?$/;

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
