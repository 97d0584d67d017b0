// The engine in the shape of OpenAI's chat completions, as web-llm has it too: engine.openai.
//
// What a request may have; all else is refused by its name, with the code "bad-request", unless it is null or
// asks for what is done anyway (NEUTRAL):
//   messages               texts of system, user and assistant, the last one the user's
//   model                  the loaded model's name
//   stream, stream_options.include_usage
//   temperature            1 unless said; 0 takes the likeliest token
//   top_p, top_k, min_p, repetition_penalty
//   max_tokens, max_completion_tokens   one or the other; unless said, as much as the context holds
//   stop                   a text or several: the answer ends before the one that is complete first
//   seed                   0 to 4294967295; unless said, a new one for every answer
//   logprobs, top_logprobs of the model as it is steered, before temperature and the rest of the sampling
//   steering, gate         of this answer alone; afterwards the lane has again what setSteering and setGate gave it
// finish_reason is "stop", "length" (of max_tokens, or the context is full) or, as web-llm has it, "abort".
// Answers are given in lane 0 of the engine, one after the other: a request waits for those before it. Where the
// engine's own chat is under way, it is refused with the code "busy"; a fork has an openai of its own.

import { EngineError } from "./line.js";
import { StopScanner } from "./stop-scanner.js";

/** @import { ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, ChatCompletionTokenLogprob, CompletionUsage, OpenAI as Declared } from "../types/openai.d.ts" */
/** @import { Engine } from "./engine-client.js" */
/** @import { ChatOptions, Gate, Intervention, TokenLogprob } from "./types.d.ts" */

/** The lane that answers. */
const LANE = 0;
/** Tokens of an answer at most. */
const MOST_TOKENS = 1 << 20;
const FIELDS = ["messages", "model", "stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "max_completion_tokens", "stop", "seed", "logprobs", "top_logprobs", "steering", "gate"];

/** @type {Record<string, (value: any) => boolean>} whether a field that is not supported asks for nothing more than is done */
const NEUTRAL = {
  n: (value) => value === 1,
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  logit_bias: (value) => Object.keys(value).length === 0,
  response_format: (value) => value.type === "text",
  tools: (value) => value.length === 0,
  tool_choice: (value) => value === "none",
  store: (value) => value === false,
  ignore_eos: (value) => value === false,
};

/**
 * @typedef {object} Asked
 * @property {boolean} stream
 * @property {boolean} usage whether the stream ends with a chunk of it
 * @property {string[]} stop
 * @property {Intervention[] | undefined} steering
 * @property {Gate | undefined} gate
 * @property {ChatOptions} options
 */

/**
 * @param {string} field
 * @param {string} rule
 * @returns {EngineError}
 */
const refused = (field, rule) => new EngineError("bad-request", `${field} ${rule}`, undefined, field);

/**
 * The members of an object that are there; an error for one that is not among `fields`.
 * @param {any} value
 * @param {string} path
 * @param {string[]} fields
 * @returns {Record<string, any>}
 */
function members(value, path, fields) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refused(path || "the request", "must be an object");
  const given = Object.entries(value).filter(([, member]) => member !== undefined && member !== null);
  for (const [name, member] of given) {
    const field = path ? `${path}.${name}` : name;
    const known = fields.includes(name) || (!path && Object.hasOwn(NEUTRAL, name) && NEUTRAL[name](member));
    if (!known) throw refused(field, `is not supported with the value ${shown(member)}: leave it out`);
  }
  return Object.fromEntries(given);
}

