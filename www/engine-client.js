// The engine as the page sees it: the same API as the wasm `Engine`, with the work done in a
// dedicated worker so that the page never blocks.
//
// The messages of line.js:
//   method       args                     events        ok
//   load         [LoadOptions, less       LoadProgress  Info
//                 its functions]
//   chat         [ChatOptions]            ChatEvent     null
//   setSteering  [lane, Intervention[]]   none          the setting's number
//   topFeatures  [text, hook, k]          none          TokenFeatures
//   testSae      []                       none          SelfTest
//   measureSpeed [SpeedOptions, less      SpeedFigure   null
//                 its function]
//   memory       []                       none          Memory
//   lab          [LabOptions, less        LabEvent      LabResult
//                 its function]
//   cancelLab    []                       none          null
//   trainDictionary [TrainOptions, less    TrainEvent   TrainedDictionary
//                 its function]
//   finishTraining []                      none         null
//   labPlots     [LabResult[], options]   none          LabPlot[]
//   labReport    [LabReportInput]         none          string
//   labTable     [LabResult, format]      none          string
//   labOverrule  [LabResult, LabVerdict[]] none         LabResult
//   operators    []                       none          Operator[]
//   fork         [lanes]                  none          its number, and Info
//   ofFork       [number, method,         those of      what the method gives
//                 ...its arguments]       the method
//   setGate      [lane, Gate | null]      none          null
//   addDirection [hook, name,             none          null
//                 Float32Array]
//   cancel       []                       none          null
//   ping         []                       none          null
//   dispose      []                       none          null
// It is ready once its wasm runs.

import { asEngineError, Branch, EngineError, Line } from "./line.js";
import { OpenAI } from "./openai.js";

/** @import { Engine as Declared } from "../types/engine-client.d.ts" */
/** @import { ChatEvent, ChatOptions, Gate, Info, Intervention, LabOptions, LabPlot, LabReportInput, LabResult, LabVerdict, LoadOptions, Memory, OperatorInfo, SelfTest, Source, SpeedOptions, TokenFeatures, TrainOptions, TrainedDictionary } from "./types.d.ts" */

/**
 * An address as the page, or the worker that asks, means it: the engine's worker, which is elsewhere, would
 * read it as its own.
 * @param {Source} source
 * @returns {Source}
 */
function absolute(source) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  return typeof source === "string" && URL.canParse(source, base) ? new URL(source, base).href : source;
}

export { EngineError };

/** Signs of life of an engine's worker. */
class Pulse {
  /** @param {Line | Branch} line */
  constructor(line) {
    /** @protected */
    this.line = line;
  }

  /** How many messages the worker has sent: it lives as long as this grows. */
  get heard() {
    return this.line.heard;
  }

  /** Done when the worker has answered, which a busy or dead one does not. */
  async ping() {
    await this.line.call("ping", []);
  }
}

/**
 * The engine in its worker; types/engine-client.d.ts has the types that ship.
 * @implements {Declared}
 */
export class Engine extends Pulse {
  /**
   * @param {Line | Branch} line
   * @param {Info} info
   */
  constructor(line, info) {
    super(line);
    /** What runs: model, adapter, dictionary. */
    this.info = info;
    /**
     * Chats that have not ended in the worker, whether or not anyone still listens.
     * @type {Set<Promise<void>>}
     * @private
     */
    this.chats = new Set();
    /** @private */
    this.ended = false;
    /**
     * What lanes were given last.
     * @type {Map<number, {interventions: Intervention[], gate: Gate | null}>}
     * @private
     */
    this.lanes = new Map();
    /**
     * @type {OpenAI | null}
     * @private
     */
    this.face = null;
    /**
     * The reason, once the engine has died by itself; it stays open when it was ended on purpose.
     * @type {Promise<EngineError>}
     */
    this.lost = new Promise((resolve) => {
      line.onClose = (error) => this.ended || resolve(error);
    });
  }

