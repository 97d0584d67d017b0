// What runs, in a line and in full, and how far loading has come.

import { byId, bytes, h, number, short } from "./dom.js";
import { isReported } from "./dose.js";
import { errorPanel } from "./errors.js";
import { EngineError } from "./line.js";
import { showWelcome } from "./welcome.js";

/** @import { Info, LoadProgress, Report, SelfTest } from "./types.d.ts" */
/** @import { Settings } from "./settings.js" */

const STAGES = {
  config: "Reading the configuration",
  tokenizer: "Reading the tokenizer",
  weights: "Loading the weights",
  dictionary: "Loading the dictionary",
  warmup: "Warming up the GPU",
};

const WAITS = {
  silent: "Its worker has said nothing for several seconds.",
  standing: "Its worker lives, but nothing has come of the load for 45 seconds.",
  "not-free": "It still computes for the answer that was stopped. Messages wait until it is done.",
};

/** The status line in the header, the details in the panel, and the loading card. */
export class StatusView {
  /**
   * @param {Settings} settings
   * @param {{cancel: () => void}} actions
   */
  constructor(settings, actions) {
    this.settings = settings;
    this.actions = actions;
    this.line = byId("status", HTMLElement);
    this.details = byId("what-runs", HTMLElement);
    this.stage = byId("stage", HTMLElement);
    /** @type {Info | null} */
    this.info = null;
    this.name = "";
    this.dictionaries = 0;
    /**
     * Whether the dictionary fits, null while nobody has looked.
     * @type {SelfTest | "checking" | null}
     */
    this.fit = null;
    this.bar = h("progress", { max: 1, "aria-label": "Loading the model" });
    this.barText = h("p", { className: "muted" });
    /** What is said of a load that does not get on. */
    this.word = h("div");
    this.announced = "";
    settings.addEventListener("change", () => this.describe());
  }

  /**
   * @param {LoadProgress | null} progress
   * @param {boolean} [again] the engine was lost and is started anew
   */
  loading(progress, again = false) {
    if (!this.stage.contains(this.bar)) {
      this.bar.removeAttribute("value");
      this.barText.textContent = "Starting the engine";
      this.word.replaceChildren();
      this.stage.replaceChildren(
        h(
          "section",
          { className: "loading-card", "aria-label": "Loading" },
          h("h2", {}, again ? "The engine stopped and is starting again" : "Loading the model"),
          again ? h("p", { className: "muted" }, "The conversation stays and goes on where it broke off.") : null,
          this.bar,
          this.barText,
          this.word,
          h("div", { className: "actions" }, h("button", { type: "button", className: "button", onclick: this.actions.cancel }, "Cancel")),
        ),
      );
      if (again) this.stage.scrollIntoView({ block: "nearest" });
      this.info = null;
      this.line.textContent = "Loading the model\u2026";
      this.details.replaceChildren();
      showWelcome(null);
    }
    if (!progress) {
      this.word.replaceChildren();
      return;
    }
    const known = progress.total > 0;
    if (known) this.bar.value = progress.loaded / progress.total;
    else this.bar.removeAttribute("value");
    const amount = known && progress.stage !== "warmup" ? `, ${bytes(progress.loaded)} of ${bytes(progress.total)}` : "";
    this.barText.textContent = `${STAGES[progress.stage] ?? progress.stage}${amount}`;
  }

  /**
   * @param {EngineError} error
   * @param {{label: string, run: () => void}[]} ways out of it
   */
  failed(error, ways) {
    this.info = null;
    this.line.textContent = "No model is running.";
    this.details.replaceChildren();
    showWelcome(null);
    this.stage.replaceChildren(errorPanel(error, ways));
  }

  /**
   * @param {EngineError} error the engine died in the middle of a conversation
   * @param {{label: string, run: () => void}[]} ways out of it
   */
  lost(error, ways) {
    this.failed(error, ways);
    this.line.textContent = "The engine stopped.";
    this.stage.scrollIntoView({ block: "nearest" });
  }

  /**
   * @param {Info} info
   * @param {string} name of the model for people
   * @param {number} dictionaries that are known for it
   */
  ready(info, name, dictionaries) {
    this.info = info;
    this.name = name;
    this.dictionaries = dictionaries;
    this.fit = null;
    this.stage.replaceChildren();
    this.describe();
  }

  /** Where something is said about the engine that runs, or loads. */
  get aside() {
    return this.stage.contains(this.word) ? this.word : this.stage;
  }