/** @param {unknown} value */
function shown(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

/**
 * @param {Record<string, any>} from
 * @param {string} field
 * @param {number} least
 * @param {number} most
 * @param {boolean} [whole]
 * @returns {number | undefined}
 */
function number(from, field, least, most, whole = false) {
  const value = from[field];
  if (value === undefined) return undefined;
  const right = typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
  if (!right) throw refused(field, `must be a ${whole ? "whole " : ""}number from ${least} to ${most}, not ${shown(value)}`);
  return value;
}

/**
 * @param {Record<string, any>} from
 * @param {string} path
 * @param {string} field
 * @returns {boolean}
 */
function flag(from, path, field) {
  const value = from[field] ?? false;
  if (typeof value !== "boolean") throw refused(path + field, `must be true or false, not ${shown(value)}`);
  return value;
}

/**
 * A message's text, which may come in parts.
 * @param {any} message
 * @param {number} index
 * @returns {ChatOptions["lanes"][number]["messages"][number]}
 */
function readMessage(message, index) {
  const path = `messages[${index}]`;
  const { role, content } = members(message, path, ["role", "content"]);
  if (!["system", "user", "assistant"].includes(role)) throw refused(`${path}.role`, `must be "system", "user" or "assistant", not ${shown(role)}`);
  if (typeof content === "string") return { role, content };
  if (!Array.isArray(content)) throw refused(`${path}.content`, `must be a text, or parts of one, not ${shown(content)}`);
  const texts = content.map((part, i) => {
    const at = `${path}.content[${i}]`;
    if (part?.type !== "text") throw refused(`${at}.type`, `must be "text", not ${shown(part?.type)}: the model reads nothing else`);
    const { text } = members(part, at, ["type", "text"]);
    if (typeof text !== "string") throw refused(`${at}.text`, `must be a text, not ${shown(text)}`);
    return text;
  });
  return { role, content: texts.join("") };
}

/**
 * @param {unknown} value
 * @returns {string[]}
 */
function readStops(value) {
  const stops = value === undefined ? [] : Array.isArray(value) ? value : [value];
  const wrong = stops.find((stop) => typeof stop !== "string" || stop === "");
  if (wrong !== undefined) throw refused("stop", `must be a text that is not empty, or a list of them, not ${shown(wrong)}`);
  return stops;
}

/**
 * @param {unknown} request
 * @param {Set<string>} names of the model
 * @param {number} context
 * @returns {Asked}
 */
function read(request, names, context) {
  const from = members(request, "", FIELDS);
  if (!Array.isArray(from.messages) || from.messages.length === 0) throw refused("messages", "must be a list of messages, one at least");
  if (from.model !== undefined && !names.has(from.model)) {
    throw refused("model", `must be the loaded model's name, ${[...names].map(shown).join(" or ")}, or left out, not ${shown(from.model)}`);
  }
  const stream = flag(from, "", "stream");
  if (from.stream_options && !stream) throw refused("stream_options", "needs stream: true");
  const streaming = from.stream_options === undefined ? {} : members(from.stream_options, "stream_options", ["include_usage"]);
  const both = from.max_tokens !== undefined && from.max_completion_tokens !== undefined;
  if (both) throw refused("max_completion_tokens", "and max_tokens are the same: give one of them");
  const most = number(from, "max_tokens", 1, MOST_TOKENS, true) ?? number(from, "max_completion_tokens", 1, MOST_TOKENS, true);
  const logprobs = flag(from, "", "logprobs");
  const top = number(from, "top_logprobs", 0, 20, true);
  if (top !== undefined && !logprobs) throw refused("top_logprobs", "needs logprobs: true");
  if (from.steering !== undefined && !Array.isArray(from.steering)) throw refused("steering", `must be a list of interventions, not ${shown(from.steering)}`);
  const sampling = {
    temperature: number(from, "temperature", 0, 2) ?? 1,
    topP: number(from, "top_p", 0, 1),
    topK: number(from, "top_k", 0, 0xffffffff, true),
    minP: number(from, "min_p", 0, 1),
    repetitionPenalty: number(from, "repetition_penalty", 0, 100),
    seed: number(from, "seed", 0, 0xffffffff, true) ?? crypto.getRandomValues(new Uint32Array(1))[0],
  };
  return {
    stream,
    usage: !stream || flag(streaming, "stream_options.", "include_usage"),
    stop: readStops(from.stop),
    steering: from.steering,
    gate: from.gate,
    options: {
      lanes: [{ messages: from.messages.map(readMessage) }],
      maxTokens: most ?? Math.min(context, MOST_TOKENS),
      sampling: Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== undefined)),
      ...(logprobs ? { logprobs: top ?? 0 } : {}),
    },
  };
}

/**
 * @param {TokenLogprob & {top: TokenLogprob[]}} told
 * @returns {ChatCompletionTokenLogprob}
 */
function asLogprob(told) {
  const one = (/** @type {TokenLogprob} */ { text, logprob, bytes }) => ({ token: text, logprob, bytes });
  return { ...one(told), top_logprobs: told.top.map(one) };
}

/**
 * The whole answer of a stream.
 * @param {AsyncIterable<ChatCompletionChunk>} chunks of one answer, with its usage
 * @returns {Promise<ChatCompletion>}
 */
async function collected(chunks) {
  let content = "";
  /** @type {ChatCompletionTokenLogprob[] | null} */
  let logprobs = null;
  /** @type {any} */
  let whole = null;
  for await (const { choices, usage, object: _, ...head } of chunks) {
    for (const { delta, logprobs: more, finish_reason, index, ...rest } of choices) {
      content += delta.content ?? "";
      if (more) logprobs = [...(logprobs ?? []), ...more.content];
      if (finish_reason) whole = { ...head, object: "chat.completion", choices: [{ index, message: { role: "assistant", content, refusal: null }, logprobs: logprobs && { content: logprobs, refusal: null }, finish_reason, ...rest }] };
    }
    if (usage) whole.usage = usage;
  }
  return whole;
}

/**
 * The face; types/openai.d.ts has the types that ship.
 * @implements {Declared}
 */
export class OpenAI {
  /** @param {Engine} engine */
  constructor(engine) {
    this.engine = engine;
    /**
     * What a request may call the model.
     * @type {Set<string>}
     */
    this.names = new Set([engine.info.model.name]);
    /** @private */
    this.last = Promise.resolve();
    /** @private */
    this.said = "";
    /**
     * The answer under way.
     * @type {{interrupted: boolean} | null}
     * @private
     */
    this.running = null;
    const create = async (/** @type {ChatCompletionRequest} */ request) => {
      const asked = read(request, this.names, engine.info.model.context);
      const chunks = this.answer(asked);
      return /** @type {any} */ (asked.stream ? chunks : collected(chunks));
    };
    this.chat = { completions: { create } };
  }

