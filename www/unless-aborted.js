// Work that is waited for only until somebody no longer wants it.

import { EngineError } from "./line.js";

/**
 * The work's result, or an error with the code "cancelled" as soon as the signal says so.
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export function unlessAborted(work, signal) {
  return new Promise((resolve, reject) => {
    const end = () => reject(new EngineError("cancelled", "Loading was cancelled."));
    if (signal.aborted) end();
    signal.addEventListener("abort", end, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", end));
  });
}
