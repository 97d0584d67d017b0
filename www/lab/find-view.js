// "Find the refusal feature": one button, and what it found in plain words and in full.

import { h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError } from "../line.js";
import { saveFile } from "../save.js";
import { behind } from "../dose.js";
import { drawDose } from "../dose-chart.js";
import { RecipeForm } from "./form.js";
import { byDirection, chosen, findWords, percent, reportOf } from "./found.js";
import { drawPlots } from "./plots.js";
import { sortable } from "./sortable.js";
import { usualFind } from "./usual.js";
import { WorkCard } from "./work-card.js";

/** @import { LabResult } from "../types.d.ts" */
/** @import { Kept } from "./shelf.js" */
/** @import { Recipe } from "./recipes.js" */

/** @typedef {import("./lab.js").LabPage} LabPage */

/** The search and its result. */
export class FindView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Find";
    const { runner } = page;
    this.form = new RecipeForm(() => this.usual(), [...FIELDS.filter(({ path }) => path !== "sets.limit"), ...STEPS], page.places);
    this.work = new WorkCard(runner, ["find"]);
    this.go = h("button", { type: "button", className: "button primary big", onclick: () => this.start() }, "Find the refusal feature");
    this.back = h("button", { type: "button", className: "button", onclick: () => page.forget() }, "Back to the shipped setting");
    page.settings.addEventListener("change", () => this.draw());
    this.note = h("p", { className: "muted", role: "status" });
    this.train = h("a", { className: "button primary", href: "#lab=train", hidden: true }, "Train a dictionary here");
    this.trouble = h("div");
    this.rested = h("div");
    this.found = h("div", { className: "lab-section" });
    this.intro = h(
      "div",
      { className: "lab-intro" },
      h("p", {}, "Somewhere in this dictionary may be a feature that makes the model decline. The lab reads harmful and harmless prompts, compares which features they wake, tries the best candidates by holding them, up and down, on prompts that it has not seen, and measures at which strengths the best one is useful."),
    );
    this.node = h("section", { className: "lab-section" }, h("h2", { tabIndex: -1 }, "Find the refusal feature"), this.intro, h("div", { className: "actions" }, this.go, this.note, this.train), this.trouble, this.work.node, this.rested, this.found, this.form.node);
    runner.addEventListener("change", () => this.draw());
    runner.addEventListener("done", (event) => this.arrived(/** @type {CustomEvent<Kept>} */ (event).detail));
    this.draw();
  }

  /** @returns {Recipe} */
  usual() {
    return usualFind(this.page);
  }

  /** Another engine is there, or none. */
  async changed() {
    this.form.refresh();
    this.found.replaceChildren();
    await this.look();
  }

  /** Shows what was found before, and what broke off. */
  async look() {
    const { done, rest } = await this.work.kept();
    if (done && !this.found.firstChild) this.show(done.result);
    this.rested.replaceChildren(...(rest && !this.page.runner.running ? [this.work.resting(rest, () => this.look())] : []));
    this.draw();
  }

  draw() {
    const { runner } = this.page;
    const engine = this.page.engine();
    const { report, shipped } = this.page.settings;
    this.back.hidden = shipped === null || report === shipped;
    this.go.hidden = this.work.busy;
    this.go.disabled = !engine?.info.sae || runner.running;
    this.go.textContent = this.found.firstChild ? "Search again" : "Find the refusal feature";
    this.go.classList.toggle("primary", !this.found.firstChild);
    this.go.classList.toggle("big", !this.found.firstChild);
    this.train.hidden = !engine || engine.info.sae !== undefined;
    this.note.textContent = !engine ? "The model is not there yet: the chat shows how far it is." : !engine.info.sae ? "This needs a dictionary of the model: \u201cOther model\u2026\u201d in the chat has dictionaries, and one can be trained here." : runner.running && !this.work.busy ? "The lab is at something else just now." : "";
  }

  async start() {
    this.trouble.replaceChildren();
    this.rested.replaceChildren();
    try {
      const { runner } = this.page;
      const again = this.found.firstChild !== null;
      const old = again ? await runner.kept(this.form.recipe) : undefined;
      // Searched again with the same recipe: from the beginning.
      if (old?.state === "done") await runner.shelf.remove(old.key);
      const run = await runner.start(this.form.recipe, this.form.sets);
      if (run) this.show(run.result);
      else await this.look();
    } catch (error) {
      this.trouble.replaceChildren(errorPanel(asEngineError(error), []));
    }
  }

  /** @param {Kept} run */
  arrived(run) {
    if (run.recipe.task === "find") this.show(run.result);
  }

  /** @param {LabResult} result */
  show(result) {
    const { page } = this;
    const { title, range, price, sure } = findWords(result);
    const { kind, members } = chosen(result);
    const hook = page.engine()?.info.sae?.hook ?? "";
    const report = reportOf(result, hook);
    const chart = h("div", { className: "dose-holder wide plots" });
    const told = report.onlyGated ? behind(report, report.gate ?? null) : report;
    drawDose(chart, told, told.value.default, 0, told.value.max);
    drawPlots(chart, page.engine(), [result]);
    const use = h("button", { type: "button", className: "button primary", onclick: () => page.use(result) }, kind === "feature" ? "Use this feature in the chat" : kind === "set" ? "Use these features in the chat" : "Use this direction in the chat");
    const direction = kind !== "direction" && typeof result.direction?.values === "string" ? [h("button", { type: "button", className: "button", title: "The difference between harmful and harmless prompts: the baseline that every feature must beat", onclick: () => page.use(byDirection(result)) }, "Try the plain direction")] : [];
    const cards = members.map(({ feature }) => h("button", { type: "button", className: "button", onclick: () => page.open("feature", feature) }, members.length > 1 ? `Card of ${feature}` : "Open its card"));
    this.found.replaceChildren(
      h(
        "section",
        { className: "lab-hero", "aria-label": "What was found" },
        h("h2", {}, title),
        h("dl", {}, h("dt", {}, "Its range"), h("dd", {}, range), h("dt", {}, "Its price"), h("dd", {}, price), ...(sure ? [h("dt", {}, "Is it sure?"), h("dd", {}, sure)] : [])),
        h("div", { className: "actions" }, ...(kind === "none" ? [] : [use]), ...cards, h("button", { type: "button", className: "button", onclick: () => page.open("measure") }, "Measure what it costs"), ...direction, this.back),
        chart,
      ),
      h("h3", {}, "All candidates"),
      h("p", { className: "muted" }, `${counts(result)} Each column is another way of looking for it; \u201cagreement\u201d is how far their ranks agree. A high score is a hint, the tried effect is the evidence.`),
      candidates(result, page),
      h(
        "div",
        { className: "actions" },
        ...page.tableButtons(result, "candidates"),
        h("button", { type: "button", className: "button", onclick: () => saveFile("find.json", "application/json", `${JSON.stringify(result, null, 1)}\n`) }, "Result as JSON"),
      ),
    );
    this.draw();
  }
}

