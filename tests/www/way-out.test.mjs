// What the page does with a worker that hangs, closes itself, or falls silent.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Engine } from "../../www/engine-client.js";
import { Heartbeat } from "../../www/heartbeat.js";
import { holdLock } from "../../www/lifeline.js";

/** Locks as the browser has them, of which the test can kill a holder. */
class Locks {
  constructor() {
    this.held = new Map();
  }
  async request(name, options, callback = options) {
    while (this.held.has(name)) {
      const { signal } = options;
      await Promise.race([
        this.held.get(name).gone,
        new Promise((_, reject) => signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")))),
      ]);
    }
    let kill;
    const gone = new Promise((resolve) => (kill = resolve)).then(() => this.held.delete(name));
    this.held.set(name, { gone, kill });
    await Promise.race([callback({ name }), gone]);
    this.held.delete(name);
  }
}
const locks = new Locks();
Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });

globalThis.document = { baseURI: "https://a.example/page/" };
let worker;
globalThis.Worker = class {
  constructor(_url, { name }) {
    this.name = name;
    this.ended = false;
    this.answer = () => {};
    worker = this;
  }
  postMessage(message) {
    this.answer(structuredClone(message));
  }
  terminate() {
    this.ended = true;
  }
  says(data) {
    if (!this.ended) this.onmessage({ data });
  }
};

const tick = (milliseconds = 0) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;

async function loaded() {
  const loading = Engine.load({ model: "https://a.example/m/" });
  worker.answer = ({ id, method }) => method === "load" && worker.says({ id, ok: { model: {} } });
  worker.says({ ready: true, lock: await holdLock(worker.name) });
  const engine = await loading;
  worker.answer = () => {};
  return engine;
}

test("terminate ends the worker at once and rejects all that waits as cancelled", async () => {
  const engine = await loaded();
  const lost = [];
  engine.lost.then((error) => lost.push(error.code));
  const chat = (async () => {
    for await (const event of engine.chat({ lanes: [] })) assert.fail(JSON.stringify(event));
  })();
  const steering = engine.setSteering(1, []);
  const features = engine.topFeatures("text", "layers.3", 5);
  engine.terminate();
  for (const waiting of [chat, steering, features]) await assert.rejects(waiting, code("cancelled"));
  await assert.rejects(engine.cancel(), code("cancelled"));
  assert.ok(worker.ended);
  await engine.settled();
  await tick(5);
  assert.deepEqual(lost, [], "it was ended on purpose");
});

test("a worker that closes itself without a word is a crash, for what waits and what comes", async () => {
  const engine = await loaded();
  const chat = (async () => {
    for await (const event of engine.chat({ lanes: [] })) assert.fail(JSON.stringify(event));
  })();
  locks.held.get(worker.name).kill();
  await assert.rejects(chat, code("crashed"));
  assert.equal((await engine.lost).code, "crashed");
  engine.terminate();
  await assert.rejects(engine.setSteering(1, []), code("crashed"));
});

test("a worker that was ended on purpose is nobody's crash", async () => {
  const engine = await loaded();
  const { name } = worker;
  worker.answer = ({ id, method }) => method === "dispose" && worker.says({ id, ok: null });
  await engine.dispose();
  locks.held.get(name)?.kill();
  const lost = await Promise.race([engine.lost.then(() => "lost"), tick(20).then(() => "quiet")]);
  assert.equal(lost, "quiet");
});

test("without locks there is only less to know", async () => {
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  assert.equal(await holdLock("name"), undefined);
  const engine = await loaded();
  worker.onerror({ message: "unreachable" });
  assert.equal((await engine.lost).code, "crashed");
  Object.defineProperty(globalThis, "navigator", { value: { locks: { request: async () => Promise.reject(new Error("forbidden")) } }, configurable: true });
  assert.equal(await holdLock("name"), undefined);
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
});

test("disposing of a worker that hangs takes two seconds, not for ever", async () => {
  const engine = await loaded();
  const start = performance.now();
  await engine.dispose();
  assert.ok(performance.now() - start < 4000);
  assert.ok(worker.ended);
});

