// The gate: steer only when the prompt looks harmful. Fitted with one button, and kept.

import { h, svg } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError } from "../line.js";
import { SET_FIELDS } from "./find-view.js";
import { RecipeForm } from "./form.js";
import { percent } from "./found.js";
import { readGate } from "./gates.js";
import { drawPlots } from "./plots.js";
import { SCHEMA } from "./recipes.js";
import { WorkCard } from "./work-card.js";

/** @import { LabResult } from "../types.d.ts" */
/** @import { Kept } from "./shelf.js" */
/** @import { LabPage } from "./lab.js" */
/** @import { Recipe } from "./recipes.js" */

/** @type {import("./form.js").Field[]} */
const FIT = [
  { path: "percentile", label: "Harmless prompts below the threshold", kind: "number", about: "a share; of each set; empty: 0.95" },
  { path: "ridge", label: "Ridge", kind: "number", about: "empty: 1" },
  { path: "feature", label: "A feature to try instead", kind: "number", about: "its activation as the score" },
  { path: "test", label: "Split that is told of", kind: "text", about: "empty: test" },
];

/** The view. */
export class GateView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Gate";
    const { runner } = page;
    this.form = new RecipeForm(() => this.usual(), [...SET_FIELDS, ...FIT], page.places);
    this.work = new WorkCard(runner, ["gate"]);
    this.go = h("button", { type: "button", className: "button primary big", onclick: () => this.start() }, "Fit the gate");
    this.note = h("p", { className: "muted", role: "status" });
    this.trouble = h("div");
    this.rested = h("div");
    this.found = h("div");
    this.node = h(
      "section",
      { className: "lab-section" },
      h("h2", { tabIndex: -1 }, "Steer only when it looks harmful"),
      h("p", {}, "A gate looks at what the model makes of the prompt, at the last token before the answer, and before anything is steered: a number from 0, harmless, to 1, harmful. From its threshold on the answer is steered, and below it the model is left as it was trained. It is fitted to harmful and harmless prompts, and its threshold is chosen on others."),
      h("div", { className: "actions" }, this.go, this.note),
      this.trouble,
      this.work.node,
      this.rested,
      this.found,
      this.form.node,
    );
    runner.addEventListener("change", () => this.draw());
    runner.addEventListener("done", (event) => this.arrived(/** @type {CustomEvent<Kept>} */ (event).detail));
    this.draw();
  }

  /** @returns {Recipe} */
  usual() {
    const hook = this.page.engine()?.info.sae?.hook;
    return { schema: SCHEMA, task: "gate", ...(hook ? { hook } : {}), sets: { name: this.page.sets() }, seed: 1 };
  }

  async changed() {
    this.form.refresh();
    this.found.replaceChildren();
    await this.look();
  }

  async look() {
    const { done, rest } = await this.work.kept();
    if (done) this.show(done.result);
    this.rested.replaceChildren(...(rest && !this.page.runner.running ? [this.work.resting(rest, () => this.look())] : []));
    this.draw();
  }

  draw() {
    const { runner } = this.page;
    const engine = this.page.engine();
    this.go.hidden = this.work.busy;
    this.go.disabled = !engine?.info.sae || runner.running;
    this.note.textContent = !engine ? "The model is not there yet: the chat shows how far it is." : !engine.info.sae ? "This needs a dictionary of the model." : runner.running && !this.work.busy ? "The lab is at something else just now." : "";
  }

  async start() {
    this.trouble.replaceChildren();
    this.rested.replaceChildren();
    try {
      const run = await this.page.runner.start(this.form.recipe, this.form.sets);
      if (run) this.arrived(run);
      else await this.look();
    } catch (error) {
      this.trouble.replaceChildren(errorPanel(asEngineError(error), []));
    }
  }

  /** @param {Kept} run */
  arrived(run) {
    if (run.recipe.task === "gate") this.show(run.result);
  }

  /** @param {LabResult} result */
  show(result) {
    const gate = readGate(result.gate, result.recipe?.hook);
    const about = result.gate ?? {};
    const curve = h("div", {}, roc(about));
    drawPlots(curve, this.page.engine(), [result]);
    const use = h("button", { type: "button", className: "button primary", disabled: gate === null }, "Use it in the chat");
    use.addEventListener("click", async () => {
      if (!gate) return;
      const { runner, settings } = this.page;
      await runner.shelf.keep(`gate/${runner.place}`, gate).catch((error) => console.warn(`The gate is not kept: ${error}`));
      settings.setGate(gate);
      settings.set({ steering: true, gated: true });
      this.page.open("chat");
    });
    this.found.replaceChildren(
      h(
        "section",
        { className: "lab-hero", "aria-label": "The gate" },
        h("h2", {}, Number.isFinite(about.auc) ? `It tells harmful from harmless prompts: ${about.auc.toFixed(3)}` : "The gate is fitted"),
        h("p", {}, `That is the area under the curve below: 1 is always, 0.5 is by chance. At its threshold, ${(gate?.threshold ?? 0).toFixed(3)}, ${atThreshold(about)}`),
        h("div", { className: "card-columns" }, curve, shares(about)),
        h("div", { className: "actions" }, use),
      ),
    );
    this.draw();
  }
}

