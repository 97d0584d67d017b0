// Text that was written to make a parser slow, of each kind that a pattern could be slow on: time grows
// with the text and no faster, and links do only what they say.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMarkdown } from "../../www/markdown.js";
import { safeHref } from "../../www/markdown-inline.js";
import { placeOf } from "../../www/mapped.js";

const sp = (n) => " ".repeat(n);
/** Texts of about n characters. */
const FAMILIES = {
  "a heading with a run of spaces inside": (n) => `# a${sp(n)}b`,
  "a heading with runs of marks": (n) => `# ${"a # ".repeat(n / 4)}b`,
  "a heading of marks and spaces": (n) => `# ${"#  ".repeat(n / 3)}b`,
  "headings": (n) => "# a\n".repeat(n / 4),
  "a table's rule with a run of spaces": (n) => `a|b\n|-${sp(n)}x`,
  "a table's rule that fails late": (n) => `a|b\n${"|-".repeat(n / 2)}x`,
  "a table's rule of spaces and dashes": (n) => `a|b\n${"| - ".repeat(n / 4)}x`,
  "a wide table": (n) => `${"|a".repeat(n / 4)}\n${"|-".repeat(n / 4)}`,
  "a long table": (n) => `a|b\n-|-\n${"x|*y*\n".repeat(n / 6)}`,
  "escaped bars": (n) => `a|b\n-|-\n${"\\|".repeat(n / 2)}`,
  "tildes and a backtick": (n) => `${"~".repeat(n)}\``,
  "backticks that close nothing": (n) => "`".repeat(n),
  "a fence of many marks": (n) => `${"`".repeat(n / 2)}\n${"`".repeat(n / 2 - 1)}`,
  "fences": (n) => "```\nx\n".repeat(n / 6),
  "fences of growing length": (n) => Array.from({ length: Math.sqrt(n) }, (_, k) => `${"~".repeat(3 + k)}\nx`).join("\n"),
  "backticks of growing length": (n) => Array.from({ length: Math.sqrt(2 * n) }, (_, k) => `${"`".repeat(1 + k)}x`).join(""),
  "a rule that fails late": (n) => `${"- ".repeat(n / 2)}x`,
  "a rule of spaces": (n) => `-${sp(n / 2)}-${sp(n / 2)}x`,
  "a rule of stars": (n) => `${"*".repeat(n)}x`,
  "bullets in bullets": (n) => `${"- ".repeat(n / 2)}a`,
  "bullets and blank lines": (n) => "- a\n\n".repeat(n / 5),
  "blank lines": (n) => "\n".repeat(n),
  "lines of spaces": (n) => `${sp(50)}\n`.repeat(n / 51),
  "an item with blank lines": (n) => `- a\n${"\n  b\n".repeat(n / 5)}`,
  "quotes in quotes": (n) => `${"> ".repeat(n / 2)}a`,
  "quotes": (n) => "> > > a\n".repeat(n / 8),
  "open brackets": (n) => "[".repeat(n),
  "open brackets and a far end": (n) => `${"[".repeat(n)}](https://a.example/)`,
  "open brackets and near ends": (n) => `${"[".repeat(900)}](x y)`.repeat(n / 906),
  "links that end nowhere": (n) => "[a](".repeat(n / 4),
  "links in links": (n) => "[](x[](y)z".repeat(n / 10),
  "links with balanced brackets": (n) => `[a](${"(b)".repeat(n / 3)}`,
  "links with titles that do not end": (n) => '[a](b "'.repeat(n / 7),
  "links with a run of spaces": (n) => `[a](b${sp(n)}`,
  "links in angle brackets": (n) => "[a](<b".repeat(n / 6),
  "good links": (n) => "[a](https://a.example/) ".repeat(n / 24),
  "images": (n) => "![".repeat(n / 2),
  "addresses of punctuation": (n) => `http://${".".repeat(1900)}x `.repeat(n / 1909),
  "addresses of addresses": (n) => "http://".repeat(n / 7),
  "one endless address": (n) => `https://a.example/${"a".repeat(n)}`,
  "the letter h": (n) => "h ".repeat(n / 2),
  "stars that open": (n) => `${"*a ".repeat(n / 3)}`,
  "stars that open and one that closes": (n) => `${"*a ".repeat(n / 3)}a*`,
  "stars": (n) => "*".repeat(n),
  "pairs of stars": (n) => "**a".repeat(n / 3),
  "stars and pairs of stars": (n) => "*a **b ".repeat(n / 7),
  "underscores": (n) => "_a".repeat(n / 2),
  "underscores that open": (n) => "_a _b".repeat(n / 5),
  "tildes": (n) => "~~a ~b".repeat(n / 6),
  "backslashes": (n) => "\\".repeat(n),
  "escaped stars": (n) => "\\*a".repeat(n / 3),
  "emphasis in emphasis": (n) => `${"*_**__".repeat(n / 12)}a${"__**_*".repeat(n / 12)}`,
  "words": (n) => "word ".repeat(n / 5),
  "raw HTML": (n) => "<b><script>".repeat(n / 11),
  "four-byte characters": (n) => "\u{1f600}".repeat(n / 2),
  "numbers": (n) => "1. ".repeat(n / 3),
};

/** CPU milliseconds for one parse. */
function once(source) {
  const start = process.cpuUsage();
  parseMarkdown(source);
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
}

/**
 * Whether four times the text takes less than ten times as long (a square would take sixteen times), at the best of
 * some tries: a busy machine makes any one of them too long.
 * @param {string} quarter
 * @param {string} whole
 * @returns {string} what is wrong
 */
function growth(quarter, whole) {
  const times = [Infinity, Infinity];
  for (let k = 0; k < 60; k++) {
    [quarter, whole].forEach((source, index) => (times[index] = Math.min(times[index], once(source))));
    // Below that the collector, which has steps of its own, says more than the parser.
    if (times[1] < 10 * times[0] || times[1] < 20) return "";
  }
  return `${times[0]} ms for ${quarter.length} characters, ${times[1]} ms for ${whole.length}`;
}

for (const [name, make] of Object.entries(FAMILIES)) {
  test(`100 kB of ${name}`, () => {
    parseMarkdown(make(10_000));
    assert.equal(growth(make(25_000), make(100_000)), "");
  });
}

test("random mixtures of hostile pieces stay linear", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 32);
  console.log(`seed ${seed}`);
  let state = seed >>> 0;
  const below = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const pieces = ["*", "**", "_", "`", "``", "~", "~~~", "[", "](", ")", "(", "!", "<", ">", "#", "- ", "1. ", "> ", "|", "|-", "\\", " ", "\n", "\n\n", "\t", "a", "http://", '"', "x y", "\u00a0"];
  for (let round = 0; round < 40; round++) {
    // A few pieces, repeated: what repeats is what is slow.
    const motif = Array.from({ length: 1 + below(6) }, () => pieces[below(pieces.length)].repeat(1 + below(below(2) ? 3 : 200))).join("");
    const end = pieces[below(pieces.length)];
    const source = (/** @type {number} */ n) => `${motif.repeat(Math.ceil(n / motif.length))}`.slice(0, n) + end;
    assert.equal(growth(source(15_000), source(60_000)), "", JSON.stringify(motif));
  }
});

