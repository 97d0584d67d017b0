// "Talk to a real model": on the first screen the models beyond the toy, from small to large, one click each.

import { describe } from "./downloads.js";
import { byId, bytes, h } from "./dom.js";
import { adviceOn } from "./errors.js";
import { guess, lookAt, machineWords } from "./machine.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Choice } from "./choice.js" */
/** @import { Downloads } from "./downloads.js" */
/** @import { Machine } from "./machine.js" */
/** @import { Entry } from "./types.d.ts" */

/** @typedef {{model: Entry, dictionary: Entry | null}} Rung */

/**
 * @typedef {object} LadderActions
 * @property {(choice: Choice) => void} load
 * @property {(choice: Choice) => void} show opens the chooser with it marked
 * @property {() => boolean} free whether nobody minds when another model takes the place of the one that runs
 * @property {(model: Entry) => void} offer tells that a model has come, where it is not loaded at once
 */

/** The steps, each with what of it is here and what is on its way. */
export class Ladder {
  /**
   * @param {Catalogue} catalogue
   * @param {Downloads} downloads
   * @param {LadderActions} actions
   */
  constructor(catalogue, downloads, actions) {
    this.catalogue = catalogue;
    this.downloads = downloads;
    this.actions = actions;
    this.node = byId("ladder", HTMLElement);
    this.list = byId("rungs", HTMLElement);
    this.told = byId("ladder-machine", HTMLElement);
    /** @type {Map<Entry, Step>} */
    this.steps = new Map();
    /** @type {Machine | null} */
    this.machine = null;
    this.looked = false;
    /** What runs or is being loaded, by id. */
    this.runs = "";
    this.ready = false;
    /** The step that is loaded as soon as it is here. @type {Rung | null} */
    this.wanted = null;
    downloads.addEventListener("change", () => this.draw());
  }

  /**
   * @param {Entry | null} model what runs now
   * @param {boolean} ready whether it does already
   */
  async follow(model, ready) {
    this.runs = model?.sameAs ?? model?.id ?? "";
    this.ready = ready;
    this.draw();
    if (!ready || this.looked || !this.catalogue.ladder.length) return;
    if (!this.downloads.listing) this.downloads.refresh();
    // A second look is no better than the first.
    this.looked = true;
    this.machine = await lookAt();
    this.told.textContent = machineWords(this.machine);
    this.draw();
  }

  /**
   * Whether it is the ladder that loads what was just downloaded.
   * @param {Entry} entry
   */
  takes(entry) {
    return this.wanted !== null && [this.wanted.model, this.wanted.dictionary].includes(entry);
  }

  /**
   * @param {Entry} model
   * @returns {Choice} with the dictionary that the ladder has for it
   */
  choice(model) {
    const rung = this.catalogue.rungs().find((one) => one.model === model);
    return { model, sae: rung?.dictionary ?? "auto", saeHook: "", keep: true };
  }

  /** @param {Rung} rung */
  parts({ model, dictionary }) {
    return dictionary ? [model, dictionary] : [model];
  }

  /**
   * Downloads what is missing of a step, then loads it.
   * @param {Rung} rung
   */
  async climb(rung) {
    this.wanted = rung;
    for (const part of this.parts(rung)) {
      if (this.downloads.item(part)?.state === "whole") continue;
      if (!(await this.downloads.run(part)) || this.wanted !== rung) return;
    }
    this.wanted = null;
    if (this.actions.free()) this.actions.load(this.choice(rung.model));
    else this.actions.offer(rung.model);
  }

  draw() {
    const rungs = this.catalogue.rungs();
    this.node.hidden = !rungs.length;
    const nodes = rungs.map((rung) => {
      let step = this.steps.get(rung.model);
      if (!step) this.steps.set(rung.model, (step = new Step(rung, this)));
      step.update();
      return step.node;
    });
    if (nodes.length !== this.list.childElementCount || nodes.some((node, index) => this.list.children[index] !== node)) this.list.replaceChildren(...nodes);
  }
}

