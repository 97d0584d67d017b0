// "Train a dictionary here": of a block of the model that runs, in this tab; kept, saved, loaded.

import { bytes, h, number } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError, EngineError } from "../line.js";
import { fileName, saveFile } from "../save.js";
import { timeLeft } from "./runner.js";
import { setsText } from "./sets.js";
import { TrainCurve } from "./train-curve.js";
import { MOST_TEXT, shareOf, STAGE_WORDS, StageClock, trainOptions, usualWishes } from "./train-plan.js";

/** @import { Engine } from "../engine-client.js" */
/** @import { Entry, TrainedDictionary, TrainEvent } from "../types.d.ts" */
/** @import { LabPage } from "./lab.js" */
/** @import { Wishes } from "./train-plan.js" */

/** @type {{name: keyof Wishes, label: string, about: string, least: number}[]} */
const FIELDS = [
  { name: "layer", label: "Block", about: "counted from 0; its output is what the dictionary splits", least: 0 },
  { name: "latents", label: "Features", about: "more explain more, and take longer", least: 2 },
  { name: "k", label: "Active at once", about: "how many features a token may have", least: 1 },
  { name: "prompts", label: "Prompts", about: "of the lab\u2019s sets, to which the model replies; 0 for none", least: 0 },
  { name: "steps", label: "Steps", about: "how long it trains", least: 1 },
  { name: "rows", label: "Vectors of a step", about: "residual vectors that a step sees", least: 1 },
  { name: "seed", label: "Seed", about: "of all that is random", least: 0 },
];