  /** Ends the answer under way within a token; its finish_reason is "abort". */
  async interruptGenerate() {
    if (!this.running) return;
    this.running.interrupted = true;
    await this.engine.cancel();
  }

  /** What was said so far in the answer under way, or in the last one. */
  async getMessage() {
    return this.said;
  }

  /** Forgets what was said; conversations are in their requests, so that there is nothing else to forget. */
  async resetChat() {
    this.said = "";
  }

  /** Frees the GPU and ends the worker. */
  async unload() {
    await this.engine.dispose();
  }

  /**
   * The answer in its turn.
   * @param {Asked} asked
   * @returns {AsyncGenerator<ChatCompletionChunk, void, void>}
   * @private
   */
  async *answer(asked) {
    const before = this.last;
    let done = () => {};
    this.last = new Promise((/** @type {(value: void) => void} */ resolve) => (done = resolve));
    const running = { interrupted: false };
    /** @type {(() => Promise<unknown>)[]} */
    const restore = [];
    try {
      await before;
      this.running = running;
      this.said = "";
      await this.steer(asked, restore);
      yield* this.speak(asked, running);
    } finally {
      // An engine that has died has nothing to be given back.
      for (const give of restore) await give().catch(() => {});
      if (this.running === running) this.running = null;
      done();
    }
  }

  /**
   * Steers the lane for an answer.
   * @param {Asked} asked
   * @param {(() => Promise<unknown>)[]} restore what gives the lane back what it had
   * @private
   */
  async steer({ steering, gate }, restore) {
    const { engine } = this;
    const before = engine.given(LANE);
    if (steering) {
      await engine.setSteering(LANE, steering).catch((error) => {
        throw new EngineError(error.code, error.message, undefined, error.field?.replace(/^interventions/, "steering"));
      });
      restore.push(() => engine.setSteering(LANE, before.interventions));
    }
    if (gate) {
      await engine.setGate(LANE, gate);
      restore.push(() => engine.setGate(LANE, before.gate));
    }
  }

  /**
   * @param {Asked} asked
   * @param {{interrupted: boolean}} running
   * @returns {AsyncGenerator<ChatCompletionChunk, void, void>}
   * @private
   */
  async *speak(asked, running) {
    const head = { id: `chatcmpl-${crypto.randomUUID()}`, object: /** @type {const} */ ("chat.completion.chunk"), created: Math.floor(Date.now() / 1000), model: this.engine.info.model.name };
    const noUsage = asked.usage ? { usage: null } : {};
    const chunk = (/** @type {Partial<ChatCompletionChunk["choices"][number]>} */ choice) => ({ ...head, choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: null, ...choice }], ...noUsage });
    const scanner = new StopScanner(asked.stop);
    /** @type {{start: number, logprob: ChatCompletionTokenLogprob}[]} of text that is held back */
    let held = [];
    let [prompt, cached, tokens] = [0, 0, 0];
    /** @type {"stop" | "length" | "abort"} */
    let reason = "abort";
    let gate = {};
    /** @type {CompletionUsage["extra"]} */
    let extra;
    yield chunk({ delta: { role: "assistant", content: "" } });
    if (!running.interrupted) {
      for await (const event of this.engine.chat(asked.options)) {
        if (event.type === "gate") gate = { gate: { score: event.score, threshold: event.threshold, steered: event.steered } };
        if (event.type === "prompt") [prompt, cached] = [event.length, event.reused];
        if (event.type === "stats") extra = { prefill_tokens_per_s: (1000 * (prompt - cached)) / Math.max(event.prefillMs, 1), decode_tokens_per_s: event.tokensPerSecond };
        // After a stop the engine may say a few tokens more before it hears of it.
        if (scanner.found || (event.type !== "token" && event.type !== "done")) continue;
        const start = scanner.taken;
        let text = scanner.push(event.text);
        if (event.type === "token") {
          tokens += 1;
          if (event.logprobs) held.push({ start, logprob: asLogprob(event.logprobs) });
        } else {
          if (!scanner.found) text += scanner.finish();
          reason = scanner.found || event.reason === "stop" ? "stop" : event.reason === "cancelled" ? "abort" : "length";
        }
        if (scanner.found) {
          reason = "stop";
          if (event.type === "token") await this.engine.cancel();
        }
        const ended = event.type === "done" && !scanner.found;
        const free = held.filter(({ start }) => ended || start < scanner.given).map(({ logprob }) => logprob);
        held = held.slice(free.length);
        this.said += text;
        if (text || free.length) yield chunk({ delta: { content: text }, logprobs: asked.options.logprobs === undefined ? null : { content: free, refusal: null } });
      }
    }
    yield chunk({ finish_reason: reason, ...gate });
    if (asked.usage) {
      const usage = { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens, prompt_tokens_details: { cached_tokens: cached }, ...(extra && { extra }) };
      yield { ...head, choices: [], usage };
    }
  }
}
