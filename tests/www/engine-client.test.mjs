// The worker client against a worker that is played by the test.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "../../www/engine-client.js";

globalThis.document = { baseURI: "https://a.example/page/" };

/** What the last made worker was sent, and how it answers. */
let worker;
globalThis.Worker = class {
  constructor() {
    this.sent = [];
    this.ended = false;
    this.answer = () => {};
    worker = this;
  }
  postMessage(message) {
    const sent = structuredClone(message);
    this.sent.push(sent);
    this.answer(sent);
  }
  terminate() {
    this.ended = true;
  }
  says(data) {
    this.onmessage({ data });
  }
};

const INFO = { model: { name: "tiny" } };

async function loaded() {
  const progress = [];
  const loading = Engine.load({ model: "https://a.example/m/", onProgress: (event) => progress.push(event) });
  assert.equal(worker.sent.length, 0, "nothing is sent before the worker is ready");
  worker.answer = ({ id }) => {
    worker.says({ id, event: { stage: "weights", loaded: 1, total: 2 } });
    worker.says({ id, ok: INFO });
  };
  worker.says({ ready: true });
  const engine = await loading;
  assert.deepEqual(progress, [{ stage: "weights", loaded: 1, total: 2 }]);
  worker.sent.length = 0;
  worker.answer = () => {};
  return engine;
}

const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;

test("load passes progress on and gives the info", async () => {
  assert.deepEqual((await loaded()).info, INFO);
});

test("addresses are the page's and not the worker's", async () => {
  for (const [given, sent] of [
    ["models/nano/", "https://a.example/page/models/nano/"],
    ["/m.gguf", "https://a.example/m.gguf"],
    ["https://b.example/m/", "https://b.example/m/"],
    ["https://", "https://"],
  ]) {
    const loading = Engine.load({ model: given, sae: given });
    worker.answer = ({ id }) => worker.says({ id, ok: INFO });
    worker.says({ ready: true });
    await loading;
    assert.deepEqual(worker.sent[0].args, [{ model: sent, sae: sent }]);
  }
  const files = [new File(["x"], "x.gguf")];
  const loading = Engine.load({ model: files });
  worker.answer = ({ id }) => worker.says({ id, ok: INFO });
  worker.says({ ready: true });
  await loading;
  assert.ok(!("sae" in worker.sent[0].args[0]));
});

