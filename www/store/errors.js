// What goes wrong between a server and the disk.

/** An error with a code for the page to branch on, and a sentence that says what and where. */
export class StoreError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {string[]} [choices] addresses, one of which is meant
   */
  constructor(code, message, choices) {
    super(message);
    this.name = "StoreError";
    this.code = code;
    this.choices = choices;
  }
}

/**
 * What a failed write to disk means.
 * @param {any} error
 * @param {string} name of the file
 * @returns {StoreError}
 */
export function diskError(error, name) {
  if (error instanceof StoreError) return error;
  if (error?.name === "QuotaExceededError") {
    return new StoreError("quota", `There is no room for ${name}: the browser's storage for this site is full.`);
  }
  if (error?.name === "NoModificationAllowedError") {
    return new StoreError("busy-elsewhere", `${name} is in use by another tab of this site.`);
  }
  return new StoreError("no-storage", `The browser could not write ${name}: ${error?.message ?? error}`);
}

/**
 * Tries again while a file is still held: a handle that was just closed, or a tab that was just
 * killed, lets go a moment later. Whoever works on the files has their lock.
 * @template T
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function patiently(action) {
  for (let tries = 1; ; tries++) {
    try {
      return await action();
    } catch (error) {
      if (/** @type {any} */ (error)?.name !== "NoModificationAllowedError" || tries >= 40) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/**
 * What is said of an error: with the machine off the network it is not the server that does not answer.
 * @param {string} code
 * @param {boolean} online whether the browser believes that there is a network
 */
export const toldCode = (code, online) => (code === "unreachable" && !online ? "offline" : code);
