// A table whose columns sort by a press on their heads.

import { h } from "../dom.js";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} name
 * @property {string} [about] what it is, in a sentence
 * @property {(row: Row) => Node | string} cell
 * @property {(row: Row) => number | string | null} [order] what it sorts by; without it the column does not sort
 * @property {boolean} [figure] whether it holds numbers
 */

/**
 * Rows with what they sort by, the greatest first for numbers; what has none comes last either way.
 * @template Row
 * @param {Row[]} rows
 * @param {(row: Row) => number | string | null} order
 * @param {boolean} rising
 * @returns {Row[]}
 */
export function sorted(rows, order, rising) {
  const side = rising ? 1 : -1;
  return rows
    .map((row, index) => ({ row, index, by: order(row) }))
    .sort((a, b) => {
      if (a.by === null || b.by === null) return a.by === b.by ? a.index - b.index : a.by === null ? 1 : -1;
      if (a.by === b.by) return a.index - b.index;
      return (a.by < b.by ? -1 : 1) * side;
    })
    .map(({ row }) => row);
}

/**
 * @template Row
 * @param {string} caption for screen readers
 * @param {Column<Row>[]} columns
 * @param {Row[]} rows in the order in which they are shown first
 * @param {{first?: number, onOpen?: (row: Row) => void}} [options] first: how many are shown before "Show all"
 * @returns {HTMLElement}
 */
export function sortable(caption, columns, rows, { first = Infinity } = {}) {
  let shown = rows;
  let all = rows.length <= first;
  let by = -1;
  let rising = false;
  const body = h("tbody");
  const heads = columns.map((column, index) => {
    const order = column.order;
    if (!order) return h("th", { scope: "col", title: column.about ?? "" }, column.name);
    const press = () => {
      rising = by === index ? !rising : false;
      by = index;
      shown = sorted(rows, order, rising);
      heads.forEach((head, place) => head.setAttribute("aria-sort", place !== by ? "none" : rising ? "ascending" : "descending"));
      draw();
    };
    return h("th", { scope: "col", "aria-sort": "none" }, h("button", { type: "button", title: column.about ?? "", onclick: press }, column.name));
  });
  const more = h("button", { type: "button", className: "button" }, `Show all ${rows.length}`);
  more.addEventListener("click", () => {
    all = true;
    draw();
  });
  const draw = () => {
    more.hidden = all;
    body.replaceChildren(
      ...shown.slice(0, all ? rows.length : first).map((row) =>
        h("tr", {}, ...columns.map((column, index) => (index ? h("td", { className: column.figure ? "figure" : "" }, column.cell(row)) : h("th", { scope: "row", className: column.figure ? "figure" : "" }, column.cell(row))))),
      ),
    );
  };
  draw();
  return h(
    "div",
    { className: "lab-table" },
    h("div", { className: "table-scroll", tabIndex: 0, role: "region", "aria-label": caption }, h("table", {}, h("caption", { className: "sr-only" }, caption), h("thead", {}, h("tr", {}, ...heads)), body)),
    more,
  );
}
