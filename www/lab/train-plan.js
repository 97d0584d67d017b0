// What a dictionary is trained on, and with which settings, where nobody says otherwise.

import { EngineError } from "../line.js";

/** @import { Info, TrainEvent, TrainOptions, TrainText } from "../types.d.ts" */

/**
 * What the form says.
 * @typedef {object} Wishes
 * @property {number} layer
 * @property {number} latents
 * @property {number} k
 * @property {number} steps
 * @property {number} rows
 * @property {number} prompts of the lab's sets, to which the model replies; 0 for none
 * @property {number} seed
 */

/** How replies begin where a model hardly declines by itself, so that its dictionary sees it decline and comply. */
const OPENINGS = ["", "I'm sorry, but I can't help with that.", "I cannot help with this request, because", "Sure, here is how to do it:", "Here are the steps to follow:"];

/** Tokens of a reply. */
const REPLY = { nano: 24, real: 48 };

/** Elements of a dictionary's matrix; training has eight of its size on the graphics card: half a gigabyte. */
const MOST_WEIGHTS = 16e6;

/** Characters of the visitor's own files, all told. */
export const MOST_TEXT = 30e6;

/**
 * Enough to see features, and little enough to wait for: less where the processor does the graphics card's work.
 * @param {Info} info
 * @returns {Wishes}
 */
export function usualWishes({ model, adapter, sae }) {
  const small = model.hidden < 512;
  const known = /^layers\.(\d+)$/.exec(sae?.hook ?? "");
  return {
    layer: known ? Number(known[1]) : Math.max(0, Math.round(model.layers * 0.3) - 1),
    latents: Math.min((adapter.cpu ? 4 : 8) * model.hidden, Math.floor(MOST_WEIGHTS / model.hidden)),
    k: small ? 24 : 32,
    steps: adapter.cpu ? 250 : 1500,
    rows: adapter.cpu ? 512 : 2048,
    prompts: !adapter.cpu ? 480 : small ? 240 : 24,
    seed: 1,
  };
}

/**
 * `n` prompts of the validation split, from all sets alike, as lines of JSON; those of the test split stay unseen.
 * @param {string} sets the text of the set file
 * @param {number} n
 * @returns {string}
 */
export function promptLines(sets, n) {
  const lists = JSON.parse(sets).splits?.validation?.sets;
  if (!Array.isArray(lists)) throw new EngineError("bad-sets", "The prompts have no split \u201cvalidation\u201d to train on.");
  const queues = lists.map((set) => (set.items ?? []).map((/** @type {any} */ item) => JSON.stringify(item.messages)));
  const lines = new Set();
  for (let at = 0; lines.size < n && queues.some((queue) => at < queue.length); at++) {
    for (const queue of queues) if (at < queue.length && lines.size < n) lines.add(queue[at]);
  }
  return [...lines].join("\n");
}

/**
 * What the engine is asked for.
 * @param {Wishes} wishes
 * @param {"nano" | "real"} name of the sets
 * @param {string | null} sets the text of their file, where prompts are wished for
 * @param {TrainText[]} own the visitor's files
 * @returns {Omit<TrainOptions, "onEvent">}
 */
export function trainOptions(wishes, name, sets, own) {
  const { layer, latents, k, steps, rows, prompts, seed } = wishes;
  const ofChats = (/** @type {TrainText} */ file) => /\.jsonl$/i.test(file.name);
  const texts = own.filter((file) => !ofChats(file));
  const chats = own.filter(ofChats);
  if (!prompts && !own.length) throw new EngineError("bad-request", "There is nothing to train on: choose prompts to reply to, or files of your own.");
  return {
    hook: `layers.${layer}`,
    ...(texts.length ? { texts } : {}),
    ...(chats.length ? { chats } : {}),
    ...(sets && prompts ? { prompts: [{ name: `${prompts} prompts of ${name}, validation.jsonl`, text: promptLines(sets, prompts) }], openings: name === "nano" ? [""] : OPENINGS, replyTokens: REPLY[name] } : {}),
    settings: { latents, k, steps, rows, seed },
  };
}

/** The parts of the work, in order, with their share of the time as far as it is known beforehand. */
const STAGES = /** @type {const} */ ({ writing: [0, 0.2], harvest: [0.2, 0.28], training: [0.28, 0.97], measuring: [0.97, 1] });

/** @type {Record<keyof typeof STAGES, string>} */
export const STAGE_WORDS = { writing: "The model writes replies", harvest: "Reading what the block makes of them", training: "Training", measuring: "Measuring what came of it" };

/**
 * How far all of it is, 0 to 1.
 * @param {TrainEvent} event
 */
export function shareOf({ stage, done, total }) {
  const [from, to] = STAGES[stage];
  return from + (to - from) * (total > 0 ? done / total : 0);
}

/** Seconds that a stage still takes, from how long it took so far. */
export class StageClock {
  constructor() {
    this.stage = "";
    this.since = 0;
    this.done = 0;
  }

  /**
   * @param {TrainEvent} event
   * @param {number} now milliseconds
   * @returns {number | null} null while nothing is known
   */
  left({ stage, done, total }, now) {
    if (stage !== this.stage) {
      this.stage = stage;
      this.since = now;
      this.done = done;
    }
    const made = done - this.done;
    return made > 0 ? ((now - this.since) / 1000 / made) * (total - done) : null;
  }
}
