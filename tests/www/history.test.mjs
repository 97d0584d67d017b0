// Kept conversations: what goes in comes out, bounded, whatever was stored; and the export.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Conversation } from "../../www/conversation.js";
import { History, MAX_KEPT, memory } from "../../www/history.js";
import { Keeper } from "../../www/keeper.js";
import { EngineError } from "../../www/line.js";
import { Settings } from "../../www/settings.js";
import { revive, save, toJson, toMarkdown } from "../../www/transcript.js";

const session = new Map();
globalThis.sessionStorage = { getItem: (key) => session.get(key) ?? null, setItem: (key, value) => session.set(key, value) };
globalThis.location = new URL("https://a.example/page/");
globalThis.localStorage = { getItem: () => null, setItem: () => {} };
globalThis.addEventListener = () => {};
Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 32);
console.log(`seed ${seed}`);
let state = seed >>> 0;
function below(n) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
}
const tick = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const setting = (label, from, feature = 329) => ({ id: 1, label, on: true, hook: "layers.3", feature, op: "clamp", value: 8, positions: "all", onlyIfActive: false, includeBos: false, from });
const token = (text, under) => ({ id: 7, text, activation: below(100) / 10, top: [[3, 1.5]], steered: true, ...(under === undefined ? {} : { setting: under }) });

function turn(prompt, more = {}) {
  return {
    prompt,
    answers: [
      { text: "Paris.", prompt: [token("<|user|>")], tokens: [token("Paris"), token(".")], end: "finished" },
      { text: "I must", prompt: [], tokens: [token("I", 0), token(" must", 1)], end: "stopped" },
    ],
    tracked: { hook: "layers.3", feature: 329 },
    settings: [setting("clamp 8", 0), setting("clamp 3", 1, 431)],
    sampling: { temperature: 0, seed: 1, maxTokens: 128 },
    model: "Nano Phi-3",
    dictionary: "layers.3 of Nano Phi-3",
    state: "done",
    error: null,
    tokensPerSecond: 12,
    firstTokenAt: 0,
    ...more,
  };
}

test("what is kept comes back as it was", () => {
  const turns = [turn("What is the capital of France?"), turn("And now?")];
  const failed = turn("Broken", { state: "failed", error: new EngineError("device-lost", "gone") });
  const back = revive(structuredClone(save("x", [...turns, failed], [["model", "nano"]])));
  assert.deepEqual(back.slice(0, 2), turns);
  assert.equal(back[2].state, "failed");
  assert.ok(back[2].error instanceof EngineError);
  assert.equal(back[2].error.code, "device-lost");
});

test("an answer that was being written when the page closed is broken off, with what it had said", () => {
  const running = turn("Hello", { state: "running" });
  running.answers[0].end = null;
  const [back] = revive(save("x", [running], []));
  assert.deepEqual([back.state, back.error.code, back.answers[0].end, back.answers[0].text], ["failed", "broken-off", "broken", "Paris."]);
});

test("what is kept is bounded: turns, tokens, characters", () => {
  const many = Array.from({ length: 700 }, (_, index) => turn(`${index}`));
  const kept = save("x", many, []);
  assert.equal(kept.turns.length, 500);
  assert.equal(kept.turns.at(-1).prompt, "699");
  const long = turn("x".repeat(1e6));
  long.answers[0].tokens = Array.from({ length: 30_000 }, () => token("x"));
  const bounded = save("x", [turn("first"), long, turn("last")], []);
  assert.deepEqual(bounded.turns.map(({ answers }) => answers[0].tokens.length), [0, 0, 2]);
  assert.equal(bounded.turns[0].answers[0].text, "Paris.");
  assert.ok(bounded.turns[1].prompt.length <= 200_000);
  assert.ok(bounded.title.length < 80);
});

