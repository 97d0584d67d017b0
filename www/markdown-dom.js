// Turns parsed markdown into DOM nodes. Text only ever becomes text nodes; no HTML is parsed.

import { h } from "./dom.js";
import { parseMarkdown } from "./markdown.js";

/**
 * @import { Block, Inline, Mapped } from "./markdown.js"
 * @typedef {(run: Mapped) => Node[]} Leaf turns visible text into nodes
 */

/** @type {Leaf} */
const plainLeaf = (run) => [document.createTextNode(run.text)];

/**
 * @param {string} source
 * @param {Leaf} [leaf]
 * @returns {DocumentFragment}
 */
export function renderMarkdown(source, leaf = plainLeaf) {
  const fragment = document.createDocumentFragment();
  fragment.append(...parseMarkdown(source).map((block) => renderBlock(block, leaf)));
  return fragment;
}

/**
 * @param {Block} block
 * @param {Leaf} leaf
 * @returns {Node}
 */
function renderBlock(block, leaf) {
  switch (block.type) {
    case "paragraph":
      return h("p", {}, ...renderInline(block.children, leaf));
    case "heading":
      // An answer is a section of the page: its headings start at the fourth level.
      return h(/** @type {"h4"} */ (`h${Math.min(6, block.level + 3)}`), {}, ...renderInline(block.children, leaf));
    case "code":
      return h("pre", { tabIndex: 0 }, h("code", {}, ...leaf(block.run)));
    case "quote":
      return h("blockquote", {}, ...block.blocks.map((inner) => renderBlock(inner, leaf)));
    case "list": {
      const items = block.items.map((blocks) => h("li", {}, ...renderItem(blocks, leaf)));
      return block.ordered ? h("ol", { start: block.start }, ...items) : h("ul", {}, ...items);
    }
    case "table":
      return h(
        "div",
        { className: "table-scroll", tabIndex: 0 },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...block.head.map((cell) => h("th", { scope: "col" }, ...renderInline(cell, leaf))))),
          h("tbody", {}, ...block.rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, ...renderInline(cell, leaf)))))),
        ),
      );
    case "rule":
      return h("hr");
  }
}

/**
 * @param {Block[]} blocks
 * @param {Leaf} leaf
 * @returns {Node[]}
 */
function renderItem(blocks, leaf) {
  // A list item that starts with a paragraph reads better without the paragraph's margins.
  return blocks.flatMap((block, index) =>
    index === 0 && block.type === "paragraph" ? renderInline(block.children, leaf) : [renderBlock(block, leaf)],
  );
}

/**
 * @param {Inline[]} nodes
 * @param {Leaf} leaf
 * @returns {Node[]}
 */
function renderInline(nodes, leaf) {
  return nodes.flatMap((node) => {
    switch (node.type) {
      case "text":
        return leaf(node.run);
      case "code":
        return [h("code", {}, ...leaf(node.run))];
      case "break":
        return [h("br")];
      case "link":
        return [
          h(
            "a",
            { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow", title: node.href },
            ...renderInline(node.children, leaf),
          ),
        ];
      default:
        return [h(node.type, {}, ...renderInline(node.children, leaf))];
    }
  });
}
