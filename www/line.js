// A worker with numbered calls, and the one Trusted Types policy of the page.
//
// Messages. The page sends {id, method, args}; the worker answers each with any number of
// {id, event} and then one of {id, ok: value} or {id, error: {code, message}}. Before anything else
// it sends {ready: true} once it can work. It sends {fatal: {code, message}} when it cannot start or
// has trapped, which rejects every call that is waiting; a worker that dies without a word does the
// same with the code "crashed": it holds a lock of its own name for as long as it lives, as
// {ready: true, lock} says, and the page waits for that lock.

/** @import { EngineFailure, WorkerReply } from "./types.d.ts" */

/** An error with the engine's code, for example "no-webgpu" or "device-lost". */
export class EngineError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {string[]} [choices] addresses, one of which is meant
   * @param {string} [field] the option that is wrong
   */
  constructor(code, message, choices, field) {
    super(message);
    this.name = "EngineError";
    this.code = code;
    this.choices = choices;
    this.field = field;
  }
}

/**
 * @typedef {object} Waiting
 * @property {(value: any) => void} resolve
 * @property {(error: EngineError) => void} reject
 * @property {((event: any) => void) | undefined} onEvent
 */

/** By a name, so that bundlers leave the addresses below alone: a package has the first script only. */
const here = import.meta.url;
/** Whether a bundler has put this file, and so the worker, elsewhere. */
const bundled = !new URL(here).pathname.endsWith("/line.js");

/** The only scripts that the page ever starts by address. */
const SCRIPTS = {
  engine: new URL("./worker.js", here).href,
  store: new URL("./store/worker.js", here).href,
  offline: new URL("../sw.js", here).href,
};

const policy = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("phi3-steer", {
  createScriptURL: (/** @type {string} */ url) => {
    if (!Object.values(SCRIPTS).includes(url)) throw new TypeError(`not a script of the page: ${url}`);
    return url;
  },
});

/** A name that no other worker has, in this tab or another. */
const unique = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

/**
 * The address of one of the page's scripts, trusted where the browser asks for that.
 * @param {keyof typeof SCRIPTS} name
 * @returns {string}
 */
export const scriptUrl = (name) => (policy ? policy.createScriptURL(SCRIPTS[name]) : SCRIPTS[name]);

/**
 * @param {keyof typeof SCRIPTS} script
 * @param {string} name of the worker
 * @returns {Worker}
 */
function start(script, name) {
  // Bundlers find the worker by these very words.
  if (bundled) return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name });
  return new Worker(scriptUrl(script), { type: "module", name });
}

/** A worker with numbered calls. */
export class Line {
  /** @param {"engine" | "store"} name of the worker */
  constructor(name) {
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.next = 1;
    /** @type {EngineError | null} */
    this.closed = null;
    /** @type {(() => void)[]} */
    this.onReady = [];
    this.isReady = false;
    this.name = name;
    /** Messages that came, for whoever wants to know whether it still lives. */
    this.heard = 0;
    /** Ends the wait for the worker's death. */
    this.watch = new AbortController();
    /** @type {(error: EngineError) => void} */
    this.onClose = () => {};
    this.worker = start(name, `phi3-steer ${name} ${unique()}`);
    this.worker.onmessage = (message) => this.receive(message.data);
    this.worker.onerror = (event) => {
      event.preventDefault?.();
      this.close(
        new EngineError(
          this.isReady ? "crashed" : "no-engine",
          event.message || `The ${name}'s worker could not be started.`,
        ),
      );
    };
    this.worker.onmessageerror = () =>
      this.close(new EngineError("crashed", `A message from the ${name} could not be read.`));
  }

  /** @param {WorkerReply} reply */
  receive(reply) {
    this.heard++;
    if ("ready" in reply) {
      this.isReady = true;
      if (reply.lock) this.awaitDeath(reply.lock);
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
    if ("error" in reply) {
      const { code, message, choices, field } = reply.error;
      waiting.reject(new EngineError(code, message, choices, field));
    } else waiting.resolve(reply.ok);
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
          reject(new EngineError("bad-call", `The ${this.name} cannot take these arguments: ${error}`));
        }
      };
      if (this.isReady) send();
      else this.onReady.push(send);
    });
  }

  /**
   * A lock passes to the page when the worker that held it is gone, however it went.
   * @param {string} lock
   */
  async awaitDeath(lock) {
    try {
      await navigator.locks.request(lock, { signal: this.watch.signal }, () =>
        this.close(new EngineError("crashed", `The ${this.name}'s worker ended without a word.`)),
      );
    } catch {
      // The line was closed first, or the browser has no locks for this page.
    }
  }

  /** @param {EngineError} error */
  close(error) {
    if (this.closed) return;
    this.closed = error;
    this.watch.abort();
    this.worker.terminate();
    for (const waiting of this.waiting.values()) waiting.reject(error);
    this.waiting.clear();
    this.onReady = [];
    this.onClose(error);
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

/** The calls of a fork, over the line of its engine. */
export class Branch {
  /**
   * @param {Line | Branch} line
   * @param {number} number of the fork
   */
  constructor(line, number) {
    this.line = line;
    this.number = number;
    /** @type {(error: EngineError) => void} */
    this.onClose = () => {};
  }

  /**
   * Messages that came over the line.
   * @returns {number}
   */
  get heard() {
    return this.line.heard;
  }

  /**
   * @param {string} method
   * @param {unknown[]} args
   * @param {(event: any) => void} [onEvent]
   * @returns {Promise<any>}
   */
  call(method, args, onEvent) {
    return this.line.call("ofFork", [this.number, method, ...args], onEvent);
  }

  /**
   * The line stays: it is the engine's.
   * @param {EngineError} _error
   */
  close(_error) {}
}