test("chat streams its events in order and ends", async () => {
  const engine = await loaded();
  worker.answer = async ({ id, method }) => {
    if (method !== "chat") return;
    for (let n = 0; n < 20; n++) {
      worker.says({ id, event: { n } });
      if (n % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    worker.says({ id, ok: null });
  };
  const seen = [];
  for await (const event of engine.chat({ lanes: [] })) seen.push(event.n);
  assert.deepEqual(seen, [...Array(20).keys()]);
});

test("the dictionary's test and the memory are asked for", async () => {
  const engine = await loaded();
  const answers = { testSae: { sentence: "it fits" }, memory: { gpuBytes: 5, heapBytes: 6 } };
  worker.answer = ({ id, method }) => worker.says({ id, ok: answers[method] });
  assert.deepEqual(await engine.testSae(), answers.testSae);
  assert.deepEqual(await engine.memory(), answers.memory);
  worker.answer = ({ id }) => worker.says({ id, error: { code: "cancelled", message: "It was stopped." } });
  await assert.rejects(engine.testSae(), code("cancelled"));
});

test("a fork speaks over its engine's line, which outlives it", async () => {
  const engine = await loaded();
  worker.answer = ({ id, method, args }) => {
    if (method === "ofFork" && args[1] === "chat") worker.says({ id, event: { type: "done", lane: 4 } });
    worker.says({ id, ok: method === "fork" ? { number: 3, info: { lanes: args[0] } } : null });
  };
  const fork = await engine.fork(5);
  assert.deepEqual(fork.info, { lanes: 5 });
  await fork.setSteering(4, []);
  for await (const event of fork.chat({ lanes: [] })) assert.equal(event.lane, 4);
  await fork.dispose();
  assert.deepEqual(
    worker.sent.map(({ method, args }) => [method, ...args]),
    [["fork", 5], ["ofFork", 3, "setSteering", 4, []], ["ofFork", 3, "chat", { lanes: [] }], ["ofFork", 3, "dispose"]],
  );
  assert.equal(worker.ended, false);
  await engine.memory();
});

test("leaving a chat early cancels it", async () => {
  const engine = await loaded();
  let chat;
  worker.answer = ({ id, method }) => {
    if (method === "chat") {
      chat = id;
      worker.says({ id, event: { n: 0 } });
    } else if (method === "cancel") {
      worker.says({ id, ok: null });
      worker.says({ id: chat, ok: null });
    }
  };
  for await (const event of engine.chat({ lanes: [] })) {
    assert.equal(event.n, 0);
    break;
  }
  assert.deepEqual(
    worker.sent.map((message) => message.method),
    ["chat", "cancel"],
  );
});

test("an error keeps its code, after the events before it", async () => {
  const engine = await loaded();
  worker.answer = ({ id }) => {
    worker.says({ id, event: { n: 0 } });
    worker.says({ id, error: { code: "context-full", message: "Too long." } });
  };
  const seen = [];
  await assert.rejects(async () => {
    for await (const event of engine.chat({ lanes: [] })) seen.push(event);
  }, code("context-full"));
  assert.equal(seen.length, 1);
});

test("a worker that dies rejects what waits and what comes", async () => {
  const engine = await loaded();
  const waiting = engine.setSteering(1, []);
  worker.onerror({ message: "unreachable" });
  await assert.rejects(waiting, code("crashed"));
  await assert.rejects(engine.setSteering(1, []), code("crashed"));
  assert.ok(worker.ended);
});

test("a worker without its wasm says so", async () => {
  const loading = Engine.load({ model: "https://a.example/m/" });
  worker.says({ fatal: { code: "no-engine", message: "404" } });
  await assert.rejects(loading, code("no-engine"));
});

test("loading can be cancelled, before and during", async () => {
  const abort = new AbortController();
  const loading = Engine.load({ model: "https://a.example/m/" }, abort.signal);
  worker.says({ ready: true });
  abort.abort();
  await assert.rejects(loading, code("cancelled"));
  assert.ok(worker.ended);
  await assert.rejects(Engine.load({ model: "https://a.example/m/" }, abort.signal), code("cancelled"));
});

test("a failed load ends the worker", async () => {
  const loading = Engine.load({ model: "https://a.example/m/" });
  worker.answer = ({ id }) => worker.says({ id, error: { code: "not-found", message: "No config.json." } });
  worker.says({ ready: true });
  await assert.rejects(loading, code("not-found"));
  assert.ok(worker.ended);
});

test("addresses are those of the caller, be it a page with a base or a worker", async () => {
  const sent = async (model) => {
    const options = { model, lanes: 1 };
    const loading = Engine.load(options);
    worker.answer = ({ id }) => worker.says({ id, ok: INFO });
    worker.says({ ready: true });
    await loading;
    assert.equal(options.model, model, "the caller's object stays as it was");
    return worker.sent[0].args[0].model;
  };
  const { document, location } = globalThis;
  try {
    globalThis.document = { baseURI: "https://a.example/deep/page.html?x#y" };
    assert.equal(await sent("../sae/?token=1"), "https://a.example/sae/?token=1");
    delete globalThis.document;
    globalThis.location = { href: "https://c.example/w/worker.js" };
    assert.equal(await sent("m/"), "https://c.example/w/m/");
    delete globalThis.location;
    assert.equal(await sent("https://b.example/m.gguf"), "https://b.example/m.gguf");
  } finally {
    Object.assign(globalThis, { document, location });
  }
});