  /**
   * Starts a worker and loads a model into it.
   * @param {LoadOptions} options
   * @param {AbortSignal} [signal] ends the worker, and the load with the code "cancelled"
   * @param {(worker: Pulse) => void} [onStart] called when the worker runs, with what tells whether it lives
   * @returns {Promise<Engine>}
   */
  static async load(options, signal, onStart) {
    const { onProgress, ...plain } = options;
    const line = new Line("engine");
    const abort = () => line.close(new EngineError("cancelled", "Loading was cancelled."));
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    try {
      const places = { model: absolute(plain.model), ...(plain.sae === undefined ? {} : { sae: absolute(plain.sae) }) };
      if (onStart) line.onReady.push(() => onStart(new Pulse(line)));
      const info = await line.call("load", [{ ...plain, ...places }], onProgress);
      return new Engine(line, info);
    } catch (error) {
      line.close(asEngineError(error));
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Answers every lane's conversation; leaving the loop early cancels the run.
   * @param {ChatOptions} options
   * @returns {AsyncGenerator<ChatEvent, void, void>}
   */
  async *chat(options) {
    /** @type {ChatEvent[]} */
    let queue = [];
    let wake = () => {};
    let finished = false;
    /** @type {unknown} */
    let failure = null;
    const call = this.line
      .call("chat", [options], (event) => {
        queue.push(event);
        wake();
      })
      .catch((error) => {
        failure = error;
      })
      .finally(() => {
        finished = true;
        this.chats.delete(call);
        wake();
      });
    this.chats.add(call);
    try {
      for (;;) {
        const ready = queue;
        queue = [];
        for (const event of ready) yield event;
        if (queue.length) continue;
        if (finished) break;
        await new Promise((resolve) => {
          wake = () => resolve(null);
        });
      }
    } finally {
      if (!finished) {
        // A dead engine has nothing to cancel.
        await this.cancel().catch(() => {});
        await call;
      }
    }
    if (failure) throw failure;
  }

  /** The engine in the shape of OpenAI's chat completions. */
  get openai() {
    this.face ??= new OpenAI(this);
    return this.face;
  }

  /** Done when no chat is under way in the worker, which may be later than the end of the loop over it. */
  async settled() {
    while (this.chats.size) await Promise.all(this.chats);
  }

  /**
   * Whether the worker answers within so many milliseconds.
   * @param {number} milliseconds
   * @returns {Promise<boolean>}
   */
  async answers(milliseconds) {
    const late = new Promise((resolve) => setTimeout(() => resolve(false), milliseconds));
    return Promise.race([this.ping().then(() => true, () => false), late]);
  }

  /**
   * A second engine of the same weights in the same worker, with lanes of its own, that answers while this
   * one's conversations stay as they are. It lives as long as this one, or until it is disposed of.
   * @param {number} lanes
   * @returns {Promise<Engine>}
   */
  async fork(lanes) {
    const { number, info } = await this.line.call("fork", [lanes]);
    const fork = new Engine(new Branch(this.line, number), info);
    fork.lost = this.lost;
    return fork;
  }

  /**
   * Replaces a lane's interventions; it takes effect at the next token.
   * @param {number} lane
   * @param {Intervention[]} interventions
   * @returns {Promise<number>} the setting's number, by which token events name it
   */
  async setSteering(lane, interventions) {
    const setting = await this.line.call("setSteering", [lane, interventions]);
    this.lanes.set(lane, { ...this.given(lane), interventions });
    return setting;
  }

  /**
   * Decides before each of a lane's answers whether its interventions hold for it; null: they always do.
   * @param {number} lane
   * @param {Gate | null} gate
   * @returns {Promise<void>}
   */
  async setGate(lane, gate) {
    await this.line.call("setGate", [lane, gate]);
    this.lanes.set(lane, { ...this.given(lane), gate });
  }

  /**
   * What setSteering and setGate gave a lane.
   * @param {number} lane
   */
  given(lane) {
    return this.lanes.get(lane) ?? { interventions: [], gate: null };
  }

  /**
   * Makes a direction of the residual stream known under a name, for interventions.
   * @param {string} hook
   * @param {string} name
   * @param {Float32Array} values as many as the residual stream is wide
   * @returns {Promise<void>}
   */
  addDirection(hook, name, values) {
    return this.line.call("addDirection", [hook, name, values]);
  }

  /**
   * What can be done with a feature or a direction.
   * @returns {Promise<OperatorInfo[]>}
   */
  operators() {
    return this.line.call("operators", []);
  }

  /**
   * Runs a recipe on a fork of the model: the chat's conversations stay, and take turns with it.
   * @param {LabOptions} options
   * @returns {Promise<LabResult>}
   */
  lab(options) {
    const { onEvent, ...plain } = options;
    return this.line.call("lab", [plain], onEvent);
  }

  /** Ends the lab's run after the step under way; its promise rejects with the code "cancelled". */
  async cancelLab() {
    await this.line.call("cancelLab", []);
  }

  /**
   * Trains a dictionary of a block's output, in turns with the chat.
   * @param {TrainOptions} options
   * @returns {Promise<TrainedDictionary>}
   */
  trainDictionary(options) {
    const { onEvent, ...plain } = options;
    return this.line.call("trainDictionary", [plain], onEvent);
  }

  /** Ends the training after the step under way and keeps what came of it; cancelLab() keeps nothing. */
  async finishTraining() {
    await this.line.call("finishTraining", []);
  }

  /**
   * The plots of results, as texts of SVG.
   * @param {LabResult[]} results
   * @param {{theme: "css"}} options
   * @returns {Promise<LabPlot[]>}
   */
  labPlots(results, options) {
    return this.line.call("labPlots", [results, options]);
  }

  /**
   * One HTML file with everything in it.
   * @param {LabReportInput} input
   * @returns {Promise<string>}
   */
  labReport(input) {
    return this.line.call("labReport", [input]);
  }

  /**
   * A result's table as a text.
   * @param {LabResult} result
   * @param {"csv" | "json" | "markdown"} format
   * @returns {Promise<string>}
   */
  labTable(result, format) {
    return this.line.call("labTable", [result, format]);
  }

  /**
   * A measurement or sweep with verdicts by hand in place of the judge's, counted anew.
   * @param {LabResult} result
   * @param {LabVerdict[]} verdicts
   * @returns {Promise<LabResult>}
   */
  labOverrule(result, verdicts) {
    return this.line.call("labOverrule", [result, verdicts]);
  }

  /**
   * The k strongest features at every token of a text.
   * @param {string} text
   * @param {string} hook
   * @param {number} k
   * @returns {Promise<TokenFeatures>}
   */
  topFeatures(text, hook, k) {
    return this.line.call("topFeatures", [text, hook, k]);
  }

  /**
   * Whether the dictionary fits the model, measured on a built-in text. A chat that comes meanwhile ends it
   * with the code "cancelled" and is answered at once.
   * @returns {Promise<SelfTest>}
   */
  testSae() {
    return this.line.call("testSae", []);
  }

  /**
   * Measures how fast the model runs, on lanes of its own; the figures come as they are there. A chat that comes
   * meanwhile, or cancel(), ends it with the code "cancelled".
   * @param {SpeedOptions} options
   * @returns {Promise<void>}
   */
  async measureSpeed(options) {
    const { onFigure, ...plain } = options;
    await this.line.call("measureSpeed", [plain], onFigure);
  }

  /**
   * What the engine takes of the machine's memory now.
   * @returns {Promise<Memory>}
   */
  memory() {
    return this.line.call("memory", []);
  }

  /** Ends the running chat within a token. */
  async cancel() {
    await this.line.call("cancel", []);
  }

  /** Frees the GPU and ends the worker, which gets two seconds to do it in good order; of a fork, what it took. */
  async dispose() {
    this.ended = true;
    const late = new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      await Promise.race([this.line.call("dispose", []), late]);
    } finally {
      this.terminate();
    }
  }

  /**
   * Ends the worker at once, whatever it is doing. Every call that waits rejects with the code
   * "cancelled", or with "crashed" if the worker had died by itself.
   */
  terminate() {
    this.ended = true;
    this.line.close(new EngineError("cancelled", "The engine was closed."));
  }
}
