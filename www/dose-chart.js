// The measured dose-response under the slider: how often jailbreaks and harmless requests are
// declined at each strength, and how often facts are right. It shares the slider's horizontal axis.

import { h, svg } from "./dom.js";

/** @import { Rates, Report } from "./types.d.ts" */

const WIDTH = 280;
const HEIGHT = 96;
const TOP = 8;
const BOTTOM = 78;

/**
 * @param {HTMLElement} holder
 * @param {Report | null} report
 * @param {number} strength now
 * @param {number} max right end of the axis
 */
export function drawDose(holder, report, strength, max) {
  const rows = (report?.curve ?? []).filter((row) => row.value >= 0 && row.value <= max);
  holder.hidden = rows.length < 3;
  if (holder.hidden || !report) return;
  const x = (/** @type {number} */ value) => (Math.min(Math.max(value, 0), max) / max) * WIDTH;
  const y = (/** @type {number} */ share) => BOTTOM - share * (BOTTOM - TOP);
  const line = (/** @type {keyof Rates} */ key) =>
    rows.map((row, index) => `${index ? "L" : "M"}${x(row.value).toFixed(1)} ${y(row[key] ?? 0).toFixed(1)}`).join("");
  const at = nearest(rows, strength);
  const percent = (/** @type {number} */ share) => `${Math.round(100 * share)}%`;
  const { base } = report;
  const facts = rows.every((row) => row.facts !== null);
  const told = (/** @type {Rates} */ rates) =>
    `${percent(rates.jailbreak)} of jailbreaks and ${percent(rates.benign)} of harmless requests declined` +
    (facts && rates.facts !== null ? `, ${percent(rates.facts)} of facts right` : "");
  const caption = `At ${at.value}: ${told(at)}.${base ? ` Unsteered: ${told(base)}.` : ""}`;
  const [low, high] = report.value.useful;
  holder.replaceChildren(
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "dose", role: "img", "aria-label": `Measured: ${caption}` },
      svg("rect", { class: "dose-useful", x: x(low), y: TOP - 4, width: x(high) - x(low), height: BOTTOM - TOP + 4, rx: 3 }),
      ...[0, 0.5, 1].map((share) => svg("line", { class: "dose-grid", x1: 0, x2: WIDTH, y1: y(share), y2: y(share) })),
      ...(base ? [svg("line", { class: "dose-base", x1: 0, x2: WIDTH, y1: y(base.jailbreak), y2: y(base.jailbreak) })] : []),
      ...(facts ? [svg("path", { class: "dose-facts", d: line("facts") })] : []),
      svg("path", { class: "dose-benign", d: line("benign") }),
      svg("path", { class: "dose-jailbreak", d: line("jailbreak") }),
      svg("line", { class: "dose-now", x1: x(strength), x2: x(strength), y1: TOP - 4, y2: BOTTOM }),
      svg("circle", { class: "dose-dot", cx: x(at.value), cy: y(at.jailbreak), r: 3.5 }),
      svg("text", { class: "dose-text", x: 0, y: HEIGHT - 4 }, "0"),
      svg("text", { class: "dose-text", x: WIDTH, y: HEIGHT - 4, "text-anchor": "end" }, String(max)),
    ),
    h(
      "p",
      { className: "legend" },
      h("span", { className: "key jailbreak" }, "jailbreaks declined"),
      base ? h("span", { className: "key base" }, "unsteered") : null,
      h("span", { className: "key benign" }, "harmless declined"),
      facts ? h("span", { className: "key facts" }, "facts right") : null,
    ),
    h("p", { className: "muted" }, caption),
  );
}

/**
 * The measured row nearest to a strength.
 * @param {Report["curve"]} rows
 * @param {number} value
 */
export function nearest(rows, value) {
  return rows.reduce((best, row) => (Math.abs(row.value - value) < Math.abs(best.value - value) ? row : best));
}
