// Keeps the conversation on the page in the history as it grows, and brings it back after a reload.

import { revive, save } from "./transcript.js";

/** @import { Conversation } from "./conversation.js" */
/** @import { History } from "./history.js" */
/** @import { Saved } from "./transcript.js" */

/** Which conversation this tab has, for its reload. */
const KEY = "phi3-steer.conversation";

/** An answer that is being written is kept so often, in milliseconds. */
const BETWEEN = 1500;

/** Writes one conversation, one write at a time. */
export class Keeper {
  /**
   * @param {History} history
   * @param {Conversation} conversation
   * @param {{places: () => [string, string][], trouble: (error: unknown) => void}} page
   */
  constructor(history, conversation, page) {
    this.history = history;
    this.conversation = conversation;
    this.page = page;
    this.id = newId();
    /** Where the conversation was held, while nothing new was said. */
    this.places = /** @type {[string, string][] | null} */ (null);
    /** @type {Map<string, Saved>} what is still to be written, by conversation */
    this.pending = new Map();
    this.writing = false;
    this.last = 0;
    for (const name of ["add", "end", "truncate"]) conversation.addEventListener(name, () => this.keep());
    conversation.addEventListener("stream", () => {
      if (Date.now() - this.last > BETWEEN) this.keep();
    });
    addEventListener("pagehide", () => this.keep());
  }

  /** Writes the conversation as it is. What changes while something is written is written once, after it. */
  keep() {
    const { turns } = this.conversation;
    if (!turns.length) return;
    this.last = Date.now();
    this.pending.set(this.id, save(this.id, turns, this.places ?? this.page.places()));
    if (!this.writing) this.write();
  }

  /** @private */
  async write() {
    this.writing = true;
    for (const [id, saved] of this.pending) {
      this.pending.delete(id);
      await this.history.save(saved).catch(this.page.trouble);
    }
    this.writing = false;
  }

  /**
   * Forgets conversations for good; the one on the page is no longer kept until it changes.
   * @param {string | null} id null for all
   */
  async forget(id) {
    if (id === null) this.pending.clear();
    else this.pending.delete(id);
    if (id === null || id === this.id) this.begin();
    await (id === null ? this.history.clear() : this.history.remove(id));
  }

  /** The page has another conversation from now on; the one before stays in the history. */
  begin() {
    this.take(newId(), null);
  }

  /**
   * Brings a conversation of the history onto the page.
   * @param {Saved} saved
   * @param {string} [id] under which it goes on
   */
  open(saved, id = saved.id) {
    this.take(id, Array.isArray(saved.places) ? saved.places : null);
    this.conversation.restore(revive(saved));
  }

  /**
   * What this tab had before it was loaded anew, unless another tab has it.
   * @returns {Promise<Saved | undefined>}
   */
  async resume() {
    let id = null;
    try {
      id = sessionStorage.getItem(KEY);
    } catch {
      // Storage is blocked: nothing outlives the page.
    }
    const saved = id ? await this.history.read(id) : undefined;
    // A tab that was duplicated goes on with a copy.
    if (saved) this.open(saved, (await isFree(saved.id)) ? saved.id : newId());
    else this.begin();
    return saved;
  }

  /**
   * @param {string} id
   * @param {[string, string][] | null} places
   */
  take(id, places) {
    this.id = id;
    this.places = places;
    hold(id);
    try {
      sessionStorage.setItem(KEY, id);
    } catch {
      // Storage is blocked: nothing outlives the page.
    }
  }
}

const newId = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`;

/** The name of the lock that the tab with a conversation holds. */
const lockOf = (/** @type {string} */ id) => `phi3-steer conversation ${id}`;

/**
 * Whether no tab has the conversation.
 * @param {string} id
 * @returns {Promise<boolean>}
 */
async function isFree(id) {
  try {
    // The page that was here before the reload may take a moment to let go of it.
    return await navigator.locks.request(lockOf(id), { signal: AbortSignal.timeout(1000) }, () => true);
  } catch (error) {
    return /** @type {any} */ (error)?.name !== "TimeoutError";
  }
}

/** Gives the last conversation's lock back. */
let release = () => {};

/** @param {string} id */
function hold(id) {
  release();
  const held = new Promise((resolve) => (release = () => resolve(undefined)));
  // Without locks two tabs may write the same conversation: the last one wins.
  navigator.locks?.request(lockOf(id), () => held).catch(() => {});
}
