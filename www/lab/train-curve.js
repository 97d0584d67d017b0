// The curve of a training: the share of variance that each step leaves unexplained.

import { h, svg } from "../dom.js";

const WIDTH = 520;
const HEIGHT = 180;
/** Points that are drawn at most. */
const POINTS = 400;

/** A curve that grows. */
export class TrainCurve {
  constructor() {
    this.path = svg("path", { class: "roc-curve" });
    this.last = svg("text", { "text-anchor": "end", y: -8, x: WIDTH });
    this.end = svg("text", { "text-anchor": "end", x: WIDTH, y: HEIGHT + 16 });
    this.chart = svg(
      "svg",
      { viewBox: `-40 -22 ${WIDTH + 52} ${HEIGHT + 46}`, role: "img" },
      svg("rect", { x: 0, y: 0, width: WIDTH, height: HEIGHT, class: "roc-frame" }),
      ...[0, 0.25, 0.5, 0.75, 1].map((share) => svg("text", { x: -6, y: HEIGHT * (1 - share) + 4, "text-anchor": "end" }, `${100 * share}%`)),
      svg("text", { x: 0, y: HEIGHT + 16 }, "step 1"),
      this.path,
      this.last,
      this.end,
    );
    this.node = h("figure", { className: "roc train-curve", hidden: true }, this.chart, h("figcaption", { className: "muted" }, "The share of variance that the dictionary leaves unexplained, of the vectors of each step; 0% is perfect, 100% is no better than the mean."));
    this.steps = 0;
    /** @type {[number, number][]} */
    this.points = [];
  }

  /** @param {number} steps that there will be */
  clear(steps) {
    this.steps = steps;
    this.points = [];
    this.node.hidden = true;
    this.path.setAttribute("d", "");
  }

  /**
   * @param {number} step
   * @param {number} unexplained
   */
  add(step, unexplained) {
    this.points.push([step, unexplained]);
    const [[, first]] = this.points;
    const every = Math.ceil(this.points.length / POINTS);
    const shown = this.points.filter((_, index) => index % every === 0 || index === this.points.length - 1);
    const x = (/** @type {number} */ at) => ((at - 1) / Math.max(1, this.steps - 1)) * WIDTH;
    const y = (/** @type {number} */ share) => HEIGHT * (1 - Math.min(1, share));
    this.path.setAttribute("d", shown.map(([at, share], index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(share).toFixed(1)}`).join(""));
    this.last.textContent = `step ${step}: ${(100 * unexplained).toFixed(1)}%`;
    this.end.textContent = `step ${this.steps}`;
    this.chart.setAttribute("aria-label", `Unexplained variance over ${step} of ${this.steps} steps: from ${(100 * first).toFixed(0)}% to ${(100 * unexplained).toFixed(1)}%`);
    this.node.hidden = false;
  }
}