  /**
   * Says what is waited for, and that waiting is not all that can be done.
   * @param {keyof typeof WAITS} code
   * @param {() => void} restart
   */
  waits(code, restart) {
    const panel = errorPanel(new EngineError(code, WAITS[code]), [{ label: "Restart the engine", run: restart }]);
    this.aside.replaceChildren(panel);
    panel.scrollIntoView({ block: "nearest" });
  }

  /** What was said about the engine that runs, or loads, no longer holds. */
  clear() {
    this.aside.replaceChildren();
  }

  /** @param {SelfTest | "checking" | null} fit of the dictionary, null while nobody has looked */
  showFit(fit) {
    this.fit = fit;
    this.describe();
  }

  describe() {
    const { info, fit } = this;
    if (!info) return;
    const { choices, report } = this.settings;
    showWelcome({ dictionary: info.sae !== undefined, report, fitting: this.dictionaries });
    const { model, adapter, sae } = info;
    const precision = precisionOf(model.quant);
    const backend = adapter.backend === "BrowserWebGpu" ? "WebGPU" : adapter.backend;
    const where = adapter.cpu ? `${adapter.name} (software, slow)` : adapter.name;
    const test = fit === "checking" ? null : fit;
    const { set, direction } = this.settings.setting();
    const steered = direction ? "a direction" : set ? `features ${set.map(({ feature }) => feature).join(", ")}` : `feature ${choices.feature}`;
    const misfit = sae && test && test.verdict.kind !== "fits" ? " (does not fit)" : "";
    this.line.textContent = [
      `${this.name}, ${precision}`,
      where,
      sae ? `dictionary after block ${blockOf(sae.hook)}${misfit}, ${steered}` : "no dictionary",
    ].join(" \u00b7 ");
    this.line.title = this.line.textContent;
    const features = [adapter.f16 && "f16", adapter.subgroups && "subgroups"].filter(Boolean).join(", ");
    const found = report && isReported(choices, report);
    this.details.replaceChildren(
      ...row("Model", `${this.name}: ${short(model.parameters)} parameters, ${model.layers} layers of width ${model.hidden}, ${precision}, context ${number(model.context)}`),
      ...row("Runs on", `${where}, ${backend}${features ? `, ${features}` : ""}; ${bytes(model.gpuBytes)} on the GPU. Nothing you type leaves this page.`),
      ...(adapter.leftOut ? row("Left out", `${adapter.leftOut[0]?.toUpperCase()}${adapter.leftOut.slice(1)}.`) : []),
      ...row("Dictionary", sae ? `${number(sae.features)} features at ${sae.hook} (${sae.kind}, ${sae.activations}, ${precisionOf([sae.stored])})` : "none loaded: there is nothing to steer with"),
      ...(sae && report?.survival ? row("Quantised", survivalWords(report)) : []),
      ...(sae ? row("Does it fit?", test ? test.sentence : fit === "checking" ? "Checking\u2026" : "Not checked yet.") : []),
      ...(sae ? row("Steered", `${steered}: ${found ? "this model declines more when that is turned up" : "nobody has measured what it does"}`) : []),
    );
  }
}

/**
 * @param {string[]} formats of the matrices, such as "q4m" and "q6"
 */
function precisionOf(formats) {
  if (formats.every((format) => format === "f32")) return "unquantised";
  const bits = formats.map((format) => Number(/\d+/.exec(format)?.[0] ?? 32));
  const [least, most] = [Math.min(...bits), Math.max(...bits)];
  return least === most ? `${least}-bit` : `${least}- to ${most}-bit`;
}

/** @param {string} hook */
const blockOf = (hook) => /(\d+)/.exec(hook)?.[1] ?? hook;

/**
 * @param {string} name
 * @param {string} text
 */
const row = (name, text) => [h("dt", {}, name), h("dd", {}, text)];

/** The least correlation of a feature that is what it was. */
const SURVIVES = 0.8;

/**
 * What became of the report's feature when the model was quantised.
 * @param {Report} report
 */
function survivalWords({ feature, survival }) {
  const { correlation, tokens } = survival ?? { correlation: 0, tokens: 0 };
  const told = `the activations of feature ${feature} correlate with ${correlation.toFixed(2)} with those in the unquantised model, over ${number(tokens)} tokens`;
  return correlation < SURVIVES ? `It is no longer what it was: ${told}.` : `It is what it was: ${told}.`;
}
