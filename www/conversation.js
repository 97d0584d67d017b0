// The conversation: turns, each with one prompt and one answer a lane, and how a turn runs.

/** @import { Engine } from "./engine-client.js" */
/** @import { ChatEvent, Message, TokenRecord } from "./types.d.ts" */
/** @import { Settings } from "./settings.js" */

import { asEngineError, EngineError } from "./line.js";

/** Lane 0 runs without interventions, lane 1 with them. */
export const BASE = 0;
export const STEERED = 1;

/**
 * @typedef {object} Answer
 * @property {string} text
 * @property {TokenRecord[]} prompt tokens of the whole prompt that this run fed to the model
 * @property {TokenRecord[]} tokens
 * @property {string | null} reason why it ended, null while it runs
 */

/**
 * @typedef {object} Turn
 * @property {string} prompt
 * @property {[Answer, Answer]} answers by lane
 * @property {{label: string, on: boolean, feature: number}} steering as it was for this turn
 * @property {"running" | "done" | "failed"} state
 * @property {import("./line.js").EngineError | null} error
 * @property {number} tokensPerSecond of both lanes together so far, 0 when not known
 * @property {number} firstTokenAt milliseconds, 0 before it
 */

/** @returns {Answer} */
const emptyAnswer = () => ({ text: "", prompt: [], tokens: [], reason: null });

/**
 * Events, each with the turn as `detail`: "add", "stream", "end"; and "truncate" with the number
 * of turns left.
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
    this.running = false;
    this.stopping = false;
  }

  /**
   * Runs one turn on both lanes. Never throws: a failure becomes the turn's error.
   * @param {string} prompt
   * @returns {Promise<Turn | null>} null when nothing could run
   */
  async send(prompt) {
    if (this.running || !this.engine) return null;
    const engine = this.engine;
    const { choices } = this.settings;
    const interventions = this.settings.interventions();
    /** @type {Turn} */
    const turn = {
      prompt,
      answers: [emptyAnswer(), emptyAnswer()],
      steering: { label: steeringLabel(this.settings), on: interventions.length > 0, feature: choices.feature },
      state: "running",
      error: null,
      tokensPerSecond: 0,
      firstTokenAt: 0,
    };
    const lanes = [BASE, STEERED].map((lane) => ({ messages: this.messages(lane, prompt) }));
    this.running = true;
    this.stopping = false;
    this.turns.push(turn);
    this.emit("add", turn);
    try {
      await engine.setSteering(BASE, []);
      await engine.setSteering(STEERED, interventions);
      /** @type {import("./types.d.ts").ChatOptions} */
      const options = {
        lanes,
        maxTokens: choices.maxTokens,
        sampling: { temperature: choices.temperature, seed: choices.seed },
      };
      if (engine.info.sae && choices.hook) {
        options.track = { hook: choices.hook, feature: choices.feature };
        if (choices.top) options.topFeatures = 5;
      }
      // Stopped before it began: the engine had nothing to cancel yet.
      if (this.stopping) throw new EngineError("cancelled", "Stopped before the answer began.");
      for await (const event of engine.chat(options)) this.take(turn, event);
      turn.state = "done";
    } catch (error) {
      turn.error = asEngineError(error);
      turn.state = turn.error.code === "cancelled" ? "done" : "failed";
    }
    for (const answer of turn.answers) answer.reason ??= this.stopping ? "cancelled" : "stop";
    this.running = false;
    this.emit("end", turn);
    return turn;
  }

  /** Ends the running turn within a token. */
  async stop() {
    if (!this.running || this.stopping) return;
    this.stopping = true;
    try {
      await this.engine?.cancel();
    } catch {
      // The running turn shows what went wrong.
    }
  }

  /**
   * Forgets the turns from this one on.
   * @param {Turn} turn
   */
  truncateAt(turn) {
    const index = this.turns.indexOf(turn);
    if (index < 0 || this.running) return;
    this.turns.length = index;
    this.dispatchEvent(new CustomEvent("truncate", { detail: index }));
  }

  clear() {
    if (this.running) return;
    this.turns.length = 0;
    this.dispatchEvent(new CustomEvent("truncate", { detail: 0 }));
  }

  /**
   * @param {Turn} turn
   * @param {ChatEvent} event
   */
  take(turn, event) {
    if (event.type === "stats") {
      turn.tokensPerSecond = event.tokensPerSecond;
      return;
    }
    const answer = turn.answers[event.lane];
    if (!answer) return;
    if (event.type === "prompt") {
      answer.prompt = event.tokens;
    } else if (event.type === "token") {
      answer.text += event.text;
      const now = performance.now();
      turn.firstTokenAt ||= now;
      const count = turn.answers[BASE].tokens.length + turn.answers[STEERED].tokens.length;
      if (now - turn.firstTokenAt > 300) turn.tokensPerSecond = (1000 * count) / (now - turn.firstTokenAt);
      answer.tokens.push({ id: event.id, text: event.text, activation: event.activation, top: event.top, steered: event.steered });
    } else {
      // The last characters, if the tokens broke off inside one.
      answer.text += event.text;
      const last = answer.tokens.at(-1);
      if (last) last.text += event.text;
      answer.reason = event.reason;
    }
    this.emit("stream", turn);
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
 * "clamp 8", "steering off", …
 * @param {Settings} settings
 * @returns {string}
 */
function steeringLabel(settings) {
  const { choices } = settings;
  if (!choices.hook) return "no dictionary";
  if (!choices.steering) return "steering off";
  const names = { clamp: "clamp", clamp_replace: "clamp, error dropped", add: "add", scale: "scale", project_out: "project out" };
  const where = choices.positions === "all" ? "" : `, ${choices.positions} tokens`;
  return choices.op === "project_out" ? `project out${where}` : `${names[choices.op]} ${choices.strength}${where}`;
}
