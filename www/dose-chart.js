// The measured dose-response under the slider: how often jailbreaks and harmless requests are
// declined at each strength, and how often facts are right. It shares the slider's horizontal axis.

import { figures, look, rates } from "./dose.js";
import { h, number, svg } from "./dom.js";

/** @import { Report } from "./types.d.ts" */

const WIDTH = 280;
const HEIGHT = 96;
const TOP = 8;
const BOTTOM = 78;

/**
 * @param {HTMLElement} holder
 * @param {Report | null} report where it is about the choices
 * @param {number | null} strength now, null when steering is off
 * @param {number} min left end of the axis
 * @param {number} max right end of the axis
 */
export function drawDose(holder, report, strength, min, max) {
  const rows = (report?.curve ?? []).filter((row) => row.value >= min && row.value <= max);
  holder.hidden = rows.length < 3;
  if (holder.hidden || !report) return;
  const x = (/** @type {number} */ value) => ((Math.min(Math.max(value, min), max) - min) / (max - min)) * WIDTH;
  const y = (/** @type {number} */ share) => BOTTOM - share * (BOTTOM - TOP);
  const line = (/** @type {"jailbreak" | "benign" | "facts"} */ key) =>
    rows
      .filter((row) => row[key] !== null)
      .map((row, index) => `${index ? "L" : "M"}${x(row.value).toFixed(1)} ${y(row[key] ?? 0).toFixed(1)}`)
      .join("");
  const { base } = report;
  const facts = rows.filter((row) => row.facts !== null).length > 1;
  const caption = strength === null ? offCaption(report) : figures(report, strength);
  const at = strength === null ? null : look(report.curve, strength);
  const [low, high] = report.value.useful;
  const ticks = [...new Set([min, 0, report.value.default, max])].filter((value) => value >= min && value <= max);
  holder.replaceChildren(
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "dose", role: "img", "aria-label": caption },
      svg("rect", { class: "dose-useful", x: x(low), y: TOP - 4, width: x(high) - x(low), height: BOTTOM - TOP + 4, rx: 3 }),
      ...[0, 0.5, 1].map((share) => svg("line", { class: "dose-grid", x1: 0, x2: WIDTH, y1: y(share), y2: y(share) })),
      ...(base ? [svg("line", { class: "dose-base", x1: 0, x2: WIDTH, y1: y(base.jailbreak), y2: y(base.jailbreak) })] : []),
      ...(facts ? [svg("path", { class: "dose-facts", d: line("facts") })] : []),
      svg("path", { class: "dose-benign", d: line("benign") }),
      svg("path", { class: "dose-jailbreak", d: line("jailbreak") }),
      ...(strength === null ? [] : [svg("line", { class: "dose-now", x1: x(strength), x2: x(strength), y1: TOP - 4, y2: BOTTOM })]),
      ...(at?.rows ?? []).filter((row) => row.value >= min).map((row) => svg("circle", { class: "dose-dot", cx: x(row.value), cy: y(row.jailbreak), r: 3.5 })),
      ...ticks.map((value) => svg("text", { class: "dose-text", x: x(value), y: HEIGHT - 4, "text-anchor": "middle" }, number(value))),
    ),
    h(
      "p",
      { className: "legend" },
      h("span", { className: "key jailbreak" }, `${report.asked ?? "jailbreaks"} declined`),
      base ? h("span", { className: "key base" }, "unsteered") : null,
      h("span", { className: "key benign" }, "harmless declined"),
      facts ? h("span", { className: "key facts" }, "facts right") : null,
    ),
    h("p", { className: "muted" }, caption),
  );
}

/** @param {Report} report */
function offCaption({ base, asked }) {
  return base ? `Unsteered: ${rates([base], asked)}.` : "";
}