test("a chat that nobody listens to any more is known to run on", async () => {
  const engine = await loaded();
  let chat;
  worker.answer = ({ id, method }) => method === "chat" && (chat = id);
  const events = engine.chat({ lanes: [] });
  const next = events.next();
  await tick();
  let settled = false;
  engine.settled().then(() => (settled = true));
  await tick();
  assert.equal(settled, false);
  worker.says({ id: chat, ok: null });
  await next;
  await tick();
  assert.equal(settled, true);
});

test("the heart beats: silence is noticed once, and its end; a late timer alone raises no alarm", async () => {
  mock.timers.enable({ apis: ["setInterval"] });
  try {
    const said = [];
    const heart = new Heartbeat({ silent: () => said.push("silent"), standing: () => said.push("standing"), back: () => said.push("back") });
    let answer = null;
    const engine = { heard: 0, ping: () => new Promise((resolve) => (answer = resolve)) };
    const pong = async () => {
      engine.heard++;
      answer();
      await Promise.resolve();
      await Promise.resolve();
    };
    const beat = async () => {
      mock.timers.tick(1500);
      await Promise.resolve();
    };
    heart.watch(engine);
    for (let k = 0; k < 10; k++) {
      await beat();
      await pong();
    }
    assert.deepEqual(said, []);
    // A machine that slept: much time, one beat.
    await beat();
    await beat();
    await pong();
    assert.deepEqual(said, []);
    for (let k = 0; k < 20; k++) await beat();
    assert.deepEqual(said, ["silent"]);
    assert.equal(heart.silent, true);
    await pong();
    await beat();
    assert.deepEqual(said, ["silent", "back"]);
    assert.equal(heart.silent, false);
    // Tokens are a sign of life as good as any.
    for (let k = 0; k < 20; k++) {
      engine.heard++;
      await beat();
    }
    assert.deepEqual(said, ["silent", "back"]);
    heart.rest();
    for (let k = 0; k < 20; k++) await beat();
    assert.deepEqual(said, ["silent", "back"]);

    // A load that answers and does not get on, and one that does.
    said.length = 0;
    heart.watch(engine, true);
    const alive = async (beats) => {
      for (let k = 0; k < beats; k++) {
        engine.heard++;
        await beat();
      }
    };
    await alive(29);
    heart.moved();
    await alive(29);
    assert.deepEqual(said, []);
    await alive(20);
    assert.deepEqual(said, ["standing"]);
    heart.moved();
    assert.deepEqual(said, ["standing", "back"]);
    heart.moved();
    // Of a worker that says nothing no more is said than that.
    for (let k = 0; k < 60; k++) await beat();
    assert.deepEqual(said, ["standing", "back", "silent"]);
    heart.watch(engine);
    await alive(60);
    heart.moved();
    assert.deepEqual(said, ["standing", "back", "silent"]);
  } finally {
    mock.timers.reset();
  }
});

test("a load tells of its worker once that runs, whether or not the load gets on", async () => {
  const started = [];
  const stop = new AbortController();
  const loading = Engine.load({ model: "https://a.example/m/" }, stop.signal, (pulse) => started.push(pulse));
  await tick();
  assert.equal(started.length, 0, "the worker's program has not come yet");
  worker.answer = ({ id, method }) => method === "ping" && worker.says({ id, ok: null });
  worker.says({ ready: true, lock: await holdLock(worker.name) });
  assert.equal(started.length, 1);
  const [pulse] = started;
  const before = pulse.heard;
  await pulse.ping();
  assert.equal(pulse.heard, before + 1);
  stop.abort();
  await assert.rejects(loading, code("cancelled"));
});

test("a worker answers within the time, or it does not", async () => {
  const engine = await loaded();
  assert.equal(await engine.answers(20), false);
  worker.answer = ({ id, method }) => method === "ping" && worker.says({ id, ok: null });
  assert.equal(await engine.answers(1000), true);
  engine.terminate();
  assert.equal(await engine.answers(1000), false);
});
