// The shape of OpenAI's chat completions over an engine that is played by the test.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EngineError } from "../../www/line.js";
import { OpenAI } from "../../www/openai.js";
import { StopScanner } from "../../www/stop-scanner.js";
import { draws } from "./draws.mjs";

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
console.log(`SEED=${seed}`);
const draw = draws(seed);
const messages = [{ role: "user", content: "Hi" }];

/** Cuts a text into pieces by chance, some of them empty. */
function pieces(text) {
  const cut = [];
  for (let at = 0; at < text.length; ) {
    const length = draw(4);
    cut.push(text.slice(at, at + length));
    at += length;
  }
  return cut;
}

/** A text of few letters, so that stops and their beginnings are frequent. */
const babble = (length) => Array.from({ length }, () => "abé "[draw(4)]).join("");

/** An engine that says the pieces of `texts`, one text a call, and does as it is told. */
class Played {
  constructor(...texts) {
    this.info = { model: { name: "tiny", context: 4096 } };
    this.texts = texts;
    this.log = [];
    this.lane = { interventions: [{ hook: "layers.0", feature: 1, op: "clamp", value: 1 }], gate: null };
    this.cancelled = false;
    this.late = 0;
  }
  given() {
    return { ...this.lane };
  }
  async setSteering(lane, interventions) {
    if (interventions.some(({ op }) => op === "crush")) throw new EngineError("bad-request", "there is no crush", undefined, "interventions[0].op");
    this.log.push(["steering", lane, interventions]);
    this.lane.interventions = interventions;
  }
  async setGate(lane, gate) {
    this.log.push(["gate", lane, gate]);
    this.lane.gate = gate;
  }
  async cancel() {
    this.log.push(["cancel"]);
    this.cancelled = true;
  }
  async dispose() {
    this.log.push(["dispose"]);
  }
  async *chat(options) {
    this.log.push(["chat", options]);
    this.cancelled = false;
    const cut = Array.isArray(this.texts[0]) ? this.texts.shift() : pieces(this.texts.shift());
    if (this.lane.gate) yield { type: "gate", lane: 0, score: 0.75, threshold: this.lane.gate.threshold, steered: true };
    yield { type: "prompt", lane: 0, first: 0, length: 7, tokens: [], reused: 2 };
    const last = cut.pop() ?? "";
    let tokens = 0;
    try {
      for (const text of cut) {
        await null;
        // A few tokens are under way when a cancel comes.
        if (this.cancelled && this.late-- <= 0) break;
        tokens += 1;
        const one = (id) => ({ id, text: `<${id}>`, bytes: [id], logprob: -id / 10 });
        const logprobs = options.logprobs === undefined ? {} : { logprobs: { ...one(tokens), top: Array.from({ length: options.logprobs }, (_, i) => one(i)) } };
        yield { type: "token", lane: 0, id: tokens, text, ...logprobs };
      }
      const reason = this.cancelled ? "cancelled" : tokens >= options.maxTokens ? "length" : (this.ends ?? "stop");
      yield { type: "done", lane: 0, reason, text: reason === "cancelled" ? "" : last, tokens };
      yield { type: "stats", promptTokens: 7, prefillMs: 10, generatedTokens: tokens, decodeMs: 20, tokensPerSecond: 50 };
    } finally {
      this.log.push(["ended"]);
    }
  }
}

/** What a stream says. */
async function streamed(openai, request) {
  const chunks = [];
  for await (const chunk of await openai.chat.completions.create({ ...request, stream: true })) chunks.push(chunk);
  const of = (name) => chunks.flatMap(({ choices }) => choices.flatMap((choice) => choice[name] ?? []));
  return { chunks, text: of("delta").map(({ content }) => content ?? "").join(""), logprobs: of("logprobs").flatMap(({ content }) => content), finish: of("finish_reason") };
}

/** What comes before the stop that is complete first, as its definition says. */
function before(text, stops) {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (ending.length) return text.slice(0, end - ending[0].length);
  }
  return null;
}

