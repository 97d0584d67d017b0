// The conversation against an engine that is played by the test: how turns end, which settings they
// ran under, and that stopping needs no help from the engine.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Conversation } from "../../www/conversation.js";
import { Settings } from "../../www/settings.js";

globalThis.location = new URL("https://a.example/page/");
globalThis.history = { replaceState: () => {} };
globalThis.localStorage = { getItem: () => null, setItem: () => {} };

const REPORT = { hook: "layers.3", feature: 329, value: { default: 8, useful: [7, 9], max: 16 }, base: null, curve: [] };
const tick = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** An engine whose answers are written by the test, event by event. */
class Played {
  constructor() {
    this.info = { sae: { hook: "layers.3" } };
    this.settings = 0;
    this.asked = [];
    this.cancelled = 0;
    this.queue = [];
    this.wake = () => {};
    this.over = false;
  }
  async setSteering(lane, interventions) {
    this.asked.push([lane, interventions]);
    return ++this.settings;
  }
  async *chat(options) {
    this.options = options;
    this.over = false;
    this.queue = [];
    for (;;) {
      while (this.queue.length) yield this.queue.shift();
      if (this.failure) throw this.failure;
      if (this.over) return;
      await new Promise((resolve) => (this.wake = resolve));
    }
  }
  async cancel() {
    this.cancelled++;
  }
  says(...events) {
    this.queue.push(...events);
    this.wake();
  }
  ends() {
    this.over = true;
    this.wake();
  }
}

const word = (lane, text, setting) => ({ type: "token", lane, id: 1, text, steered: lane === 1, setting });
const done = (lane, reason, text = "") => ({ type: "done", lane, reason, text, tokens: 1 });

async function begun(prompt = "Hello") {
  const settings = new Settings();
  settings.start(REPORT);
  const conversation = new Conversation(settings);
  const engine = new Played();
  conversation.engine = engine;
  const sent = conversation.send(prompt);
  await tick();
  return { settings, conversation, engine, sent, turn: conversation.turns[0] };
}

test("an answer says how it ended", async () => {
  const cases = [
    ["stop", "Paris.", "finished"],
    ["stop", " \n", "empty"],
    ["length", "Par", "length"],
    ["context", "Par", "context"],
    ["cancelled", "Par", "stopped"],
  ];
  for (const [reason, text, end] of cases) {
    const { engine, sent } = await begun();
    engine.says(word(0, text, 1), done(0, reason), word(1, "x", 2), done(1, "stop"));
    engine.ends();
    const turn = await sent;
    assert.deepEqual([turn.state, turn.answers[0].end, turn.answers[1].end], ["done", end, "finished"], reason);
  }
});

test("an answer that breaks off says so, and what it had said stays", async () => {
  const { engine, sent, conversation } = await begun();
  engine.says(word(0, "Par", 1), done(0, "stop"), word(1, "Pa", 2));
  await tick();
  engine.failure = Object.assign(new Error("gone"), { code: "device-lost" });
  engine.ends();
  const turn = await sent;
  assert.deepEqual([turn.state, turn.answers[0].end, turn.answers[1].end, turn.answers[1].text], ["failed", "finished", "broken", "Pa"]);
  assert.equal(conversation.running, false);
});

test("a setting that changes while the answer is written takes effect, and each token knows its own", async () => {
  const { settings, engine, sent, turn } = await begun();
  engine.says(word(1, "a", 2), word(1, "b", 2));
  await tick();
  settings.set({ strength: 3 });
  await tick();
  // The pass under way still ran under the old one.
  engine.says(word(1, "c", 2), word(1, "d", 3));
  await tick(120);
  settings.set({ steering: false });
  await tick();
  engine.says(word(1, "e", 4));
  await tick(120);
  // What changes nothing for the engine is not sent to it.
  settings.set({ tint: false, strength: 5 });
  await tick();
  assert.deepEqual(engine.asked.slice(2).map(([lane, list]) => [lane, list.map((one) => one.value)]), [[1, [3]], [1, []]]);
  engine.says(done(0, "stop"), done(1, "stop"));
  engine.ends();
  await sent;
  assert.deepEqual(turn.settings.map(({ label, from }) => [label, from]), [["clamp 8", 0], ["clamp 3", 3], ["steering off", 4]]);
  assert.deepEqual(turn.answers[1].tokens.map((token) => token.setting), [0, 0, 0, 1, 2]);
  assert.deepEqual(turn.tracked, { hook: "layers.3", feature: 329 });
});

test("a dragged slider sends few settings, and those without a token are forgotten", async () => {
  const { settings, engine, sent, turn } = await begun();
  for (let strength = 0; strength < 8; strength += 0.1) settings.set({ strength });
  await tick(120);
  assert.ok(engine.asked.length <= 5, `${engine.asked.length} calls`);
  engine.says(word(1, "a", engine.settings));
  await tick();
  engine.ends();
  await sent;
  assert.deepEqual(turn.settings.map(({ from }) => from), [null, 0]);
  assert.equal(turn.answers[1].tokens[0].setting, 1);
});

test("a setting that the engine refuses is told of and leaves the answer alone", async () => {
  const { settings, conversation, engine, sent, turn } = await begun();
  const refused = [];
  conversation.addEventListener("refused", (event) => refused.push(event.detail.code));
  engine.setSteering = async () => {
    throw Object.assign(new Error("no such feature"), { code: "bad-steering" });
  };
  settings.set({ feature: 7 });
  await tick(80);
  engine.ends();
  await sent;
  assert.equal(turn.state, "done");
  assert.equal(turn.settings.length, 1);
  assert.equal(refused.length, 1);
});

test("stop ends a turn in good order, and without the engine's help", async () => {
  const good = await begun();
  good.engine.cancel = async () => {
    good.engine.says(done(0, "cancelled"), done(1, "cancelled"));
    good.engine.ends();
  };
  good.engine.says(word(0, "a", 1));
  assert.equal(await good.conversation.stop(), true);
  assert.deepEqual((await good.sent).answers.map((answer) => answer.end), ["stopped", "stopped"]);

  for (const cancel of [() => new Promise(() => {}), async () => Promise.reject(new Error("dead"))]) {
    const { conversation, engine, sent, turn } = await begun();
    engine.cancel = cancel;
    engine.says(word(0, "a", 1));
    await tick();
    assert.equal(await conversation.stop(30), false);
    assert.equal(await sent, turn);
    assert.deepEqual([turn.state, turn.answers[0].end, turn.answers[0].text], ["done", "stopped", "a"]);
    assert.equal(conversation.running, false);
    // What the engine still says belongs to nobody.
    engine.says(word(0, "late", 1));
    await tick();
    assert.equal(turn.answers[0].text, "a");
  }
});

test("a stop before the answer begins needs no cancel", async () => {
  const settings = new Settings();
  settings.start(REPORT);
  const conversation = new Conversation(settings);
  const engine = new Played();
  engine.setSteering = () => new Promise(() => {});
  conversation.engine = engine;
  const sent = conversation.send("Hello");
  assert.equal(await conversation.stop(20), false);
  assert.equal((await sent).answers[0].end, "stopped");
});
