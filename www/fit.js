// Whether the dictionary fits the model: looked up where it is known, else measured once while nobody
// waits for an answer, and kept under a digest of what was measured.

import { selfTest } from "./report.js";

/** @import { Choice } from "./choice.js" */
/** @import { Engine } from "./engine-client.js" */
/** @import { Entry, Report, SelfTest } from "./types.d.ts" */

const KEY = "phi3-steer.fits";

/** Results that are kept: the last ones. */
const MOST = 20;

/** Milliseconds of rest before it is measured, and between two looks whether there is any. */
const QUIET = 1500;

/** A check that was interrupted so often by answers is not begun again. */
const TRIES = 5;

/** Measures beside the conversation. */
export class FitCheck {
  /** @param {{show: (fit: SelfTest | "checking" | null) => void, free: () => boolean}} page free: nothing is being answered or waits for it */
  constructor(page) {
    this.page = page;
    /** Changes with every engine: what an earlier one still says is not of this one. */
    this.round = 0;
  }

  /** No engine is looked at any more. */
  rest() {
    this.round++;
  }

  /**
   * Shows what is known of an engine's dictionary, or finds it out.
   * @param {Engine} engine
   * @param {Choice} choice
   * @param {Report | null} report on this model and this dictionary
   * @returns {Promise<void>} done when it is known, or given up
   */
  async watch(engine, choice, report) {
    const round = ++this.round;
    const { sae } = engine.info;
    if (!sae) return;
    if (report?.fit?.fit.hook === sae.hook) {
      this.page.show(report.fit);
      return;
    }
    const name = await identity(engine, choice);
    const known = selfTest(stored()[name]);
    if (round === this.round) this.page.show(known);
    for (let tries = 0; !known && tries < TRIES && (await this.quiet(round)); tries++) {
      this.page.show("checking");
      try {
        const fit = await engine.testSae();
        if (round !== this.round) return;
        this.page.show(fit);
        keep(name, fit);
        return;
      } catch (error) {
        if (round !== this.round) return;
        this.page.show(null);
        // An answer came first; anything else shows where it stops an answer.
        if (/** @type {any} */ (error)?.code !== "cancelled") return;
      }
    }
  }

  /**
   * Waits until nothing is going on.
   * @param {number} round
   * @returns {Promise<boolean>} false if the engine is gone meanwhile
   */
  async quiet(round) {
    do await new Promise((resolve) => setTimeout(resolve, QUIET));
    while (round === this.round && !this.page.free());
    return round === this.round;
  }
}

/**
 * A digest of what the fit depends on, which tells no address.
 * @param {Engine} engine
 * @param {Choice} choice
 * @returns {Promise<string>}
 */
export async function identity({ info }, { model, sae, saeHook }) {
  const place = (/** @type {Entry | string} */ entry) =>
    typeof entry === "string" ? entry : entry.files ? entry.files.map(({ name, size, lastModified }) => [name, size, lastModified]) : (entry.url ?? entry.id);
  const { name, layers, hidden, quant, parameters } = info.model;
  const text = JSON.stringify([place(model), place(sae), saeHook, name, layers, hidden, quant, parameters, info.sae]);
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @returns {Record<string, unknown>} */
function stored() {
  try {
    const fits = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return fits && typeof fits === "object" ? fits : {};
  } catch {
    return {};
  }
}

/**
 * @param {string} name
 * @param {SelfTest} fit
 */
function keep(name, fit) {
  const all = Object.entries(stored()).filter(([other]) => other !== name);
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries([...all, [name, fit]].slice(-MOST))));
  } catch {
    // Storage is blocked: it is measured again next time.
  }
}
