// "Measure what it costs": one button, then figures with their intervals, plots, controls.

import { h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { EngineError, asEngineError } from "../line.js";
import { saveFile } from "../save.js";
import { CHOICES } from "../settings.js";
import { SET_FIELDS } from "./find-view.js";
import { RecipeForm } from "./form.js";
import { inSoftware, usualControls, usualMeasure, usualSweep } from "./usual.js";
import { armsOf, cell, groupsOf, measureWords } from "./measured.js";
import { drawPlots } from "./plots.js";
import { replies } from "./replies.js";
import { sortable } from "./sortable.js";
import { WorkCard } from "./work-card.js";
import { readTargets } from "./written.js";

/** @import { LabResult, LabVerdict } from "../types.d.ts" */
/** @import { Kept } from "./shelf.js" */
/** @import { Arm } from "./measured.js" */
/** @import { LabPage } from "./lab.js" */

/** What an effect is compared with, for the form. */
export const CONTROLS = /** @type {[string, string][]} */ ([
  ["ablation", "the feature set to zero"],
  ["reconstruction", "the dictionary in the loop, without a clamp"],
  ["errorDropped", "the clamp, error dropped"],
  ["randomFeatures", "random live features"],
  ["randomDirections", "random directions of equal length"],
  ["randomDecoder", "the best of many random directions, chosen as a feature is"],
  ["signFlipped", "the sign flipped"],
  ["unrelatedFeature", "an unrelated feature"],
  ["differenceOfMeans", "the difference of means, of equal length"],
  ["nullSpace", "what of it no harmless prompt has, amplified as far"],
  ["safetyPrompt", "a safety system message instead"],
]);

/** @type {import("./form.js").Field[]} */
const FIELDS = [
  ...SET_FIELDS,
  {
    path: "steer",
    label: "Features",
    kind: "text",
    about: "\u201c329\u201d; several together: \u201c17+240\u201d, each in units of a maximum: \u201c17:2.1+240:0.8\u201d",
    shown: (steer) => (Array.isArray(steer) ? steer : []).map(({ features, name }) => !features?.length ? (name ?? "a direction") : (features ?? []).map((/** @type {any} */ one) => (one.max && one.max !== 1 ? `${one.feature}:${one.max}` : one.feature)).join("+")).join(", "),
    read: (text) => readTargets(text),
  },
  { path: "values", label: "Strengths", kind: "numbers" },
  { path: "negatives", label: "Strengths below zero", kind: "numbers", about: "the model declines less" },
  {
    path: "operators",
    label: "Operators",
    kind: "choices",
    options: CHOICES.filter(({ value }) => value !== null).map(({ name, label }) => [name, label]),
  },
  {
    path: "positions",
    label: "At tokens of",
    kind: "choices",
    options: [
      ["all", "prompt and answer"],
      ["prompt", "prompt only"],
      ["generated", "answer only"],
    ],
  },
  { path: "controls", label: "Controls", kind: "choices", about: "at the strength below", options: CONTROLS },
  { path: "at", label: "Controls at strength", kind: "number", about: "empty: the last one" },
  { path: "tokens", label: "Longest reply", kind: "number", about: "tokens" },
  { path: "caps", label: "Judged also at", kind: "numbers", about: "tokens, such as 14, 32, 80" },
];

/** The view. */
export class MeasureView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Measure";
    const { runner } = page;
    const gate = { path: "gate", label: "With the chat\u2019s gate, and without", kind: /** @type {const} */ ("check"), on: () => page.settings.gate ?? undefined };
    this.form = new RecipeForm(() => usualMeasure(page), [...FIELDS, gate], page.places);
    this.work = new WorkCard(runner, ["measure", "sweep"]);
    this.go = h("button", { type: "button", className: "button primary big", onclick: () => this.start() }, "Measure what it costs");
    this.sweep = h("button", { type: "button", className: "button", onclick: () => this.start(usualSweep(page)) }, "Sweep strengths, operators and positions");
    this.controls = h("button", { type: "button", className: "button", onclick: () => this.start(usualControls(page)) }, "Controls alone");
    this.note = h("p", { className: "muted", role: "status" });
    this.trouble = h("div");
    this.rested = h("div");
    this.found = h("div", { className: "lab-section" });
    this.node = h(
      "section",
      { className: "lab-section" },
      h("h2", { tabIndex: -1 }, "Measure what it costs"),
      h("p", {}, "The steered model and the model as it was trained answer the same prompts: jailbreaks, direct requests, requests that only sound harmful, plain ones, questions with a right answer. Then the controls: whatever another feature, a random direction or a mere system message would do as well is no finding about this feature."),
      h("div", { className: "actions" }, this.go, this.sweep, this.controls, this.note),
      this.trouble,
      this.work.node,
      this.rested,
      this.found,
      this.form.node,
    );
    runner.addEventListener("change", () => this.draw());
    runner.addEventListener("done", (event) => this.arrived(/** @type {CustomEvent<Kept>} */ (event).detail));
    page.settings.addEventListener("change", () => this.form.refresh());
    this.draw();
  }

  async changed() {
    this.form.refresh();
    this.found.replaceChildren();
    await this.look();
  }

  async look() {
    const { done, rest } = await this.work.kept();
    if (done && !this.found.firstChild) await this.show(done);
    this.rested.replaceChildren(...(rest && !this.page.runner.running ? [this.work.resting(rest, () => this.look())] : []));
    this.draw();
  }

  draw() {
    const { runner } = this.page;
    const engine = this.page.engine();
    this.go.hidden = this.sweep.hidden = this.controls.hidden = this.work.busy;
    this.go.disabled = this.sweep.disabled = this.controls.disabled = !engine?.info.sae || runner.running;
    this.note.textContent = !engine ? "The model is not there yet: the chat shows how far it is." : !engine.info.sae ? "This needs a dictionary of the model." : runner.running && !this.work.busy ? "The lab is at something else just now." : inSoftware(this.page) ? "No graphics card computes here but the processor: few prompts, so wide intervals, and some minutes." : "";
  }

  /** @param {import("./recipes.js").Recipe} [recipe] the form's if not given */
  async start(recipe = this.form.recipe) {
    this.trouble.replaceChildren();
    this.rested.replaceChildren();
    try {
      const run = await this.page.runner.start(recipe, recipe === this.form.recipe ? this.form.sets : undefined);
      if (run) this.arrived(run);
      else await this.look();
    } catch (error) {
      this.trouble.replaceChildren(errorPanel(asEngineError(error), []));
    }
  }

  /** @param {Kept} run */
  arrived(run) {
    if (["measure", "sweep"].includes(run.recipe.task)) this.show(run).catch((error) => console.error(error));
  }

  /** @param {Kept} run */
  async show(run) {
    const told = h("div", { className: "lab-section" });
    const said = replies(run.result, (verdict) => this.overrule(run, verdict, told));
    this.found.replaceChildren(told, ...(said ? [said] : []));
    await this.tell(run.result, told);
    this.draw();
  }

  /**
   * Counts a verdict by hand, keeps it, and shows the figures with it.
   * @param {Kept} run
   * @param {LabVerdict} verdict
   * @param {HTMLElement} told where the figures are
   * @returns {Promise<LabResult>}
   */
  async overrule(run, verdict, told) {
    const engine = this.page.engine();
    if (!engine) throw new EngineError("not-loaded", "No model is loaded: a verdict is counted by its engine.");
    run.result = await engine.labOverrule(run.result, [verdict]);
    await this.page.runner.shelf.save(run);
    await this.tell(run.result, told);
    return run.result;
  }

  /**
   * Figures, plots and words.
   * @param {LabResult} result
   * @param {HTMLElement} told where they go
   */
  async tell(result, told) {
    const { title, bought, price, caution } = measureWords(result);
    const list = (/** @type {string[]} */ lines) => h("ul", {}, ...lines.map((line) => h("li", {}, line)));
    const plots = h("div", { className: "plots" });
    await drawPlots(plots, this.page.engine(), [result]);
    const other = paper(result);
    told.replaceChildren(
      h(
        "section",
        { className: "lab-hero", "aria-label": "What was measured" },
        h("h2", {}, title),
        h("div", { className: "bought-and-price" }, h("div", {}, h("h3", {}, "It buys"), list(bought)), h("div", {}, h("h3", {}, "It costs"), list(price))),
        ...caution.map((line) => h("p", { className: "caution" }, line)),
        h("div", { className: "actions" }, h("button", { type: "button", className: "button primary", onclick: () => this.page.open("runs") }, "Make a report"), ...this.page.tableButtons(result, result.task), h("button", { type: "button", className: "button", onclick: () => saveFile(`${result.task}.json`, "application/json", `${JSON.stringify(result, null, 1)}\n`) }, "Result as JSON")),
      ),
      plots,
      h("h3", {}, "All figures"),
      h("p", { className: "muted" }, `Of ${counts(result)}. Below each share its 95% interval (Wilson); bold where it differs from the base on the same prompts (McNemar\u2019s exact test, p below 0.05).`),
      figures(result),
      ...(other ? [other] : []),
    );
  }
}