/** @param {LabResult} result */
function counts({ alive, prompts, candidates: list }) {
  const read = typeof prompts === "number" ? prompts : Array.isArray(prompts) ? prompts.length : null;
  const many = typeof alive === "number" ? alive : Array.isArray(alive) ? alive.length : null;
  return [read === null ? "" : `${number(read)} prompts were read.`, many === null ? "" : `${number(many)} features were active at all; the ${list?.length ?? 0} best are listed.`].filter(Boolean).join(" ");
}

/** @type {import("./form.js").Field[]} */
const FIELDS = [
  {
    path: "sets.name",
    label: "Prompts",
    kind: "choice",
    options: [
      ["nano", "the nano model's own"],
      ["real", "for real chat models"],
      ["own", "an own file"],
    ],
  },
  { path: "sets.split", label: "Split", kind: "text", about: "empty: the task's own" },
  { path: "sets.limit", label: "Prompts of each set", kind: "number", about: "empty: all" },
  { path: "hook", label: "Where", kind: "text", about: "the dictionary's place" },
  { path: "seed", label: "Seed", kind: "number" },
];

/** @type {import("./form.js").Field[]} */
const STEPS = [
  { path: "prompts", label: "Prompts to search with", kind: "number", about: "of each class; empty: 16" },
  { path: "held", label: "Prompts to try on", kind: "number", about: "of each class; empty: 10" },
  { path: "candidates", label: "Candidates whose effect is computed", kind: "number", about: "empty: 64" },
  { path: "confirm", label: "Candidates that are tried", kind: "number", about: "empty: 6" },
  { path: "most", label: "Features together", kind: "number", about: "at most; empty: 3" },
  { path: "tokens", label: "Longest reply", kind: "number", about: "tokens; empty: 20" },
];