/** The view. */
export class TrainView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Train";
    this.running = false;
    /** What the fields were filled for. @type {Engine | null} */
    this.engine = null;
    this.inputs = new Map(FIELDS.map(({ name, least }) => [name, h("input", { id: `train-${name}`, type: "number", min: String(least), step: "1", inputMode: "numeric" })]));
    this.files = h("input", { id: "train-files", type: "file", multiple: true, accept: ".txt,.md,.jsonl" });
    this.go = h("button", { type: "submit", className: "button primary big" }, "Train a dictionary");
    this.note = h("p", { className: "muted", role: "status" });
    this.asked = h(
      "form",
      { className: "train-form" },
      h("div", { className: "train-fields" }, ...FIELDS.map(({ name, label, about }) => h("div", {}, h("label", { for: `train-${name}` }, label), this.inputs.get(name) ?? null, h("p", { className: "muted small" }, about)))),
      h("label", { for: "train-files" }, "Text of your own ", h("small", {}, "plain text, or conversations as .jsonl: a list of messages a line. It stays in this tab.")),
      this.files,
      h("div", { className: "actions" }, this.go, this.note),
    );
    this.asked.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.bar = h("progress", { max: 1, "aria-label": "How far the training is" });
    this.text = h("p", { className: "muted" });
    this.said = h("p", { className: "sr-only", role: "status" });
    this.curve = new TrainCurve();
    this.keep = h("button", { type: "button", className: "button", onclick: () => this.finish() }, "Stop and keep");
    this.cancel = h("button", { type: "button", className: "button", onclick: () => this.abandon() }, "Cancel");
    this.card = h(
      "section",
      { className: "loading-card lab-work", "aria-label": "Training", hidden: true },
      h("h2", {}, "Training a dictionary"),
      this.bar,
      this.text,
      this.curve.node,
      h("p", { className: "muted" }, "You can chat meanwhile: the training waits for each answer. Closing the tab ends it."),
      h("div", { className: "actions" }, this.keep, this.cancel),
    );
    this.trouble = h("div");
    this.made = h("div");
    this.node = h(
      "section",
      { className: "lab-section" },
      h("h2", { tabIndex: -1 }, "Train a dictionary here"),
      h("p", {}, "A dictionary splits what a block of the model computes into features, each with a direction of its own. No dictionary fits this model, or you want another? The model writes replies to prompts, its residual stream is read at a block, and a sparse autoencoder learns to rebuild it from a few features at a time: all of it in this tab, on your own machine."),
      this.said,
      this.asked,
      this.trouble,
      this.card,
      this.made,
    );
    page.runner.addEventListener("change", () => this.draw());
    this.draw();
  }

  changed() {
    const engine = this.page.engine();
    if (engine && engine !== this.engine) {
      this.engine = engine;
      for (const [name, value] of Object.entries(usualWishes(engine.info))) {
        const input = this.inputs.get(/** @type {keyof Wishes} */ (name));
        if (input) input.value = String(value);
      }
      const layer = this.inputs.get("layer");
      if (layer) layer.max = String(engine.info.model.layers - 1);
    }
    this.draw();
  }

  draw() {
    const { runner } = this.page;
    const engine = this.page.engine();
    this.go.disabled = !engine || this.running || runner.running;
    this.note.textContent = !engine ? "The model is not there yet: the chat shows how far it is." : runner.running ? "The lab is at something else just now." : "";
    this.asked.hidden = this.running;
    this.card.hidden = !this.running;
  }

  /** @returns {Wishes} */
  wishes() {
    const read = FIELDS.map(({ name, label, least }) => {
      const value = Number(this.inputs.get(name)?.value);
      if (!Number.isSafeInteger(value) || value < least) throw new EngineError("bad-request", `\u201c${label}\u201d must be a whole number from ${least} on.`);
      return [name, value];
    });
    return Object.fromEntries(read);
  }

  async run() {
    const { page } = this;
    const engine = page.engine();
    if (!engine || this.running) return;
    this.trouble.replaceChildren();
    this.made.replaceChildren();
    const clock = new StageClock();
    try {
      const wishes = this.wishes();
      const name = page.sets() === "nano" ? "nano" : "real";
      const files = [...(this.files.files ?? [])];
      if (files.reduce((sum, file) => sum + file.size, 0) > MOST_TEXT) throw new EngineError("bad-request", `More than ${bytes(MOST_TEXT)} of text are not taken.`);
      const own = await Promise.all(files.map(async (file) => ({ name: file.name, text: await file.text() })));
      const sets = wishes.prompts ? await setsText(name, page.runner.shelf) : null;
      const options = trainOptions(wishes, name, sets, own);
      this.running = true;
      this.keep.disabled = true;
      this.cancel.disabled = false;
      this.curve.clear(wishes.steps);
      this.bar.removeAttribute("value");
      this.text.textContent = "Making room on the GPU";
      this.draw();
      const trained = await engine.trainDictionary({ ...options, how: `Trained in the page, on ${engine.info.adapter.name}.`, onEvent: (event) => this.hear(event, clock) });
      this.show(trained);
      this.said.textContent = "The dictionary is trained.";
    } catch (error) {
      const told = asEngineError(error);
      if (told.code !== "cancelled" || page.engine() !== engine) this.trouble.replaceChildren(errorPanel(told, []));
    } finally {
      this.running = false;
      this.draw();
    }
  }

  /**
   * @param {TrainEvent} event
   * @param {StageClock} clock
   */
  hear(event, clock) {
    const words = STAGE_WORDS[event.stage];
    const left = timeLeft(clock.left(event, Date.now()));
    const count = event.total > 1 ? `, ${number(event.done)} of ${number(event.total)}` : "";
    this.bar.value = shareOf(event);
    this.text.textContent = `${words}${count}${left ? `; ${left} of it` : ""}`;
    if (this.said.textContent !== words) this.said.textContent = words;
    if (event.stage !== "training") return;
    this.keep.disabled = false;
    this.curve.add(event.done, event.unexplained);
  }

  finish() {
    this.keep.disabled = true;
    this.text.textContent = "Ending the step under way\u2026";
    this.engine?.finishTraining().catch(() => {});
  }

  abandon() {
    this.keep.disabled = this.cancel.disabled = true;
    this.text.textContent = "Ending the step under way\u2026";
    this.engine?.cancelLab().catch(() => {});
  }

  /** @param {TrainedDictionary} trained */
  show(trained) {
    const { trained: here } = this.page;
    const { hook, fvu, l0, lossRecovered, seconds, files, figures, archive } = trained;
    /** @type {Entry | null} */
    let kept = null;
    const name = h("input", { id: "train-called", type: "text", maxLength: 40, value: `${fileName(here.model(), "model")}-${new Date().toISOString().slice(0, 16).replace("T", "-").replace(":", "")}` });
    const said = h("p", { className: "muted", role: "status" });
    const trouble = h("div");
    const guarded = (/** @type {() => Promise<void>} */ action) => async () => {
      trouble.replaceChildren();
      try {
        await action();
      } catch (error) {
        trouble.replaceChildren(errorPanel(asEngineError(error), []));
      }
    };
    const keep = h("button", { type: "button", className: "button" }, "Keep on this disk");
    keep.addEventListener(
      "click",
      guarded(async () => {
        kept = await here.keep(trained, name.value);
        keep.disabled = name.disabled = true;
        said.textContent = "It is kept: \u201cOther model\u2026\u201d in the chat lists it with the dictionaries, also without a network.";
      }),
    );
    const use = h("button", { type: "button", className: "button primary", onclick: guarded(() => here.load(trained, name.value, kept)) }, "Use it now");
    const save = h("button", { type: "button", className: "button", onclick: () => saveFile(`${fileName(name.value, "dictionary")}.zip`, "application/zip", new Blob([/** @type {BlobPart} */ (archive)])) }, `Save as a file, ${bytes(archive.length)}`);
    const card = files.find((file) => file.name === "README.md");
    this.made.replaceChildren(
      h(
        "section",
        { className: "lab-hero", "aria-label": "What was trained" },
        h("h2", {}, `It explains ${Math.round(100 * (1 - fvu))}% of ${hook}`),
        h("p", {}, `With ${l0.toFixed(1)} active features a token, on sequences that it was not trained on; put into the model in place of what it rebuilds, it keeps ${Math.round(100 * Math.max(0, lossRecovered))}% of the loss. It took ${Math.round(seconds)} s. What its features mean is not known: load it, then let \u201cFind\u201d look for one that makes the model decline.`),
        h("div", { className: "train-name" }, h("label", { for: "train-called" }, "Its name"), name),
        h("div", { className: "actions" }, use, keep, save),
        said,
        trouble,
        this.curve.node.cloneNode(true),
        h("details", {}, h("summary", {}, "Its card"), h("ul", {}, ...figures.map((line) => h("li", {}, line))), h("pre", { className: "train-card", tabIndex: 0 }, card ? new TextDecoder().decode(card.bytes) : "")),
      ),
    );
  }
}