test("a growing answer is parsed from its last blocks on, to the same effect", () => {
  const source = "# Title\n\nSome *text* here.\n\n- one\n- two\n\n  more of two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```js\ncode\n\nmore\n```\n> quote\n> more\nlast paragraph\n\n1. a\n2. b\n\n---\nend [x](https://a.example/)\n";
  const plain = (blocks) => JSON.stringify(blocks, (_, value) => (value?.text === undefined ? value : [value.text, [...value.text].map((_, i) => placeOf(value, i))]));
  let from = 0;
  let settled = [];
  let reparsed = 0;
  for (let length = 1; length <= source.length; length++) {
    const text = source.slice(0, length);
    const tail = parseMarkdown(text, from);
    reparsed += length - from;
    assert.equal(plain([...settled, ...tail]), plain(parseMarkdown(text)), JSON.stringify(text));
    const keep = tail.length - 2;
    if (keep > 0) {
      from = tail[keep].from;
      settled = [...settled, ...tail.slice(0, keep)];
    }
  }
  assert.ok(settled.length > 5);
  assert.ok(reparsed < (source.length * source.length) / 4, "most of it is parsed again and again");
});

test("links with credentials or odd schemes are inert", () => {
  for (const bad of [
    "https://user:password@a.example/",
    "https://user@a.example/",
    "https://:secret@a.example/",
    "https://www.bank.example@evil.example/",
    "javascript:alert(1)",
    "java\nscript:alert(1)",
    "\u0001javascript:alert(1)",
    "vbscript:x",
    "data:text/html,x",
    "blob:https://a.example/x",
    "file:///etc/passwd",
    "ftp://a.example/",
    "intent://a.example/",
    "ws://a.example/",
    "about:blank",
    "chrome://settings",
    "//a.example/",
    "/etc",
    "https://",
    `https://a.example/${"a".repeat(3000)}`,
  ]) {
    assert.equal(safeHref(bad), null, bad);
    const shown = JSON.stringify(parseMarkdown(`see ${bad} and [x](${bad}) and <${bad}>`));
    assert.doesNotMatch(shown, /"href":"(?!https?:\/\/)/, bad);
    assert.doesNotMatch(shown, /"href":"[^"]*@/, bad);
  }
  assert.equal(safeHref("https://a.example/b_c?d=e#f"), "https://a.example/b_c?d=e#f");
});