export { FIELDS as SET_FIELDS };

/**
 * @param {any} object
 * @param {string} path
 * @returns {number | null}
 */
function figure(object, path) {
  const value = path.split(".").reduce((here, name) => here?.[name], object);
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** The scores that a candidate may have, and what each says. */
const SCORES = /** @type {[string, string, string][]} */ ([
  ["scores.contrastLast.delta", "Contrast, last token", "Mean activation at the last token of harmful prompts, less that of harmless ones"],
  ["scores.contrastLast.t", "t", "That difference in units of its own uncertainty"],
  ["scores.contrastLast.auc", "AUC", "How well it tells harmful from harmless prompts: 0.5 not at all, 1 always"],
  ["scores.contrastReply.delta", "Contrast, reply", "The same over the tokens of replies"],
  ["scores.cosine", "Cosine", "How far its direction agrees with the difference of means"],
  ["scores.causal", "Causal", "How one step of it moves the log-odds of a refusal"],
  ["scores.output", "Output", "How far it pushes the words that it would write"],
  ["scores.paired.w", "Paired", "The same request with and without a jailbreak around it (Wilcoxon)"],
  ["scores.paired.q", "q", "The share of false discoveries to expect at this rank"],
  ["scores.paper", "Paper", "The paper's: refusals when it is held, of features that are active on at least two tokens of a refusal"],
]);

/**
 * @param {LabResult} result
 * @param {LabPage} page
 */
function candidates(result, page) {
  const rows = /** @type {any[]} */ (result.candidates ?? []);
  const { kind, members } = chosen(result);
  const taken = new Set(members.map(({ feature }) => feature));
  const present = SCORES.filter(([path]) => rows.some((row) => figure(row, path) !== null));
  /** @type {(row: any, way: "up" | "down" | "harmless") => string} */
  const tried = (row, way) => {
    const one = row.confirmed?.[way];
    if (!one) return "";
    return `${percent(one.base)} \u2192 ${percent(one.steered)}`;
  };
  /** @type {import("./sortable.js").Column<any>[]} */
  const columns = [
    {
      name: "Feature",
      figure: true,
      order: (row) => row.feature,
      cell: (row) =>
        h("span", { className: "candidate" }, h("button", { type: "button", className: "quiet", title: `Open the card of feature ${row.feature}`, onclick: () => page.open("feature", row.feature) }, String(row.feature)), taken.has(row.feature) ? h("span", { className: "chip on" }, kind === "none" ? "nearest" : "chosen") : row.confirmed?.bothWays ? h("span", { className: "chip" }, "both ways") : null),
    },
    { name: "Agreement", figure: true, about: "How far the ranks of all methods agree on it", order: (row) => figure(row, "agreement"), cell: (row) => shown(figure(row, "agreement")) },
    { name: "Turned up", figure: true, about: "Held-out prompts declined without and with it held high", order: (row) => gain(row, "up"), cell: (row) => tried(row, "up") },
    { name: "Turned down", figure: true, about: "Held-out prompts declined without and with it held low", order: (row) => gain(row, "down"), cell: (row) => tried(row, "down") },
    { name: "Harmless", figure: true, about: "Held-out harmless requests declined without and with it held high", order: (row) => gain(row, "harmless"), cell: (row) => tried(row, "harmless") },
    ...present.map(([path, name, about]) => ({ name, about, figure: true, order: (/** @type {any} */ row) => figure(row, path), cell: (/** @type {any} */ row) => shown(figure(row, path)) })),
  ];
  return sortable("Candidates for the refusal feature", columns, rows, { first: 12 });
}

/**
 * @param {any} row
 * @param {"up" | "down" | "harmless"} way
 */
function gain(row, way) {
  const one = row.confirmed?.[way];
  return one ? one.steered - one.base : null;
}

/** @param {number | null} value */
const shown = (value) => (value === null ? "" : Math.abs(value) >= 0.01 || value === 0 ? number(value) : value.toExponential(1));
