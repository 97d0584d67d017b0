// The engine as the page sees it: the same API as the wasm `Engine`, with the work done in a
// dedicated worker so that the page never blocks.
//
// Messages. The page sends {id, method, args}; the worker answers each with any number of
// {id, event} and then one of {id, ok: value} or {id, error: {code, message}}.
//   method       args                     events        ok
//   load         [LoadOptions, less       LoadProgress  Info
//                 its functions]
//   chat         [ChatOptions]            ChatEvent     null
//   setSteering  [lane, Intervention[]]   none          null
//   topFeatures  [text, hook, k]          none          TokenFeatures
//   cancel       []                       none          null
//   dispose      []                       none          null
// Before anything else the worker sends {ready: true} once its wasm runs. It sends
// {fatal: {code, message}} when its wasm cannot be started or has trapped, which rejects every call
// that is waiting; a worker that dies without a word does the same with the code "crashed".

/**
 * @import { ChatEvent, ChatOptions, EngineFailure, Info, Intervention, LoadOptions, TokenFeatures, WorkerReply } from "./types.d.ts"
 */

/** An error with the engine's code, for example "no-webgpu" or "device-lost". */
export class EngineError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "EngineError";
    this.code = code;
  }
}

/**
 * @typedef {object} Waiting
 * @property {(value: any) => void} resolve
 * @property {(error: EngineError) => void} reject
 * @property {((event: any) => void) | undefined} onEvent
 */

const workerUrl = new URL("./worker.js", import.meta.url).href;

/** The page's one Trusted Types policy: the only script URL it ever blesses is the worker's. */
const policy = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("phi3-steer", {
  createScriptURL: (/** @type {string} */ url) => {
    if (url !== workerUrl) throw new TypeError(`not the engine's worker: ${url}`);
    return url;
  },
});

/** A worker with numbered calls. */
class Line {
  constructor() {
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.next = 1;
    /** @type {EngineError | null} */
    this.closed = null;
    /** @type {(() => void)[]} */
    this.onReady = [];
    this.isReady = false;
    this.worker = new Worker(policy ? policy.createScriptURL(workerUrl) : workerUrl, { type: "module" });
    this.worker.onmessage = (message) => this.receive(message.data);
    this.worker.onerror = (event) => {
      event.preventDefault?.();
      this.close(
        new EngineError(
          this.isReady ? "crashed" : "no-engine",
          event.message || "The engine's worker could not be started.",
        ),
      );
    };
    this.worker.onmessageerror = () =>
      this.close(new EngineError("crashed", "A message from the engine could not be read."));
  }

  /** @param {WorkerReply} reply */
  receive(reply) {
    if ("ready" in reply) {
      this.isReady = true;
      for (const go of this.onReady.splice(0)) go();
      return;
    }
    if ("fatal" in reply) {
      this.close(new EngineError(reply.fatal.code, reply.fatal.message));
      return;
    }
    const waiting = this.waiting.get(reply.id);
    if (!waiting) return;
    if ("event" in reply) {
      waiting.onEvent?.(reply.event);
      return;
    }
    this.waiting.delete(reply.id);
    if ("error" in reply) waiting.reject(new EngineError(reply.error.code, reply.error.message));
    else waiting.resolve(reply.ok);
  }

  /**
   * @param {string} method
   * @param {unknown[]} args
   * @param {(event: any) => void} [onEvent]
   * @returns {Promise<any>}
   */
  call(method, args, onEvent) {
    return new Promise((resolve, reject) => {
      if (this.closed) {
        reject(this.closed);
        return;
      }
      const id = this.next++;
      this.waiting.set(id, { resolve, reject, onEvent });
      const send = () => {
        try {
          this.worker.postMessage({ id, method, args });
        } catch (error) {
          this.waiting.delete(id);
          reject(new EngineError("bad-call", `The engine cannot take these arguments: ${error}`));
        }
      };
      if (this.isReady) send();
      else this.onReady.push(send);
    });
  }

  /** @param {EngineError} error */
  close(error) {
    if (this.closed) return;
    this.closed = error;
    this.worker.terminate();
    for (const waiting of this.waiting.values()) waiting.reject(error);
    this.waiting.clear();
    this.onReady = [];
  }
}

/** The engine in its worker. */
export class Engine {
  /**
   * @param {Line} line
   * @param {Info} info
   */
  constructor(line, info) {
    /** @private */
    this.line = line;
    /** What runs: model, adapter, dictionary. */
    this.info = info;
  }

  /**
   * Starts a worker and loads a model into it.
   * @param {LoadOptions} options
   * @param {AbortSignal} [signal] ends the worker, and the load with the code "cancelled"
   * @returns {Promise<Engine>}
   */
  static async load(options, signal) {
    const { onProgress, ...plain } = options;
    const line = new Line();
    const abort = () => line.close(new EngineError("cancelled", "Loading was cancelled."));
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    try {
      const info = await line.call("load", [plain], onProgress);
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
        wake();
      });
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
        await this.cancel();
        await call;
      }
    }
    if (failure) throw failure;
  }

  /**
   * Replaces a lane's interventions; it takes effect at the next token.
   * @param {number} lane
   * @param {Intervention[]} interventions
   * @returns {Promise<void>}
   */
  async setSteering(lane, interventions) {
    await this.line.call("setSteering", [lane, interventions]);
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

  /** Ends the running chat within a token. */
  async cancel() {
    await this.line.call("cancel", []);
  }

  /** Frees the GPU and ends the worker, which gets two seconds to do it in good order. */
  async dispose() {
    const late = new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      await Promise.race([this.line.call("dispose", []), late]);
    } finally {
      this.line.close(new EngineError("cancelled", "The engine was closed."));
    }
  }
}

/**
 * @param {unknown} error
 * @returns {EngineError}
 */
export function asEngineError(error) {
  if (error instanceof EngineError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new EngineError("crashed", text);
}