test("a stop ends the text wherever the pieces are cut", () => {
  for (let round = 0; round < 2000; round++) {
    const text = babble(draw(30));
    const stops = Array.from({ length: draw(4) }, () => babble(1 + draw(4)));
    const wanted = before(text, stops);
    const scanner = new StopScanner(stops);
    let given = "";
    for (const piece of pieces(text)) {
      if (!scanner.found) given += scanner.push(piece);
      // What is given out is never taken back, and nothing is held without a reason.
      assert.ok((wanted ?? text).startsWith(given));
      const held = text.slice(given.length, scanner.taken);
      if (!scanner.found && held) assert.ok(stops.some((stop) => stop.startsWith(held)), `${JSON.stringify(text)} ${stops}`);
    }
    assert.equal(scanner.found, wanted !== null);
    if (!scanner.found) given += scanner.finish();
    assert.equal(given, wanted ?? text, `${JSON.stringify(text)} before ${JSON.stringify(stops)}`);
    assert.equal(scanner.given, given.length);
  }
});

test("the whole answer is the stream's, with its logprobs and usage", async () => {
  for (let round = 0; round < 200; round++) {
    const text = babble(draw(40));
    const cut = pieces(text);
    const stop = Array.from({ length: draw(3) }, () => babble(2 + draw(3)));
    const top = draw(4);
    const request = { messages, stop, logprobs: true, top_logprobs: top, stream_options: null };
    const engine = new Played([...cut], [...cut]);
    engine.late = draw(3);
    const stream = await streamed(new OpenAI(engine), { ...request, stream_options: { include_usage: true } });
    engine.late = draw(3);
    const whole = await new OpenAI(engine).chat.completions.create(request);
    const [choice] = whole.choices;
    const wanted = before(text, stop);
    assert.equal(choice.message.content, wanted ?? text);
    assert.equal(stream.text, choice.message.content);
    assert.deepEqual(stream.finish, [choice.finish_reason]);
    assert.equal(choice.finish_reason, "stop");
    assert.deepEqual(stream.logprobs, choice.logprobs?.content ?? []);
    // Of the tokens that the text is made of, and of each one once.
    const starts = cut.slice(0, -1).map((_, i) => cut.slice(0, i).join("").length);
    const kept = starts.filter((start) => wanted === null || start < wanted.length).length;
    const ids = stream.logprobs.map(({ bytes }) => bytes[0]);
    assert.deepEqual(ids, Array.from({ length: kept }, (_, i) => i + 1));
    assert.ok(stream.logprobs.every((one) => one.top_logprobs.length === top && one.logprob === -one.bytes[0] / 10 && one.token === `<${one.bytes[0]}>`));
    const usage = stream.chunks.at(-1);
    assert.deepEqual(usage.choices, []);
    assert.deepEqual(usage.usage, whole.usage);
    assert.equal(whole.usage.prompt_tokens, 7);
    assert.equal(whole.usage.total_tokens, 7 + whole.usage.completion_tokens);
    assert.equal(whole.usage.prompt_tokens_details.cached_tokens, 2);
    // Tokens count up to the stop, however many more the engine said.
    let said = 0;
    if (wanted !== null) while (before(cut.slice(0, said).join(""), stop) === null && said < cut.length - 1) said++;
    assert.equal(whole.usage.completion_tokens, wanted === null ? Math.max(cut.length - 1, 0) : said);
  }
});

test("chunks are shaped as OpenAI's", async () => {
  const { chunks } = await streamed(new OpenAI(new Played(["Hel", "lo", ""])), { messages });
  assert.ok(chunks.every(({ object, model, id, created }) => object === "chat.completion.chunk" && model === "tiny" && id === chunks[0].id && created === chunks[0].created));
  assert.deepEqual(chunks.map(({ choices: [{ index, delta, finish_reason, logprobs }] }) => [index, delta, finish_reason, logprobs]), [
    [0, { role: "assistant", content: "" }, null, null],
    [0, { content: "Hel" }, null, null],
    [0, { content: "lo" }, null, null],
    [0, {}, "stop", null],
  ]);
  assert.ok(chunks.every((chunk) => !("usage" in chunk)));
  const whole = await new OpenAI(new Played(["Hel", "lo", ""])).chat.completions.create({ messages });
  assert.match(whole.id, /^chatcmpl-/);
  assert.equal(whole.object, "chat.completion");
  assert.deepEqual(whole.choices, [{ index: 0, message: { role: "assistant", content: "Hello", refusal: null }, logprobs: null, finish_reason: "stop" }]);
});

