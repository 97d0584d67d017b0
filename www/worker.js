// The engine's worker: owns the wasm module and the GPU device, and speaks the protocol written
// down in line.js and engine-client.js. The build puts the wasm files beside index.html.

import { holdLock } from "./lifeline.js";

/** @import { EngineFailure, WorkerReply, WorkerRequest } from "./types.d.ts" */

/** @type {(reply: WorkerReply) => void} */
const post = (reply) => self.postMessage(reply);

/** @type {any} */
let engine = null;
/** @type {any} */
let Engine = null;
/** @type {any} the module's functions */
let library = null;
/** @type {Promise<unknown> | null} the dictionary's test or a measurement of the speed, while it runs */
let testing = null;
/** @type {Promise<void> | null} while the lab makes room for its lanes, for which it has the model */
let making = null;
/** How often a cancel came. */
let cancels = 0;
/** @type {Map<number, any>} forks of the engine by their numbers */
const forks = new Map();
/** How many there were. */
let forked = 0;
/** What a fork can be asked for, beside answers. */
const FORKS_DO = ["setSteering", "setGate", "addDirection", "topFeatures", "memory", "cancel", "dispose"];

/** Ends the dictionary's test or the measurement, if one runs: what else needs the model comes first. The lab's making room is waited for. */
async function free() {
  if (testing) {
    engine.cancel();
    await testing.catch(() => {});
  }
  while (making) await making;
}

/**
 * @param {any} error
 * @returns {EngineFailure}
 */
function failure(error) {
  const trapped = error instanceof WebAssembly.RuntimeError;
  return {
    code: typeof error?.code === "string" ? error.code : "crashed",
    message: trapped
      ? `The engine stopped unexpectedly: ${error.message}`
      : String(error?.message ?? error),
    field: typeof error?.field === "string" ? error.field : undefined,
  };
}

/**
 * Posts all events of an answer.
 * @param {number} id of the call
 * @param {ReadableStream} stream
 */
async function tell(id, stream) {
  // A reader and not `for await`, which Safari does not have for streams.
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return null;
    post({ id, event: value });
  }
}

/**
 * Starts work on lanes of its own; until its first event it has the model.
 * @param {number} id of the call
 * @param {(onEvent: (event: unknown) => void) => Promise<unknown>} work
 */
async function beside(id, work) {
  await free();
  let made = () => {};
  const room = new Promise((/** @type {(value: void) => void} */ resolve) => {
    made = () => {
      if (making === room) making = null;
      resolve();
    };
  });
  making = room;
  try {
    return await work((event) => {
      made();
      post({ id, event });
    });
  } finally {
    made();
  }
}

/**
 * What ends when something else needs the model.
 * @param {Promise<unknown>} work
 */
async function test(work) {
  testing = work;
  try {
    return await work;
  } finally {
    if (testing === work) testing = null;
  }
}

/** @type {Record<string, (id: number, ...args: any[]) => Promise<unknown>>} */
const methods = {
  async load(id, options) {
    engine = await Engine.load({
      ...options,
      onProgress: (/** @type {unknown} */ event) => post({ id, event }),
    });
    return engine.info;
  },
  async chat(id, options) {
    const before = cancels;
    await free();
    const stream = engine.chat(options);
    if (cancels !== before) engine.cancel();
    return tell(id, stream);
  },
  async fork(_id, lanes) {
    await free();
    const fork = await engine.fork(lanes);
    forked += 1;
    forks.set(forked, fork);
    return { number: forked, info: fork.info };
  },
  async ofFork(id, number, method, ...args) {
    const fork = forks.get(number);
    if (!fork) throw Object.assign(new Error("This fork of the engine was disposed of."), { code: "not-loaded" });
    if (method === "chat") return tell(id, fork.chat(...args));
    if (!FORKS_DO.includes(method)) throw Object.assign(new Error(`A fork has no ${method}.`), { code: "bad-request" });
    if (method === "dispose") forks.delete(number);
    return fork[method](...args);
  },
  async setSteering(_id, lane, interventions) {
    return engine.setSteering(lane, interventions);
  },
  async setGate(_id, lane, gate) {
    return engine.setGate(lane, gate);
  },
  async addDirection(_id, hook, name, values) {
    return engine.addDirection(hook, name, values);
  },
  async operators() {
    return library.operators();
  },
  async lab(id, options) {
    return beside(id, (onEvent) => engine.lab({ ...options, onEvent }));
  },
  async trainDictionary(id, options) {
    return beside(id, (onEvent) => engine.trainDictionary({ ...options, onEvent }));
  },
  async finishTraining() {
    return engine.finishTraining();
  },
  async cancelLab() {
    return engine.cancelLab();
  },
  async labPlots(_id, results, options) {
    return library.labPlots(results, options);
  },
  async labReport(_id, input) {
    return library.labReport(input);
  },
  async labTable(_id, result, format) {
    return library.labTable(result, format);
  },
  async labOverrule(_id, result, verdicts) {
    return library.labOverrule(result, verdicts);
  },
  async topFeatures(_id, text, hook, k) {
    await free();
    return engine.topFeatures(text, hook, k);
  },
  async ping() {
    return null;
  },
  async testSae() {
    if (testing) throw Object.assign(new Error("The model's speed is being measured."), { code: "busy" });
    return test(engine.testSae());
  },
  async measureSpeed(id, options) {
    await free();
    return test(engine.measureSpeed({ ...options, onFigure: (/** @type {unknown} */ event) => post({ id, event }) }));
  },
  async memory() {
    return engine.memory();
  },
  async cancel() {
    cancels += 1;
    await engine.cancel();
    return null;
  },
  async dispose() {
    const old = engine;
    engine = null;
    for (const fork of forks.values()) fork.dispose();
    forks.clear();
    await old?.dispose();
    return null;
  },
};

self.onmessage = async (/** @type {MessageEvent<WorkerRequest>} */ message) => {
  const { id, method, args } = message.data;
  try {
    if (!["load", "ping"].includes(method) && !engine) {
      post({ id, error: { code: "not-loaded", message: "No model is loaded." } });
      return;
    }
    post({ id, ok: (await methods[method](id, ...args)) ?? null });
  } catch (error) {
    post({ id, error: failure(error) });
  }
};

// A trap inside an asynchronous call settles no promise of ours: say so before the page waits for ever.
self.addEventListener("unhandledrejection", (event) => post({ fatal: failure(event.reason) }));

/** Not awaited at the top: bundlers make workers of a kind that cannot. */
async function begin() {
  try {
    // @ts-expect-error The build puts it there.
    const wasm = await import("../phi3-steer.js");
    await wasm.default({ module_or_path: new URL("../phi3-steer_bg.wasm", import.meta.url) });
    library = wasm;
    Engine = wasm.Engine;
    post({ ready: true, lock: await holdLock(self.name) });
  } catch (error) {
    post({
      fatal: {
        code: "no-engine",
        message: `The engine's program could not be loaded: ${/** @type {any} */ (error)?.message ?? error}`,
      },
    });
  }
}

begin();
