// The check of the dictionary's fit: only when it is not known, never while an answer is written.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { FitCheck } from "../../www/fit.js";

const stored = new Map();
globalThis.localStorage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value) };
// The browser's own, which Node has under another name in some versions.
globalThis.crypto ??= (await import("node:crypto")).webcrypto;

const ONE = { hook: "layers.3", vectors: 100, fvu: 0.1, l0: 24, dead: 0.1, meanActivation: 1 };
const FIT = { fit: ONE, others: [], verdict: { kind: "fits" }, sentence: "It fits." };
const INFO = { model: { name: "m", layers: 6, hidden: 256, quant: ["q4"], parameters: 1e6 }, sae: { hook: "layers.3", features: 1536 } };
const choice = (url) => ({ model: { id: url, kind: "model", name: "m", url }, sae: "auto", saeHook: "", keep: true });

/** An engine whose tests end as the list says. */
function engine(...ends) {
  return {
    info: INFO,
    tests: 0,
    async testSae() {
      this.tests++;
      const end = ends.shift() ?? FIT;
      if (typeof end === "string") throw Object.assign(new Error(end), { code: end });
      return end;
    },
  };
}

/** Lets timers of the test run, one after the other, until the promise is done. */
async function through(promise) {
  let done = false;
  promise.then(() => (done = true));
  for (let k = 0; k < 20_000 && !done; k++) {
    // What waits for the digest's thread.
    await new Promise((resolve) => setImmediate(resolve));
    mock.timers.tick(1500);
  }
  assert.ok(done, "it never ends");
}

function page() {
  const shown = [];
  const state = { free: true };
  return { shown, state, check: new FitCheck({ show: (fit) => shown.push(fit === null || fit === "checking" ? fit : fit.sentence), free: () => state.free }) };
}

test("what the report knows is not measured", async () => {
  const { shown, check } = page();
  const one = engine();
  await check.watch(one, choice("https://a.example/m/"), { fit: FIT });
  assert.deepEqual([shown, one.tests], [["It fits."], 0]);
});

test("it is measured once in a time of rest, kept, and known from then on", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    stored.clear();
    const first = page();
    const one = engine();
    first.state.free = false;
    const watching = first.check.watch(one, choice("https://a.example/m/?token=secret"), null);
    for (let k = 0; k < 20; k++) {
      await new Promise((resolve) => setImmediate(resolve));
      mock.timers.tick(1500);
    }
    assert.equal(one.tests, 0, "it was begun while an answer was written");
    first.state.free = true;
    await through(watching);
    assert.deepEqual([first.shown, one.tests], [[null, "checking", "It fits."], 1]);
    assert.ok(![...stored.values()].join().includes("secret"), "the address is stored");

    const again = page();
    const two = engine();
    await again.check.watch(two, choice("https://a.example/m/?token=secret"), null);
    assert.deepEqual([again.shown, two.tests], [["It fits."], 0]);
    const other = page();
    const three = engine();
    await through(other.check.watch(three, choice("https://b.example/m/"), null));
    assert.equal(three.tests, 1);
  } finally {
    mock.timers.reset();
  }
});

test("an answer that comes first interrupts it; it is begun again, but not for ever", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    stored.clear();
    const one = page();
    const twice = engine("cancelled", "cancelled");
    await through(one.check.watch(twice, choice("https://a.example/m/"), null));
    assert.deepEqual([one.shown.at(-1), twice.tests], ["It fits.", 3]);
    stored.clear();
    const busy = engine(...Array(50).fill("cancelled"));
    await through(page().check.watch(busy, choice("https://a.example/m/"), null));
    assert.equal(busy.tests, 5);
    const dead = engine("device-lost");
    await through(page().check.watch(dead, choice("https://a.example/m/"), null));
    assert.equal(dead.tests, 1);
  } finally {
    mock.timers.reset();
  }
});

test("what an engine says that is gone is not shown", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    stored.clear();
    const { shown, check } = page();
    const slow = engine();
    let end;
    slow.testSae = () => new Promise((resolve) => (end = resolve));
    const watching = check.watch(slow, choice("https://a.example/m/"), null);
    for (let k = 0; k < 1000 && !end; k++) {
      await new Promise((resolve) => setImmediate(resolve));
      mock.timers.tick(1500);
    }
    check.rest();
    end(FIT);
    await through(watching);
    assert.deepEqual(shown, [null, "checking"]);
    assert.equal(stored.size, 0);
  } finally {
    mock.timers.reset();
  }
});

test("what is stored and is none is measured again", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    stored.clear();
    const one = engine();
    await through(page().check.watch(one, choice("https://a.example/m/"), null));
    const [key] = Object.keys(JSON.parse(stored.get("phi3-steer.fits")));
    for (const bad of ["{", "3", "null", JSON.stringify({ [key]: 3 }), JSON.stringify({ [key]: { ...FIT, fit: { ...ONE, fvu: "x" } } }), JSON.stringify({ [key]: { ...FIT, verdict: {} } })]) {
      stored.set("phi3-steer.fits", bad);
      const two = engine();
      await through(page().check.watch(two, choice("https://a.example/m/"), null));
      assert.equal(two.tests, 1, bad);
    }
    // No more than twenty are kept.
    for (let k = 0; k < 25; k++) await through(page().check.watch(engine(), choice(`https://a.example/${k}/`), null));
    assert.equal(Object.keys(JSON.parse(stored.get("phi3-steer.fits"))).length, 20);
  } finally {
    mock.timers.reset();
  }
});