test("options reach the engine under its names", async () => {
  const engine = new Played("a", "a", "a");
  const openai = new OpenAI(engine);
  const parts = [{ type: "text", text: "a" }, { type: "text", text: "b" }];
  await openai.chat.completions.create({ messages: [{ role: "system", content: "s", name: null }, { role: "user", content: parts }], model: "tiny", temperature: 0, top_p: 0.5, top_k: 3, min_p: 0.1, repetition_penalty: 1.1, max_tokens: 9, seed: 4, logprobs: true, n: 1, presence_penalty: 0, logit_bias: {}, response_format: { type: "text" }, tools: [] });
  assert.deepEqual(engine.log[0], ["chat", { lanes: [{ messages: [{ role: "system", content: "s" }, { role: "user", content: "ab" }] }], maxTokens: 9, sampling: { temperature: 0, topP: 0.5, topK: 3, minP: 0.1, repetitionPenalty: 1.1, seed: 4 }, logprobs: 0 }]);
  engine.log.length = 0;
  await openai.chat.completions.create({ messages, max_completion_tokens: null });
  await openai.chat.completions.create({ messages });
  const [first, second] = engine.log.filter(([what]) => what === "chat").map(([, options]) => options);
  assert.equal(first.maxTokens, 4096);
  assert.equal(first.sampling.temperature, 1);
  assert.ok(Number.isInteger(first.sampling.seed));
  assert.notEqual(first.sampling.seed, second.sampling.seed);
});

test("steering and gate hold for one answer", async () => {
  const engine = new Played("a", "b", "c");
  const own = engine.given();
  const steering = [{ hook: "layers.3", feature: 329, op: "clamp", value: 8 }];
  const gate = { hook: "layers.3", threshold: 0.5, feature: 3 };
  const openai = new OpenAI(engine);
  const whole = await openai.chat.completions.create({ messages, steering, gate });
  assert.deepEqual(whole.choices[0].gate, { score: 0.75, threshold: 0.5, steered: true });
  assert.deepEqual(engine.log.map(([what, lane, value]) => (what === "chat" ? [what] : [what, lane, value])), [
    ["steering", 0, steering],
    ["gate", 0, gate],
    ["chat"],
    ["ended", undefined, undefined],
    ["steering", 0, own.interventions],
    ["gate", 0, null],
  ]);
  engine.log.length = 0;
  await openai.chat.completions.create({ messages });
  assert.deepEqual(engine.log.map(([what]) => what), ["chat", "ended"]);
  engine.log.length = 0;
  await assert.rejects(openai.chat.completions.create({ messages, steering: [{ hook: "layers.3", op: "crush" }] }), (error) => error.code === "bad-request" && error.field === "steering[0].op");
  assert.deepEqual(engine.log, []);
  assert.deepEqual(engine.given(), own);
  await openai.chat.completions.create({ messages });
});

test("requests take turns, and one that is left makes room", async () => {
  const engine = new Played("one", "two".repeat(20), "three");
  const openai = new OpenAI(engine);
  const stream = await openai.chat.completions.create({ messages, stream: true, steering: [] });
  const [second, third] = [openai.chat.completions.create({ messages }), openai.chat.completions.create({ messages })];
  // A stream takes its turn when it is read.
  assert.equal((await second).choices[0].message.content, "one");
  let seen = 0;
  for await (const { choices } of stream) {
    seen += choices[0].delta.content?.length ?? 0;
    if (seen) break;
  }
  await third;
  const log = engine.log.map(([what]) => what).filter((what) => what === "chat" || what === "ended");
  assert.deepEqual(log, ["chat", "ended", "chat", "ended", "chat", "ended"]);
});

test("an answer can be interrupted, and its message read", async () => {
  const engine = new Played(babble(200), "b");
  const openai = new OpenAI(engine);
  let text = "";
  let reason = null;
  for await (const { choices } of await openai.chat.completions.create({ messages, stream: true })) {
    text += choices[0].delta.content ?? "";
    reason = choices[0].finish_reason;
    assert.equal(await openai.getMessage(), text);
    if (text.length > 20) await openai.interruptGenerate();
  }
  assert.equal(reason, "abort");
  assert.ok(text.length > 20 && text.length < 40);
  assert.equal(await openai.getMessage(), text);
  await openai.resetChat();
  assert.equal(await openai.getMessage(), "");
  // Nothing is under way: the next answer is none of its business.
  engine.log.length = 0;
  await openai.interruptGenerate();
  assert.deepEqual(engine.log, []);
  assert.equal((await openai.chat.completions.create({ messages })).choices[0].finish_reason, "stop");
  await openai.unload();
  assert.deepEqual(engine.log.at(-1), ["dispose"]);
});