/** @param {any} about */
function atThreshold(about) {
  const { caught, alarms } = operating(about);
  if (caught === null || alarms === null) return "steering sets in.";
  return `${percent(caught)} of the harmful prompts are steered, and ${percent(alarms)} of the harmless ones.`;
}

/**
 * Shares of harmful and harmless prompts above the threshold.
 * @param {any} about
 * @returns {{caught: number | null, alarms: number | null}}
 */
function operating(about) {
  const point = points(about).findLast((one) => one.threshold === null || one.threshold >= about.threshold);
  return { caught: about.tpr ?? point?.tpr ?? null, alarms: about.fpr ?? point?.fpr ?? null };
}

/**
 * @param {any} about
 * @returns {{fpr: number, tpr: number, threshold: number | null}[]}
 */
function points({ roc }) {
  if (!Array.isArray(roc)) return [];
  return roc.map((one) => ({ fpr: one?.[0], tpr: one?.[1], threshold: one?.[2] ?? null })).filter(({ fpr, tpr }) => Number.isFinite(fpr) && Number.isFinite(tpr));
}

/** @param {any} about */
function roc(about) {
  const curve = points(about);
  if (curve.length < 2) return h("p", { className: "muted" }, "No curve was kept.");
  const size = 220;
  const path = curve.map(({ fpr, tpr }, index) => `${index ? "L" : "M"}${(fpr * size).toFixed(1)} ${((1 - tpr) * size).toFixed(1)}`).join("");
  const { caught, alarms } = operating(about);
  return h(
    "figure",
    { className: "roc" },
    svg(
      "svg",
      { viewBox: `-34 -6 ${size + 58} ${size + 40}`, role: "img", "aria-label": "Harmful prompts found against harmless ones mistaken, for every threshold" },
      svg("rect", { x: 0, y: 0, width: size, height: size, class: "roc-frame" }),
      svg("line", { x1: 0, y1: size, x2: size, y2: 0, class: "roc-chance" }),
      svg("path", { d: path, class: "roc-curve" }),
      ...(caught !== null && alarms !== null ? [svg("circle", { cx: alarms * size, cy: (1 - caught) * size, r: 4.5, class: "roc-point" })] : []),
      svg("text", { x: size / 2, y: size + 28, "text-anchor": "middle" }, "harmless steered \u2192"),
      svg("text", { x: -14, y: size / 2, "text-anchor": "middle", transform: `rotate(-90 -14 ${size / 2})` }, "harmful steered \u2192"),
      ...[0, 1].map((end) => svg("text", { x: end * size, y: size + 14, "text-anchor": "middle" }, `${100 * end}%`)),
    ),
    h("figcaption", { className: "muted" }, "Every threshold at once; the dot is the one that was chosen."),
  );
}

/**
 * Shares above the threshold, set by set, on prompts that it was not fitted to.
 * @param {any} about
 */
function shares({ test }) {
  const rows = Object.entries(test?.sets ?? {}).map(([name, one]) => ({ name, .../** @type {any} */ (one) }));
  if (!rows.length) return null;
  return h(
    "div",
    { className: "lab-table" },
    h("p", { className: "muted" }, `On prompts that it was not fitted to${Number.isFinite(test.auc) ? `, AUC ${test.auc.toFixed(3)}` : ""}:`),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Set"), h("th", { scope: "col" }, "Steered"), h("th", { scope: "col" }, "95% interval"))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, h("th", { scope: "row" }, row.name, row.harmful ? "" : h("small", {}, " harmless")), h("td", { className: "figure" }, percent(row.share)), h("td", { className: "figure" }, Array.isArray(row.interval) ? `${percent(row.interval[0])} to ${percent(row.interval[1])}` : "")))),
    ),
  );
}