/** One step; it keeps its nodes, so that focus stays where it is. */
class Step {
  /**
   * @param {Rung} rung
   * @param {Ladder} ladder
   */
  constructor(rung, ladder) {
    this.rung = rung;
    this.ladder = ladder;
    const { model, dictionary } = rung;
    this.guess = h("small", {});
    this.state = h("span", { className: "entry-state", role: "status" });
    this.bar = h("progress", { max: 1, hidden: true, "aria-label": `Download of ${model.name}` });
    this.trouble = h("div", { className: "entry-trouble", role: "alert" });
    this.button = h("button", { type: "button", className: "button", onclick: () => this.press() });
    this.choose = h("button", { type: "button", className: "quiet", onclick: () => ladder.actions.show(ladder.choice(model)) }, "Choose\u2026");
    this.choose.setAttribute("aria-label", `Choose what is loaded with ${model.name}`);
    this.node = h(
      "li",
      { className: "rung" },
      h(
        "div",
        { className: "rung-text" },
        h("b", {}, model.name),
        h("small", {}, facts(rung)),
        ...[model.refusals, dictionary ? `With the dictionary ${dictionary.name}${dictionary.layer ? `, layer ${dictionary.layer}` : ""}.` : ""].filter(Boolean).map((text) => h("small", {}, /** @type {string} */ (text))),
        this.guess,
        this.state,
      ),
      h("div", { className: "rung-buttons" }, this.button, this.choose),
      this.bar,
      this.trouble,
    );
  }

  /** The part that is on its way, if one is. */
  running() {
    return this.ladder.parts(this.rung).find((part) => this.ladder.downloads.job(part)?.running);
  }

  press() {
    const { ladder, rung } = this;
    const running = this.running();
    if (running) {
      ladder.wanted = null;
      ladder.downloads.pause(running);
    } else if (ladder.runs !== (rung.model.sameAs ?? rung.model.id)) ladder.climb(rung);
  }

  update() {
    const { ladder, rung } = this;
    const { downloads, machine } = ladder;
    const parts = ladder.parts(rung);
    const here = (/** @type {Entry} */ part) => downloads.item(part)?.loaded ?? 0;
    const missing = parts.filter((part) => downloads.item(part)?.state !== "whole");
    const left = missing.reduce((sum, part) => sum + Math.max(0, (downloads.item(part)?.total ?? part.bytes ?? 0) - here(part)), 0);
    const running = this.running();
    const job = running && downloads.job(running);
    const begun = parts.some((part) => here(part) > 0);
    const failed = parts.map((part) => downloads.job(part)?.error).find(Boolean);
    const runs = ladder.runs === (rung.model.sameAs ?? rung.model.id);

    const label = running ? "Pause" : runs ? (ladder.ready ? "It runs now" : "Loading\u2026") : missing.length === 0 ? "Talk to it" : begun ? `Resume: ${bytes(left)} left` : `Download ${bytes(left)}`;
    if (this.button.textContent !== label) this.button.textContent = label;
    this.button.setAttribute("aria-label", `${label}: ${rung.model.name}`);
    this.button.disabled = runs && !running;
    this.state.textContent = running && job ? describe(job, running.bytes) : missing.length && begun ? "Paused. What has come stays on this disk." : !missing.length ? "On this disk." : "";
    this.bar.hidden = !running;
    const total = job?.progress?.total ?? running?.bytes;
    if (job?.progress && total) this.bar.value = Math.min(1, job.progress.loaded / total);
    else this.bar.removeAttribute("value");
    const memory = parts.reduce((sum, part) => sum + (part.memory ?? 0), 0);
    const guessed = machine && memory ? guess({ memory, download: left }, machine) : null;
    this.guess.textContent = guessed?.words ?? "";
    this.guess.className = guessed?.tight ? "entry-warning" : "";
    const told = failed ? `${adviceOn(failed).title}. ${failed.message}` : "";
    if (this.trouble.textContent !== told) this.trouble.textContent = told;
  }
}

/**
 * @param {Rung} rung
 * @returns {string} size, licence, and whether anyone here has fetched the files
 */
function facts({ model, dictionary }) {
  const size = (/** @type {Entry} */ one) => `${one.sha256 || one.beside ? "" : "about "}${bytes(one.bytes ?? 0)}`;
  const licences = [...new Set([model.licence, dictionary?.licence].filter(Boolean))].join(" and ");
  return [
    dictionary ? `${size(model)}, and ${size(dictionary)} of dictionary` : size(model),
    `licence ${licences}`,
    model.beside ? "served with this page" : model.sha256 ? "the file that was tested here" : "unverified: nobody here has fetched it",
  ].join(" \u00b7 ");
}