test("whatever was stored, only turns come out", () => {
  const good = save("x", [turn("Hello")], []);
  const junk = () => {
    const kinds = [null, 3, -1, "x", "", [], {}, true, NaN, [null], [[]], { text: 3 }, [{ id: 1 }], "x".repeat(1000)];
    return kinds[below(kinds.length)];
  };
  let kept = 0;
  for (let round = 0; round < 3000; round++) {
    const saved = structuredClone(good);
    for (let k = below(4); k >= 0; k--) {
      // One place somewhere in it becomes something else.
      let at = saved;
      for (let depth = below(5); depth > 0; depth--) {
        const inside = Object.keys(at).filter((key) => at[key] && typeof at[key] === "object");
        if (!inside.length) break;
        at = at[inside[below(inside.length)]];
      }
      const keys = Object.keys(at);
      if (keys.length) at[keys[below(keys.length)]] = junk();
    }
    for (const back of revive(saved)) {
      kept++;
      assert.equal(back.answers.length, 2);
      assert.ok(back.settings.length > 0);
      for (const { tokens, prompt } of back.answers) {
        for (const one of [...tokens, ...prompt]) assert.equal(typeof one.text, "string");
        assert.ok(tokens.every((one) => one.setting === undefined || back.settings[one.setting]));
      }
      assert.ok(back.state === "done" || back.error instanceof EngineError);
      toMarkdown({ ...good, turns: [back] });
    }
  }
  assert.ok(kept > 300, `${kept} turns`);
});

test("the export says what was asked, what was answered, and under which setting", () => {
  const saved = save("x", [turn("Line one\nline two")], [["model", "nano"]]);
  const text = toMarkdown(saved);
  for (const part of ["# Line one line two", "> Line one\n> line two", "Model: Nano Phi-3", "layers.3 of Nano Phi-3", "clamp 8 of feature 329 at layers.3; clamp 3 of feature 431 at layers.3 from token 2 on (stopped)", "Paris.", "seed 1"]) {
    assert.ok(text.includes(part), `${part} is not in:\n${text}`);
  }
  assert.deepEqual(JSON.parse(toJson(saved)).turns[0].answers[1].tokens[1].setting, 1);
});

test("the last conversations are kept, the oldest give way", async () => {
  const history = new History(memory(), false);
  for (let k = 0; k < MAX_KEPT + 5; k++) await history.save({ ...save(`c${k}`, [turn(`number ${k}`)], []), at: k });
  const list = await history.list();
  assert.equal(list.length, MAX_KEPT);
  assert.deepEqual([list[0].id, list.at(-1).id], [`c${MAX_KEPT + 4}`, "c5"]);
  assert.equal(await history.read("c0"), undefined);
  await history.remove("c7");
  assert.equal((await history.list()).length, MAX_KEPT - 1);
  await history.clear();
  assert.deepEqual(await history.list(), []);
});

function page(shelf) {
  const conversation = new Conversation(new Settings());
  const troubles = [];
  const keeper = new Keeper(new History(shelf, true), conversation, { places: () => [["model", "nano"]], trouble: (error) => troubles.push(error) });
  const say = (text) => {
    const one = turn(text);
    conversation.turns.push(one);
    conversation.emit("add", one);
    conversation.emit("end", one);
  };
  return { conversation, keeper, troubles, say };
}

test("a reload brings the tab's conversation back, and a new chat leaves it in the list", async () => {
  session.clear();
  const shelf = memory();
  const first = page(shelf);
  await first.keeper.resume();
  first.say("one");
  first.say("two");
  // At once, before anything is written.
  first.conversation.clear();
  first.keeper.begin();
  first.say("three");
  await tick(5);
  assert.deepEqual((await first.keeper.history.list()).map(({ title, turns }) => [title, turns]).sort(), [["one", 2], ["three", 1]]);

  const again = page(shelf);
  await again.keeper.resume();
  assert.deepEqual(again.conversation.turns.map(({ prompt }) => prompt), ["three"]);
  again.say("four");
  await tick(5);
  const list = await again.keeper.history.list();
  assert.deepEqual(list.map(({ title, turns }) => [title, turns]).sort(), [["one", 2], ["three", 2]]);

  const other = list.find(({ title }) => title === "one");
  again.keeper.open(await again.keeper.history.read(other.id));
  assert.equal(again.conversation.turns.length, 2);
  await again.keeper.forget(other.id);
  await tick(5);
  assert.equal((await again.keeper.history.list()).length, 1);
  again.say("five");
  await again.keeper.forget(null);
  await tick(5);
  assert.deepEqual(await again.keeper.history.list(), [], "what was still to be written came back");
  session.clear();
  assert.equal(await page(shelf).keeper.resume(), undefined);
});

test("a disk that is full is told of, and the chat goes on", async () => {
  const { conversation, troubles, say } = page({ ...memory(), put: async () => Promise.reject(new DOMException("full", "QuotaExceededError")) });
  say("one");
  say("two");
  await tick(5);
  assert.ok(troubles.length >= 1 && troubles.length <= 3);
  assert.equal(conversation.turns.length, 2);
});
