// Runs one recipe at a time, keeps its journal as it grows, and takes it up again: after a pause, after
// the engine was lost, after the tab was closed.

import { asEngineError, EngineError } from "../line.js";
import { canonical, digest, TASKS } from "./recipes.js";
import { setsText } from "./sets.js";

/** @import { Engine } from "../engine-client.js" */
/** @import { Recipe } from "./recipes.js" */
/** @import { Kept, Shelf } from "./shelf.js" */

/**
 * What runs or rests.
 * @typedef {object} Work
 * @property {Kept} run
 * @property {string | undefined} sets the text of an own set file
 * @property {{stage: string, done: number, total: number, secondsLeft: number | null} | null} progress
 * @property {"pause" | "cancel" | null} asked what the visitor wants of it
 */

/** Errors after which the recipe is as good as before: a new engine goes on with it. */
const PASSING = ["device-lost", "crashed", "out-of-memory", "cancelled", "silent"];

/** Events: "change" whenever something is to be drawn, "done" with the run, "failed" with the error. */
export class Runner extends EventTarget {
  /** @param {Shelf} shelf */
  constructor(shelf) {
    super();
    this.shelf = shelf;
    /** @type {Engine | null} */
    this.engine = null;
    this.place = "";
    this.names = { model: "", dictionary: "" };
    /** @type {Work | null} */
    this.work = null;
    /** Why the last run ended early. */
    this.error = /** @type {EngineError | null} */ (null);
    /** @type {() => void} gives the run's lock back */
    this.release = () => {};
  }

  get running() {
    return this.work !== null;
  }

  /**
   * An engine is there.
   * @param {Engine} engine
   * @param {string} place a digest of its model and dictionary
   * @param {{model: string, dictionary: string}} names
   */
  async ready(engine, place, names) {
    this.engine = engine;
    this.place = place;
    this.names = names;
    this.changed();
    const broken = (await this.shelf.runs()).find((run) => run.place === place && run.state === "running");
    if (broken && !this.work && this.engine === engine) await this.resume(broken.key, true);
  }

  /** There is no engine any more: what ran goes on with the next one. */
  gone() {
    this.engine = null;
    this.changed();
  }

  /**
   * What was kept of this recipe on this model and dictionary.
   * @param {Recipe} recipe
   * @returns {Promise<Kept | undefined>}
   */
  async kept(recipe) {
    return this.shelf.run(await this.keyOf(recipe));
  }

  /** @param {Recipe} recipe */
  async keyOf(recipe) {
    return `${this.place}/${await digest(canonical(recipe))}`;
  }

  /**
   * Runs a recipe, or hands out its result where it was run before.
   * @param {Recipe} recipe
   * @param {string} [sets] the text of an own set file
   * @returns {Promise<Kept | null>} null when it did not come to its end
   */
  async start(recipe, sets) {
    const key = await this.keyOf(recipe);
    const old = await this.shelf.run(key);
    if (old?.state === "done") return old;
    /** @type {Kept} */
    const run = old ?? { key, place: this.place, ...this.names, recipe, at: 0, state: "running", result: null };
    if (sets !== undefined) await this.shelf.keep(`sets/${key}`, sets);
    return this.go(run, sets);
  }

  /**
   * Goes on with a run that was begun.
   * @param {string} key
   * @param {boolean} [unasked] nobody asked for it: another tab may well be at it
   * @returns {Promise<Kept | null>}
   */
  async resume(key, unasked = false) {
    const run = await this.shelf.run(key);
    if (!run || run.state === "done") return run ?? null;
    return this.go(run, await this.shelf.thing(`sets/${key}`), unasked);
  }