test("an answer that is interrupted before it begins says nothing", async () => {
  const engine = new Played("never");
  const openai = new OpenAI(engine);
  const stream = await openai.chat.completions.create({ messages, stream: true });
  await stream.next();
  await openai.interruptGenerate();
  const { value } = await stream.next();
  assert.equal(value.choices[0].finish_reason, "abort");
  assert.ok(!engine.log.some(([what]) => what === "chat"));
});

test("the end has the engine's reason", async () => {
  for (const [ends, wanted] of [["stop", "stop"], ["length", "length"], ["context", "length"], ["cancelled", "abort"]]) {
    const engine = new Played("abc");
    engine.ends = ends;
    assert.equal((await new OpenAI(engine).chat.completions.create({ messages })).choices[0].finish_reason, wanted);
  }
  const engine = new Played(["a", "b"]);
  engine.chat = async function* () {
    throw new EngineError("device-lost", "it was lost");
  };
  const openai = new OpenAI(engine);
  await assert.rejects(openai.chat.completions.create({ messages }), { code: "device-lost" });
  await assert.rejects(openai.chat.completions.create({ messages }), { code: "device-lost" });
});

test("what is not supported is refused by its name", async () => {
  const engine = new Played();
  const openai = new OpenAI(engine);
  const user = (content) => ({ messages: [{ role: "user", content }] });
  for (const [request, field] of [
    [null, "the request"],
    [{}, "messages"],
    [{ messages: [] }, "messages"],
    [{ messages: [{ role: "tool", content: "x" }] }, "messages[0].role"],
    [{ messages: [...messages, { role: "user", content: "x", name: "Ann" }] }, "messages[1].name"],
    [user(3), "messages[0].content"],
    [user([{ type: "image_url", image_url: {} }]), "messages[0].content[0].type"],
    [user([{ type: "text" }]), "messages[0].content[0].text"],
    [{ messages, n: 2 }, "n"],
    [{ messages, tools: [{ type: "function" }] }, "tools"],
    [{ messages, response_format: { type: "json_object" } }, "response_format"],
    [{ messages, frequency_penalty: 0.5 }, "frequency_penalty"],
    [{ messages, logit_bias: { 5: -100 } }, "logit_bias"],
    [{ messages, user: "ann" }, "user"],
    [{ messages, toString: 1 }, "toString"],
    [{ messages, model: "gpt-4o" }, "model"],
    [{ messages, stream: "yes" }, "stream"],
    [{ messages, stream_options: { include_usage: true } }, "stream_options"],
    [{ messages, stream: true, stream_options: { chunks: 2 } }, "stream_options.chunks"],
    [{ messages, stream: true, stream_options: { include_usage: 1 } }, "stream_options.include_usage"],
    [{ messages, temperature: 3 }, "temperature"],
    [{ messages, temperature: NaN }, "temperature"],
    [{ messages, top_p: "0.5" }, "top_p"],
    [{ messages, max_tokens: 0 }, "max_tokens"],
    [{ messages, max_tokens: 1.5 }, "max_tokens"],
    [{ messages, max_tokens: 5, max_completion_tokens: 5 }, "max_completion_tokens"],
    [{ messages, seed: -1 }, "seed"],
    [{ messages, stop: "" }, "stop"],
    [{ messages, stop: ["a", null] }, "stop"],
    [{ messages, logprobs: 3 }, "logprobs"],
    [{ messages, top_logprobs: 2 }, "top_logprobs"],
    [{ messages, logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    [{ messages, steering: {} }, "steering"],
  ]) {
    const refusal = (error) => error instanceof EngineError && error.code === "bad-request" && error.field === field && error.message.includes(field);
    await assert.rejects(openai.chat.completions.create(request), refusal, JSON.stringify(request));
  }
  assert.deepEqual(engine.log, []);
});