/** @param {LabResult} result */
function counts({ sets }) {
  const prompts = /** @type {number[]} */ (Object.values(sets?.prompts ?? {}));
  return `${number(prompts.reduce((sum, count) => sum + count, 0))} prompts, split \u201c${sets?.split ?? ""}\u201d`;
}

/** @param {LabResult} result */
function figures(result) {
  const arms = armsOf(result);
  const groups = groupsOf(arms);
  /** @type {import("./sortable.js").Column<Arm>[]} */
  const columns = [
    { name: "Arm", cell: (arm) => h("span", { title: arm.control ? arm.control.words : "" }, arm.arm || "base", arm.control ? h("small", {}, " control") : null) },
    ...groups.map(({ name, title }) => ({
      name: title,
      figure: true,
      order: (/** @type {Arm} */ arm) => arm.groups[name]?.percent ?? null,
      cell: (/** @type {Arm} */ arm) => {
        const one = cell(arm.groups[name]);
        if (!one.text) return "";
        return h("span", { className: "share", title: `${arm.groups[name].hits} of ${one.of}${one.p === undefined ? "" : `; p ${number(one.p)}`}` }, one.differs ? h("b", {}, one.text) : one.text, h("small", {}, one.interval ?? ""));
      },
    })),
    ...(arms.some((arm) => typeof arm.kl === "number") ? [{ name: "KL", about: "Nats a token between its next words and the base's, on harmless text", figure: true, order: (/** @type {Arm} */ arm) => arm.kl ?? null, cell: (/** @type {Arm} */ arm) => (typeof arm.kl === "number" ? number(Math.round(1000 * arm.kl) / 1000) : "") }] : []),
    ...(arms.some((arm) => typeof arm.perplexity === "number") ? [{ name: "Perplexity", figure: true, order: (/** @type {Arm} */ arm) => arm.perplexity ?? null, cell: (/** @type {Arm} */ arm) => (typeof arm.perplexity === "number" ? number(arm.perplexity) : "") }] : []),
  ];
  return sortable("All arms that were measured", columns, arms);
}

/** @param {LabResult} result */
function paper({ paper: about }) {
  if (!Array.isArray(about?.rows)) return null;
  return h(
    "details",
    {},
    h("summary", {}, "The paper\u2019s own figures, of another model"),
    h("p", { className: "muted" }, String(about.source)),
    h("div", { className: "lab-table" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "What"), h("th", { scope: "col" }, "Base"), h("th", { scope: "col" }, "Steered"))), h("tbody", {}, ...about.rows.map((/** @type {any} */ row) => h("tr", {}, h("th", { scope: "row" }, String(row.what)), h("td", { className: "figure" }, `${number(row.base)}%`), h("td", { className: "figure" }, `${number(row.steered)}%`)))))),
  );
}