  /**
   * @param {Kept} run
   * @param {string | undefined} sets
   * @param {boolean} [unasked]
   * @returns {Promise<Kept | null>}
   * @private
   */
  async go(run, sets, unasked = false) {
    const { engine, shelf } = this;
    if (this.work) throw new EngineError("busy", "The lab is at work already: pause it first.");
    if (!engine) throw new EngineError("not-loaded", "No model is loaded.");
    if (run.place !== this.place) throw new EngineError("elsewhere", `This run is about ${run.model}, ${run.dictionary}: load that first.`);
    /** @type {Work} */
    const work = { run: { ...run, state: "running", at: Date.now() }, sets, progress: null, asked: null };
    this.work = work;
    this.error = null;
    this.changed();
    try {
      if (!(await this.hold(run.key))) {
        if (!unasked) throw new EngineError("busy", "Another tab is at this very run.");
        this.end(work);
        return null;
      }
      await shelf.save(work.run);
      const journal = await shelf.journal(run.key);
      /** @type {Promise<void>} */
      let written = Promise.resolve();
      const result = await engine.lab({
        recipe: run.recipe,
        sets: sets ?? (await setsText(String(run.recipe.sets?.name ?? "own"), shelf)),
        ...(journal ? { journal } : {}),
        onEvent: (event) => {
          if (event.type === "line" && work.asked === "cancel") return;
          if (event.type === "line") written = written.then(() => shelf.note(run.key, event.line)).catch((error) => console.warn(`The journal is not kept: ${error}`));
          else {
            work.progress = event;
            this.changed();
          }
        },
      });
      await written;
      Object.assign(work.run, { state: "done", result, at: Date.now() });
      await shelf.save(work.run);
      // The result is all that is needed from here on.
      await shelf.dropJournal(run.key);
      await shelf.keep(`sets/${run.key}`, undefined);
      this.end(work);
      this.dispatchEvent(new CustomEvent("done", { detail: work.run }));
      return work.run;
    } catch (error) {
      await this.broke(work, asEngineError(error));
      return null;
    }
  }

  /**
   * @param {Work} work
   * @param {EngineError} error
   * @private
   */
  async broke(work, error) {
    const { run, asked } = work;
    const lost = !asked && PASSING.includes(error.code);
    // What it was taken up from is no good: it begins anew.
    if (error.code === "bad-journal") await this.shelf.dropJournal(run.key).catch(() => {});
    if (error.code === "busy") this.error = error;
    else if (asked === "cancel") await this.shelf.remove(run.key);
    else {
      // Lost with the engine: the next one takes it up by itself.
      await this.shelf.save({ ...run, state: asked === "pause" ? "paused" : lost ? "running" : "failed" }).catch(() => {});
      if (!asked && !lost) this.error = error;
    }
    this.end(work);
    if (this.error) this.dispatchEvent(new CustomEvent("failed", { detail: this.error }));
  }

  /**
   * @param {Work} work
   * @private
   */
  end(work) {
    if (this.work === work) this.work = null;
    this.release();
    this.changed();
  }

  /** Ends the step under way, and keeps what was measured. */
  async pause() {
    await this.ask("pause");
  }

  /** Ends the step under way, and forgets the run. */
  async cancel() {
    await this.ask("cancel");
  }

  /**
   * @param {"pause" | "cancel"} what
   * @private
   */
  async ask(what) {
    if (!this.work || this.work.asked) return;
    this.work.asked = what;
    this.changed();
    // The tab may be closed before the step ends.
    const { run } = this.work;
    await (what === "pause" ? this.shelf.save({ ...run, state: "paused" }) : this.shelf.remove(run.key)).catch(() => {});
    await this.engine?.cancelLab().catch(() => {});
  }

  /**
   * One tab at a time is at a run.
   * @param {string} key
   * @returns {Promise<boolean>}
   * @private
   */
  async hold(key) {
    const { locks } = globalThis.navigator ?? {};
    if (!locks) return true;
    const held = new Promise((resolve) => (this.release = () => resolve(undefined)));
    // The page that was here before a reload may take a moment to let go of it.
    return new Promise((resolve) => {
      locks.request(`phi3-steer lab ${key}`, { signal: AbortSignal.timeout(2000) }, () => {
        resolve(true);
        return held;
      }).catch(() => resolve(false));
    });
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * How far a task is as a whole, its stages taken as equally long.
 * @param {string} task
 * @param {{stage: string, done: number, total: number} | null} progress
 * @returns {{share: number | null, part: string}} share: 0 to 1, null while nothing is known; part: "part 2 of 4", "" for tasks of one stage
 */
export function wholeOf(task, progress) {
  if (!progress) return { share: null, part: "" };
  const here = progress.total > 0 ? progress.done / progress.total : null;
  const stages = TASKS[task]?.stages ?? [];
  const at = stages.indexOf(progress.stage);
  if (at < 0) return { share: here, part: "" };
  return { share: (at + (here ?? 0)) / stages.length, part: `part ${at + 1} of ${stages.length}` };
}

/**
 * Seconds in words: "about 2 minutes left".
 * @param {number | null} seconds
 */
export function timeLeft(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "";
  if (seconds < 10) return "a few seconds left";
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} seconds left`;
  return `about ${Math.round(seconds / 60)} minutes left`;
}
