// The conversation: turns, each with one prompt and one answer a lane, and how a turn runs.

/** @import { Engine } from "./engine-client.js" */
/** @import { ChatEvent, Ending, Message, Setting } from "./types.d.ts" */
/** @import { Settings } from "./settings.js" */

import { asEngineError, EngineError } from "./line.js";

/** @typedef {import("./types.d.ts").Turn} Turn */
/** @typedef {import("./types.d.ts").Answer} Answer */

/** Lane 0 runs without interventions, lane 1 with them. */
export const BASE = 0;
export const STEERED = 1;

/** An engine that was asked to stop has so many milliseconds before the page goes on without it. */
const PATIENCE = 1500;

/** A slider that is dragged changes the running answer so often at most, in milliseconds. */
const BETWEEN_SETTINGS = 50;

/** @returns {Answer} */
const emptyAnswer = () => ({ text: "", prompt: [], tokens: [], end: null });

const sleep = (/** @type {number} */ milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * A turn under way.
 * @typedef {object} Run
 * @property {Turn} turn
 * @property {Engine} engine
 * @property {boolean} stopping
 * @property {boolean} begun whether the engine answers, so that a change of the settings goes to it
 * @property {boolean} changing whether a change of the settings is on its way
 * @property {Promise<Turn>} ended
 * @property {(turn: Turn) => void} end
 */

/**
 * Events, each with the turn as `detail`: "add", "stream", "end"; "truncate" with the number of
 * turns left; "restore" when other turns have come; and "refused" with the error of a setting that the engine did not take.
 */
export class Conversation extends EventTarget {
  /** @param {Settings} settings */
  constructor(settings) {
    super();
    this.settings = settings;
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {Engine | null} */
    this.engine = null;
    /** What answers, for people. */
    this.names = { model: "", dictionary: /** @type {string | null} */ (null) };
    /**
     * @type {Run | null}
     * @private
     */
    this.run = null;
    /** Whether the last turn was stopped. */
    this.stopping = false;
    /**
     * The engine whose steered lane has a gate.
     * @type {Engine | null}
     * @private
     */
    this.gated = null;
    settings.addEventListener("change", () => this.steer());
  }

  get running() {
    return this.run !== null;
  }

  /**
   * Runs one turn on both lanes. Never throws: a failure becomes the turn's error.
   * @param {string} prompt
   * @returns {Promise<Turn | null>} null when nothing could run
   */
  async send(prompt) {
    if (this.run || !this.engine) return null;
    const { choices } = this.settings;
    const sae = this.engine.info.sae;
    /** @type {Turn} */
    const turn = {
      prompt,
      answers: [emptyAnswer(), emptyAnswer()],
      tracked: sae && choices.hook ? { hook: choices.hook, feature: choices.feature } : null,
      settings: [this.settings.setting()],
      sampling: { temperature: choices.temperature, seed: choices.seed, maxTokens: choices.maxTokens },
      ...this.names,
      state: "running",
      error: null,
      tokensPerSecond: 0,
      firstTokenAt: 0,
    };
    /** @type {(turn: Turn) => void} */
    let end = () => {};
    const ended = new Promise((/** @type {(turn: Turn) => void} */ resolve) => (end = resolve));
    /** @type {Run} */
    const run = { turn, engine: this.engine, stopping: false, begun: false, changing: false, ended, end };
    const lanes = [BASE, STEERED].map((lane) => ({ messages: this.messages(lane, prompt) }));
    this.run = run;
    this.stopping = false;
    this.turns.push(turn);
    this.emit("add", turn);
    this.answer(run, lanes).then(
      () => this.finish(run, null),
      (error) => this.finish(run, asEngineError(error)),
    );
    return ended;
  }

  /**
   * @param {Run} run
   * @param {{messages: Message[]}[]} lanes
   * @private
   */
  async answer(run, lanes) {
    const { turn, engine } = run;
    const [setting] = turn.settings;
    await engine.setSteering(BASE, []);
    setting.id = await engine.setSteering(STEERED, this.settings.interventions(setting));
    if (setting.gated && setting.on && this.settings.gate) {
      await engine.setGate(STEERED, this.settings.gate);
      this.gated = engine;
    } else await this.ungate(engine);
    // Stopped before it began: the engine had nothing to cancel yet.
    if (run.stopping) throw new EngineError("cancelled", "Stopped before the answer began.");
    /** @type {import("./types.d.ts").ChatOptions} */
    const options = {
      lanes,
      maxTokens: turn.sampling.maxTokens,
      sampling: { temperature: turn.sampling.temperature, seed: turn.sampling.seed },
    };
    if (turn.tracked) {
      options.track = turn.tracked;
      if (this.settings.choices.top) options.topFeatures = 5;
    }
    const events = engine.chat(options);
    run.begun = true;
    this.steer();
    for await (const event of events) {
      // What comes after the page went on without the engine belongs to nobody.
      if (this.run !== run) break;
      this.take(turn, event);
    }
  }

  /**
   * @param {Run} run
   * @param {EngineError | null} error
   * @private
   */
  finish(run, error) {
    if (this.run !== run) return;
    const { turn } = run;
    const stopped = run.stopping || error?.code === "cancelled";
    turn.error = error;
    // What was stopped ends as stopped, even if the engine died of it.
    turn.state = error && !stopped ? "failed" : "done";
    for (const answer of turn.answers) answer.end ??= turn.state === "failed" ? "broken" : stopped ? "stopped" : "finished";
    dropUnused(turn);
    this.run = null;
    this.stopping = run.stopping;
    this.emit("end", turn);
    run.end(turn);
  }

  /**
   * Ends the running turn: within a token, or in `patience` milliseconds whatever the engine does.
   * @param {number} [patience]
   * @returns {Promise<boolean>} false if the engine did not let go of it: it computes still, or hangs
   */
  async stop(patience = PATIENCE) {
    const { run } = this;
    if (!run) return true;
    if (!run.stopping) {
      run.stopping = true;
      this.stopping = true;
      // The running turn shows what went wrong.
      run.engine.cancel().catch(() => {});
    }
    await Promise.race([run.ended, sleep(patience)]);
    if (this.run !== run) return true;
    this.finish(run, null);
    return false;
  }

  /**
   * Takes the gate away that an earlier turn may have set.
   * @param {Engine} engine
   */
  async ungate(engine) {
    if (this.gated !== engine) return;
    this.gated = null;
    await engine.setGate(STEERED, null);
  }

  /**
   * Brings the settings as they are now to the running answer, from its next token on.
   * @private
   */
  async steer() {
    const { run } = this;
    if (!run?.begun || run.changing) return;
    const { turn, engine } = run;
    run.changing = true;
    try {
      for (;;) {
        const wanted = this.settings.setting();
        if (this.run !== run || alike(wanted, /** @type {Setting} */ (turn.settings.at(-1)))) break;
        wanted.id = await engine.setSteering(STEERED, this.settings.interventions(wanted));
        turn.settings.push(wanted);
        this.emit("stream", turn);
        await sleep(BETWEEN_SETTINGS);
      }
    } catch (error) {
      // The answer goes on under the setting that it has; what ends the engine ends the turn too.
      if (this.run === run) this.dispatchEvent(new CustomEvent("refused", { detail: asEngineError(error) }));
    } finally {
      run.changing = false;
    }
  }

  /**
   * Forgets the turns from this one on.
   * @param {Turn} turn
   */
  truncateAt(turn) {
    const index = this.turns.indexOf(turn);
    if (index < 0 || this.run) return;
    this.turns.length = index;
    this.dispatchEvent(new CustomEvent("truncate", { detail: index }));
  }

  /**
   * Puts a kept conversation in the place of this one.
   * @param {Turn[]} turns
   */
  restore(turns) {
    if (this.run) return;
    this.clear();
    this.turns.push(...turns);
    this.dispatchEvent(new Event("restore"));
  }

  clear() {
    if (this.run) return;
    this.turns.length = 0;
    this.dispatchEvent(new CustomEvent("truncate", { detail: 0 }));
  }

  /**
   * @param {Turn} turn
   * @param {ChatEvent} event
   */
  take(turn, event) {
    if (hear(turn, event)) this.emit("stream", turn);
  }

  /**
   * What lane `lane` has heard so far, and the new prompt. A failed turn was not heard.
   * @param {number} lane
   * @param {string} prompt
   * @returns {Message[]}
   */
  messages(lane, prompt) {
    /** @type {Message[]} */
    const heard = this.turns
      .filter((turn) => turn.state === "done")
      .flatMap((turn) => [
        { role: /** @type {const} */ ("user"), content: turn.prompt },
        { role: /** @type {const} */ ("assistant"), content: turn.answers[lane].text },
      ]);
    return [...heard, { role: "user", content: prompt }];
  }

  /**
   * @param {string} name
   * @param {Turn} turn
   */
  emit(name, turn) {
    this.dispatchEvent(new CustomEvent(name, { detail: turn }));
  }
}

/**
 * Writes into a turn what the engine says of it.
 * @param {Turn} turn
 * @param {ChatEvent} event
 * @returns {boolean} whether there is something new to draw
 */
export function hear(turn, event) {
  if (event.type === "stats") {
    turn.tokensPerSecond = event.tokensPerSecond;
    return false;
  }
  const answer = turn.answers[event.lane];
  if (!answer) return false;
  if (event.type === "gate") {
    const { score, threshold, steered } = event;
    answer.gate = { score, threshold, steered };
  } else if (event.type === "prompt") {
    answer.prompt = event.tokens;
  } else if (event.type === "token") {
    answer.text += event.text;
    const now = performance.now();
    turn.firstTokenAt ||= now;
    const count = turn.answers[BASE].tokens.length + turn.answers[STEERED].tokens.length;
    if (now - turn.firstTokenAt > 300) turn.tokensPerSecond = (1000 * count) / (now - turn.firstTokenAt);
    const { id, text, activation, top, steered } = event;
    answer.tokens.push({ id, text, activation, top, steered, ...(event.lane === STEERED ? { setting: underWhich(turn, event.setting) } : {}) });
  } else {
    // The last characters, if the tokens broke off inside one.
    answer.text += event.text;
    const last = answer.tokens.at(-1);
    if (last) last.text += event.text;
    answer.end = ending(event.reason, answer);
  }
  return true;
}

/**
 * @param {Extract<ChatEvent, {type: "done"}>["reason"]} reason
 * @param {Answer} answer
 * @returns {Ending}
 */
function ending(reason, answer) {
  if (reason === "stop") return answer.text.trim() ? "finished" : "empty";
  return reason === "cancelled" ? "stopped" : reason;
}

/**
 * The setting, by its place in the turn, under which the steered lane's next token was written.
 * @param {Turn} turn
 * @param {number} id the engine's number of the setting
 * @returns {number}
 */
function underWhich(turn, id) {
  const { tokens } = turn.answers[STEERED];
  const found = turn.settings.findLastIndex((setting) => setting.id === id);
  const index = found < 0 ? (tokens.at(-1)?.setting ?? 0) : found;
  turn.settings[index].from ??= tokens.length;
  return index;
}

/**
 * Forgets the settings under which no token was written, such as those that a dragged slider
 * passed; the one at sending stays, since the prompt was read under it.
 * @param {Turn} turn
 */
function dropUnused(turn) {
  /** @type {Map<number, number>} */
  const places = new Map();
  const kept = turn.settings.filter((setting, index) => {
    const keep = index === 0 || setting.from !== null;
    if (keep) places.set(index, places.size);
    return keep;
  });
  for (const token of turn.answers[STEERED].tokens) token.setting = places.get(token.setting ?? 0) ?? 0;
  turn.settings = kept;
}

/**
 * Whether two settings ask for the same.
 * @param {Setting} a
 * @param {Setting} b
 */
function alike(a, b) {
  /** @type {(keyof Setting)[]} */
  const names = ["on", "hook", "feature", "op", "value", "positions", "onlyIfActive", "includeBos"];
  // Whether a prompt looks harmful is decided before its answer.
  return (!a.on && !b.on) || (names.every((name) => a[name] === b[name]) && a.direction === b.direction && JSON.stringify(a.set) === JSON.stringify(b.set));
}
