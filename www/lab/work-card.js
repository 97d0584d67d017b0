// How far the lab is: what it does, how long it still takes, pause, cancel, go on.

import { h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { TASKS, titleOf } from "./recipes.js";
import { timeLeft, wholeOf } from "./runner.js";

/** @import { Runner } from "./runner.js" */
/** @import { Kept } from "./shelf.js" */

/** @type {Record<string, string>} */
const STAGES = {
  reading: "Reading the prompts",
  search: "Looking for candidates",
  confirm: "Trying the candidates out",
  strength: "Looking for the strength",
  gate: "Fitting the gate",
  card: "Making the card",
  measure: "Measuring",
};

/** @param {string} stage */
export const stageWords = (stage) => STAGES[stage] ?? stage;

/** One card for whatever runs or rests. */
export class WorkCard {
  /**
   * @param {Runner} runner
   * @param {string[]} tasks whose runs it is about
   */
  constructor(runner, tasks) {
    this.runner = runner;
    this.tasks = tasks;
    this.bar = h("progress", { max: 1, "aria-label": "The lab's progress" });
    this.text = h("p", { className: "muted" });
    this.said = h("p", { className: "sr-only", role: "status" });
    this.title = h("h2", {});
    this.pause = h("button", { type: "button", className: "button", onclick: () => runner.pause() }, "Pause");
    this.cancel = h("button", { type: "button", className: "button", onclick: () => runner.cancel() }, "Cancel");
    this.card = h(
      "section",
      { className: "loading-card lab-work", "aria-label": "At work" },
      this.title,
      this.bar,
      this.text,
      h("p", { className: "muted" }, "You can chat meanwhile: the lab waits for each answer. If the tab is closed, it goes on at the next visit."),
      h("div", { className: "actions" }, this.pause, this.cancel),
    );
    this.rest = h("div");
    this.node = h("div", { className: "lab-work-holder" }, this.said, this.card, this.rest);
    runner.addEventListener("change", () => this.draw());
    this.draw();
  }

  /** Whether it shows a run that is under way. */
  get busy() {
    const { work } = this.runner;
    return work !== null && this.tasks.includes(work.run.recipe.task);
  }

  draw() {
    const { work, error } = this.runner;
    const own = this.busy;
    this.card.hidden = !own;
    if (own && work) {
      const { progress, asked, run } = work;
      const doing = TASKS[run.recipe.task]?.doing ?? "At work";
      const stage = progress ? stageWords(progress.stage) : "Making room on the GPU";
      this.title.textContent = doing;
      const { share, part } = wholeOf(run.recipe.task, progress);
      if (share !== null) this.bar.value = share;
      else this.bar.removeAttribute("value");
      const left = timeLeft(progress?.secondsLeft ?? null);
      const count = progress && progress.total > 1 ? `, ${number(progress.done)} of ${number(progress.total)}` : "";
      const rest = [part, left && part ? `${left} of it` : left].filter(Boolean).join(", ");
      this.text.textContent = asked ? "Ending the step under way\u2026" : `${stage}${count}${rest ? `; ${rest}` : ""}`;
      this.pause.disabled = this.cancel.disabled = asked !== null;
      if (this.said.textContent !== stage) this.said.textContent = stage;
    }
    if (own || !error) this.rest.replaceChildren();
    else if (!this.rest.firstChild) this.rest.replaceChildren(errorPanel(error, []));
  }

  /**
   * The runs of these tasks with this model and dictionary that are kept.
   * @returns {Promise<{ done: Kept | undefined, rest: Kept | undefined }>} the last one that is done, and one that broke off
   */
  async kept() {
    const { runner } = this;
    const runs = (await runner.shelf.runs()).filter((run) => run.place === runner.place && this.tasks.includes(run.recipe.task));
    const rest = runs.find((run) => run.state === "paused" || run.state === "failed");
    return { done: runs.find((run) => run.state === "done"), rest };
  }

  /**
   * A run that rests, with what can be done about it.
   * @param {Kept} run
   * @param {() => void} changed when it is gone
   * @returns {HTMLElement}
   */
  resting(run, changed) {
    const { runner } = this;
    const goOn = h("button", { type: "button", className: "button primary", disabled: runner.running, onclick: () => runner.resume(run.key).catch((error) => console.error(error)) }, "Go on");
    const forget = h("button", { type: "button", className: "button", onclick: () => runner.shelf.remove(run.key).then(changed) }, "Forget it");
    const why = run.state === "paused" ? "Paused. What was measured so far is kept." : "It broke off. What was measured so far is kept.";
    return h("section", { className: "loading-card" }, h("h2", {}, titleOf(/** @type {any} */ (run.recipe))), h("p", { className: "muted" }, why), h("div", { className: "actions" }, goOn, forget));
  }
}
