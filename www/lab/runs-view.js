// What the lab has done here: runs that are done, rest or broke off, and the report of those one marks.

import { byId, h } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError, EngineError } from "../line.js";
import { fileName, saveFile } from "../save.js";
import { parseRecipe, titleOf } from "./recipes.js";
import { WorkCard } from "./work-card.js";

/** @import { Kept } from "./shelf.js" */
/** @import { LabPage } from "./lab.js" */

const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const STATES = { running: "broke off", paused: "paused", failed: "failed", done: "done" };

/** The list and the report. */
export class RunsView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Report";
    /** @type {Map<string, boolean>} what the visitor said of a run: whether it is to be in the report */
    this.said = new Map();
    this.list = h("ul", { className: "entries kept" });
    this.none = h("p", { className: "muted" }, "Nothing was found or measured for this model and this dictionary yet.");
    this.heading = h("input", { id: "report-title", type: "text", value: "What steering refusal buys, and what it costs" });
    this.notes = h("textarea", { id: "report-notes", rows: 6, spellcheck: true });
    this.trouble = h("div");
    this.save = h("button", { type: "button", className: "button primary", onclick: () => this.report() }, "Save the report");
    this.work = new WorkCard(page.runner, ["find", "measure", "sweep", "gate", "card"]);
    this.notes.addEventListener("change", () => page.runner.shelf.keep(`notes/${page.runner.place}`, { title: this.heading.value, notes: this.notes.value }));
    this.node = h(
      "section",
      { className: "lab-section" },
      h("h2", { tabIndex: -1 }, "Report"),
      h("p", {}, "All that was found and measured, with its settings, plots, tables and your notes, in one HTML file that needs nothing else. It is written on this machine and goes nowhere by itself."),
      this.work.node,
      this.none,
      this.list,
      h("div", { className: "lab-form" }, h("label", { for: "report-title" }, "Title"), this.heading, h("label", { for: "report-notes" }, "Your notes"), this.notes, h("div", { className: "actions" }, this.save)),
      this.trouble,
    );
    page.runner.addEventListener("done", () => this.draw());
    page.runner.addEventListener("failed", () => this.draw());
  }

  async changed() {
    const { shelf, place } = this.page.runner;
    const kept = place ? await shelf.thing(`notes/${place}`) : undefined;
    if (kept) {
      this.heading.value = String(kept.title);
      this.notes.value = String(kept.notes);
    }
    await this.draw();
  }

  visit() {
    this.draw();
  }

  async draw() {
    const { runner } = this.page;
    const runs = (await runner.shelf.runs()).filter((run) => run.place === runner.place && run.key !== runner.work?.run.key);
    this.none.hidden = runs.length > 0;
    this.list.replaceChildren(...runs.map((run) => this.row(run)));
    this.save.disabled = !this.page.engine() || !runs.some((run) => run.state === "done");
  }

  /** @param {Kept} run */
  row(run) {
    const { runner } = this.page;
    const title = `${titleOf(/** @type {any} */ (run.recipe))}${run.recipe.task === "card" ? ` ${run.recipe.feature}` : ""}`;
    const done = run.state === "done";
    const box = h("input", { type: "checkbox", checked: done && this.included(run), disabled: !done, "aria-label": `${title} in the report` });
    box.addEventListener("change", () => this.said.set(run.key, box.checked));
    const press = (/** @type {string} */ label, /** @type {() => void} */ onclick) => h("button", { type: "button", className: "quiet", "aria-label": `${label}: ${title}`, onclick }, label);
    return h(
      "li",
      { className: "entry" },
      h("label", { className: "check-row" }, box, h("span", {}, h("b", {}, title), h("small", {}, `${when.format(run.at)}, ${STATES[run.state]}`))),
      h(
        "div",
        { className: "actions" },
        done ? press("JSON", () => saveFile(`${run.recipe.task}.json`, "application/json", `${JSON.stringify(run.result, null, 1)}\n`)) : press("Go on", () => runner.resume(run.key).catch((error) => this.fail(error))),
        press("Recipe", () => saveFile(`${run.recipe.task}-recipe.json`, "application/json", `${JSON.stringify(parseRecipe(JSON.stringify(run.recipe)), null, 2)}\n`)),
        press("Delete", () => runner.shelf.remove(run.key).then(() => this.draw())),
      ),
    );
  }

  /**
   * Whether a run is to be in the report: a card only where somebody wants it there.
   * @param {Kept} run
   */
  included(run) {
    return this.said.get(run.key) ?? run.recipe.task !== "card";
  }

  async report() {
    this.trouble.replaceChildren();
    const { runner, settings } = this.page;
    try {
      const engine = this.page.engine();
      if (!engine) throw new EngineError("not-loaded", "No model is loaded.");
      const runs = (await runner.shelf.runs()).filter((run) => run.place === runner.place && run.state === "done" && this.included(run));
      if (!runs.length) throw new EngineError("bad-request", "Mark at least one run that is done.");
      const title = this.heading.value.trim() || "Report";
      const told = byId("status", HTMLElement).textContent ?? "";
      const html = await engine.labReport({ title, notes: this.notes.value, results: runs.map((run) => run.result).reverse(), settings: { model: runner.names.model, dictionary: runner.names.dictionary, runs: told, chat: settings.choices } });
      saveFile(`${fileName(title, "report")}.html`, "text/html", html);
    } catch (error) {
      this.fail(error);
    }
  }

  /** @param {unknown} error */
  fail(error) {
    this.trouble.replaceChildren(errorPanel(asEngineError(error), []));
  }
}
