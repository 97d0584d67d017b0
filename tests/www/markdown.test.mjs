// The markdown parser: structure on known texts, and its promises on random ones.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMarkdown } from "../../www/markdown.js";
import { safeHref } from "../../www/markdown-inline.js";
import { placeOf } from "../../www/mapped.js";

/** A block or inline node as a short string, to compare structures. */
function show(node) {
  if (Array.isArray(node)) return node.map(show).join("");
  switch (node.type) {
    case "text":
      return node.run.text;
    case "code":
      return `<code ${node.run.text}>`;
    case "break":
      return "/";
    case "link":
      return `<a ${node.href} ${show(node.children)}>`;
    case "heading":
      return `<h${node.level} ${show(node.children)}>`;
    case "quote":
      return `<quote ${show(node.blocks)}>`;
    case "list":
      return `<${node.ordered ? `ol ${node.start}` : "ul"} ${node.items.map((item) => `(${show(item)})`).join("")}>`;
    case "table":
      return `<table ${[node.head, ...node.rows].map((row) => row.map(show).join("|")).join("/")}>`;
    case "rule":
      return "<rule>";
    default:
      return `<${node.type} ${show(node.children)}>`;
  }
}

const cases = {
  "plain text": "<paragraph plain text>",
  "a\nb\n\nc": "<paragraph a/b><paragraph c>",
  "**bold** and *it* and __bold__ and _it_": "<paragraph <strong bold> and <em it> and <strong bold> and <em it>>",
  "2 * 3 * 4, snake_case_name, a ** b": "<paragraph 2 * 3 * 4, snake_case_name, a ** b>",
  "**outer *inner* outer**": "<paragraph <strong outer <em inner> outer>>",
  "`a * b` and ``c ` d``": "<paragraph <code a * b> and <code c ` d>>",
  "## Title ##\ntext": "<h2 Title><paragraph text>",
  "- a\n- b\n  - c\n- d": "<ul (<paragraph a>)(<paragraph b><ul (<paragraph c>)>)(<paragraph d>)>",
  "3. a\n4. b": "<ol 3 (<paragraph a>)(<paragraph b>)>",
  "> a\n> - b": "<quote <paragraph a><ul (<paragraph b>)>>",
  "```js\nx < 1\n\n- y\n```\nz": "<code x < 1\n\n- y><paragraph z>",
  "```\nnever closed": "<code never closed>",
  "| a | b |\n|---|:-:|\n| 1 | **2** |": "<table a|b/1|<strong 2>>",
  "---": "<rule>",
  "[x](https://a.example/b_c_d)": "<paragraph <a https://a.example/b_c_d x>>",
  "see https://a.example/x.": "<paragraph see <a https://a.example/x https://a.example/x>.>",
  "[x](javascript:alert(1)) [y](data:text/html,z) [z](//a.example)": "<paragraph x y z>",
  "<b>raw</b> <script>alert(1)</script>": "<paragraph <b>raw</b> <script>alert(1)</script>>",
  "![alt](https://a.example/i.png)": "<paragraph <a https://a.example/i.png alt>>",
  "\\*not\\*": "<paragraph *not*>",
};

for (const [source, expected] of Object.entries(cases)) {
  test(`markdown: ${JSON.stringify(source)}`, () => assert.equal(show(parseMarkdown(source)), expected));
}

test("only web addresses become links", () => {
  assert.equal(safeHref("https://a.example/"), "https://a.example/");
  for (const bad of ["javascript:alert(1)", " JaVaScRiPt:alert(1)", "data:text/html,x", "file:///etc", "/relative", "blob:https://a.example/x", ""]) {
    assert.equal(safeHref(bad), null, bad);
  }
});

test("random texts: every visible character knows its source, in order", () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 32);
  console.log(`seed ${seed}`);
  let state = seed >>> 0;
  const below = (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % n;
  };
  const pieces = ["*", "**", "_", "__", "`", "```\n", "~~~\n", "~~", "\n", "\n\n", "# ", "- ", "1. ", "> ", "  ", "\t", "---\n"];
  pieces.push("| a | b |\n|---|---|\n", "[x](", "![a](", "](", ")", "http://a.b/c", "<b>", "\\", "word", "\u00e9", "\u{1f44d}", " ");
  let visible = 0;
  const check = (source, node) => {
    if (Array.isArray(node)) {
      for (const part of node) check(source, part);
    } else if (node && typeof node === "object") {
      if (node.type === "link") assert.match(node.href, /^https?:/);
      if (node.run) {
        const { text } = node.run;
        const at = [...text].flatMap((c) => [...Array(c.length)]).map((_, i) => placeOf(node.run, i));
        for (let i = 0; i < text.length; i++) {
          assert.ok(i === 0 || at[i] > at[i - 1], JSON.stringify(source));
          // Lines that are joined meet in a line break, whatever the source had between them.
          assert.ok(text[i] === source[at[i]] || text[i] === "\n", JSON.stringify(source));
        }
        visible += text.length;
      } else {
        for (const part of Object.values(node)) check(source, part);
      }
    }
  };
  for (let round = 0; round < 5000; round++) {
    let source = "";
    for (let k = below(25); k > 0; k--) source += pieces[below(pieces.length)];
    check(source, parseMarkdown(source));
  }
  assert.ok(visible > 50_000);
});
