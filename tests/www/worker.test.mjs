// The engine's worker around an engine that is played by the test.

import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

/** An engine whose test runs until it is cancelled or let go, and that answers one call at a time. */
const ENGINE = `
export default async () => {};
const busy = () => Object.assign(new Error("an answer is under way"), { code: "busy" });
export class Engine {
  static async load() { return (globalThis.played = new Engine()); }
  log = [];
  working = false;
  cancelled = false;
  get info() { return { model: {} }; }
  take() {
    if (this.working) throw busy();
    this.working = true;
    this.cancelled = false;
  }
  async testSae() {
    this.take();
    this.log.push("test");
    while (!this.cancelled && !this.letGo) await new Promise((resolve) => setTimeout(resolve, 1));
    this.working = false;
    if (this.cancelled) throw Object.assign(new Error("this was stopped"), { code: "cancelled" });
    this.log.push("tested");
    return { sentence: "it fits" };
  }
  chat() {
    this.take();
    this.log.push("chat");
    return new ReadableStream({
      pull: async (controller) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        controller.enqueue({ type: "done", reason: this.cancelled ? "cancelled" : "stop" });
        controller.close();
        this.working = false;
      },
    });
  }
  async topFeatures() {
    this.take();
    this.log.push("features");
    this.working = false;
    return { tokens: [] };
  }
  async lab({ onEvent }) {
    this.take();
    this.log.push("room");
    while (!this.roomy) await new Promise((resolve) => setTimeout(resolve, 1));
    this.working = false;
    if (this.roomy === "none") throw Object.assign(new Error("no room"), { code: "out-of-memory" });
    this.log.push("made");
    onEvent({ type: "progress" });
    while (!this.letGo) await new Promise((resolve) => setTimeout(resolve, 1));
    return { task: "card" };
  }
  memory() { return { gpuBytes: 1, heapBytes: 2 }; }
  async fork(lanes) {
    const fork = new Engine();
    Object.defineProperty(fork, "info", { value: { lanes } });
    fork.log = this.log;
    fork.dispose = () => this.log.push("freed");
    return fork;
  }
  setSteering(lane, list) { this.log.push([lane, list]); return 7; }
  cancel() { this.cancelled = true; }
  dispose() {}
}
`;

const folder = await mkdtemp(join(tmpdir(), "worker-"));
await mkdir(join(folder, "www"));
for (const name of ["worker.js", "lifeline.js"]) await copyFile(new URL(`../../www/${name}`, import.meta.url), join(folder, "www", name));
await writeFile(join(folder, "phi3-steer.js"), ENGINE);
await writeFile(join(folder, "package.json"), '{"type": "module"}');

/** @type {Map<number, {resolve: (reply: any) => void, events: any[]}>} */
const waiting = new Map();
let next = 1;
let begun = () => {};
const ready = new Promise((resolve) => (begun = resolve));
globalThis.self = {
  name: "",
  postMessage(reply) {
    if (reply.ready) begun();
    const call = waiting.get(reply.id);
    if (!call) return;
    if ("event" in reply) call.events.push(reply.event);
    else call.resolve({ ...reply, events: call.events });
  },
  addEventListener() {},
};
await import(pathToFileURL(join(folder, "www", "worker.js")).href);
await ready;

/** Calls the worker; how it answers in the end. */
function call(method, ...args) {
  const id = next++;
  return new Promise((resolve) => {
    waiting.set(id, { resolve, events: [] });
    globalThis.self.onmessage({ data: { id, method, args } });
  });
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

async function loaded() {
  assert.ok("ok" in (await call("load", {})));
  return globalThis.played;
}

test("a chat ends the dictionary's test and is answered", async () => {
  const engine = await loaded();
  const testing = call("testSae");
  await soon();
  const answered = await call("chat", {});
  assert.equal(answered.error, undefined);
  assert.deepEqual(answered.events, [{ type: "done", reason: "stop" }]);
  assert.equal((await testing).error.code, "cancelled");
  assert.deepEqual(engine.log, ["test", "chat"]);
});

test("a look at a text's features ends it too", async () => {
  const engine = await loaded();
  const testing = call("testSae");
  await soon();
  assert.deepEqual((await call("topFeatures", "text", "layers.3", 3)).ok, { tokens: [] });
  assert.equal((await testing).error.code, "cancelled");
  assert.deepEqual(engine.log, ["test", "features"]);
});

test("a cancel that comes before the chat has begun counts", async () => {
  await loaded();
  const testing = call("testSae");
  await soon();
  const chat = call("chat", {});
  await call("cancel");
  assert.deepEqual((await chat).events, [{ type: "done", reason: "cancelled" }]);
  assert.equal((await testing).error.code, "cancelled");
});

test("what is asked while the lab makes room waits for that, and not for the lab", async () => {
  for (const roomy of [true, "none"]) {
    const engine = await loaded();
    const lab = call("lab", {});
    await soon();
    const asked = call("chat", {});
    await soon();
    const before = [...engine.log];
    engine.roomy = roomy;
    const answered = await asked;
    engine.letGo = true;
    const { ok, error } = await lab;
    assert.deepEqual(before, ["room"]);
    assert.deepEqual(answered.events, [{ type: "done", reason: "stop" }], answered.error?.message);
    if (roomy === "none") assert.equal(error.code, "out-of-memory");
    else assert.deepEqual(ok, { task: "card" });
  }
});

test("a test that nothing disturbs ends by itself, and its memory can be asked for meanwhile", async () => {
  const engine = await loaded();
  const testing = call("testSae");
  await soon();
  assert.deepEqual((await call("memory")).ok, { gpuBytes: 1, heapBytes: 2 });
  engine.letGo = true;
  assert.deepEqual((await testing).ok, { sentence: "it fits" });
  assert.equal((await call("chat", {})).error, undefined);
  assert.deepEqual(engine.log, ["test", "tested", "chat"]);
});

test("forks answer by their numbers, and are freed", async () => {
  const engine = await loaded();
  const [one, two] = [(await call("fork", 5)).ok, (await call("fork", 3)).ok];
  assert.deepEqual([one.info, two.info], [{ lanes: 5 }, { lanes: 3 }]);
  assert.notEqual(one.number, two.number);
  assert.equal((await call("ofFork", one.number, "setSteering", 4, [])).ok, 7);
  assert.deepEqual((await call("ofFork", one.number, "chat", {})).events, [{ type: "done", reason: "stop" }]);
  assert.equal((await call("ofFork", one.number, "load", {})).error.code, "bad-request");
  await call("ofFork", one.number, "dispose");
  assert.equal((await call("ofFork", one.number, "chat", {})).error.code, "not-loaded");
  await call("dispose");
  assert.deepEqual(engine.log, [[4, []], "chat", "freed", "freed"]);
});
