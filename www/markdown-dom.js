// Turns parsed markdown into DOM nodes. Text only ever becomes text nodes; no HTML is parsed.

import { h } from "./dom.js";
import { parseMarkdown } from "./markdown.js";

/**
 * @import { Block } from "./markdown.js"
 * @import { Inline } from "./markdown-inline.js"
 * @import { Mapped } from "./mapped.js"
 * @typedef {(run: Mapped) => Node[]} Leaf turns visible text into nodes
 */

/**
 * An answer that grows. Its last two blocks may still change with what comes; those before them are
 * settled, and are neither parsed nor drawn again.
 */
export class MarkdownView {
  /** @param {HTMLElement} container */
  constructor(container) {
    this.container = container;
    /** Where the first block that is not settled begins. */
    this.from = 0;
    /** Settled blocks, each one child of the container. */
    this.settled = 0;
    this.source = "";
  }

  /**
   * @param {string} source
   * @param {(from: number) => Leaf} leafAt a leaf for what begins there
   * @param {boolean} whole draw everything anew
   */
  update(source, leafAt, whole) {
    if (whole || !source.startsWith(this.source)) this.from = this.settled = 0;
    this.source = source;
    const blocks = parseMarkdown(source, this.from);
    const leaf = leafAt(this.from);
    const nodes = blocks.map((block) => renderBlock(block, leaf));
    while (this.container.childNodes.length > this.settled) this.container.lastChild?.remove();
    this.container.append(...nodes);
    const settled = blocks.length - 2;
    if (settled > 0) {
      this.settled += settled;
      this.from = blocks[settled].from;
    }
  }
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
