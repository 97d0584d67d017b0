// Parts of the page that need no page: the catalogue, sorting dropped files, rates, recovery.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";

/** @type {Map<string, string>} */
let stored;
globalThis.document = { baseURI: "https://a.example/page/" };
beforeEach(() => {
  stored = new Map();
  globalThis.localStorage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value), removeItem: (key) => stored.delete(key) };
});

const { Catalogue, sort } = await import("../../www/catalogue.js");
const { forgetAddress, nanoChoice, ownDictionary, recall, remember, sourceOf } = await import("../../www/choice.js");
const { describe, duration, measure } = await import("../../www/downloads.js");
const { Recovery } = await import("../../www/recovery.js");

const LIST = readFileSync(new URL("../../www/catalogue.json", import.meta.url), "utf8");

async function catalogue() {
  const one = new Catalogue();
  globalThis.fetch = async () => new Response(LIST);
  await one.load("https://a.example/catalogue.json");
  return one;
}

test("the catalogue names each thing once, says its licence, and warns where it must", async () => {
  const { entries } = await catalogue();
  assert.equal(new Set(entries.map((entry) => entry.id)).size, entries.length);
  for (const entry of entries) {
    assert.ok(entry.name && (entry.url || entry.builtIn), entry.id);
    if (!entry.builtIn) assert.equal(typeof entry.licence, "string", `${entry.id} says nothing of its licence`);
    if (entry.kind === "dictionary") assert.ok(entry.layer && (entry.warning || entry.unusable), entry.id);
  }
  for (const entry of entries.filter((one) => one.name.startsWith("analist/"))) assert.match(entry.warning, /benchmarks/);
});

test("dictionaries of other models are not offered", async () => {
  const one = await catalogue();
  const offered = (id) => one.list("dictionary", one.find(id)).map((entry) => entry.id);
  assert.deepEqual(offered("nano"), []);
  assert.ok(offered("phi-3-mini-4k-q4").includes("analist-21"));
  assert.ok(!offered("phi-3-mini-4k-q4").includes("elrashid-phi-4-mini"));
  const own = one.addUrl("model", "https://b.example/m");
  assert.equal(one.list("dictionary", own).length, one.entries.filter((entry) => entry.kind === "dictionary").length);
});

test("own addresses last, and only once each", async () => {
  const one = await catalogue();
  const entry = one.addUrl("model", "https://b.example/m");
  assert.equal(one.addUrl("model", " https://b.example/m/ "), entry);
  assert.throws(() => one.addUrl("model", "no address"), (error) => error.code === "bad-url");
  assert.ok((await catalogue()).at("model", "https://b.example/m/"));
  one.forget(entry);
  assert.ok(!(await catalogue()).at("model", "https://b.example/m/"));
  for (const bad of ["{", "3", '[{"kind":"x","url":"https://b.example/"}]', '[{"kind":"model","url":3}]', '[null]']) {
    stored.set("phi3-steer.own-entries", bad);
    assert.equal((await catalogue()).entries.filter((one) => one.own).length, 0, bad);
  }
});

test("the last choice comes back, but not files", async () => {
  const one = await catalogue();
  const model = one.addUrl("model", "https://b.example/m");
  const choice = { model, sae: one.find("analist-21"), saeHook: "layers.20", keep: true };
  remember(choice);
  const again = await catalogue();
  assert.deepEqual(recall(again), { ...choice, model: again.at("model", model.url), sae: again.find("analist-21") });
  // The page's own model with a dictionary that was trained here.
  const trained = one.addUrl("dictionary", "https://a.example/page/trained-here/x/layers.2/");
  remember({ ...nanoChoice(one), sae: trained, saeHook: "layers.2" });
  const { model: nano, sae, saeHook } = recall(await catalogue());
  assert.deepEqual([nano.id, sae.url, saeHook], ["nano", trained.url, "layers.2"]);
  forgetAddress("dictionary", trained.url);
  assert.deepEqual(recall(await catalogue()), { ...nanoChoice(again), model: nano });
  remember({ model: one.addFiles("model", [new File(["x"], "x.gguf")]), sae: "auto", saeHook: "", keep: true });
  assert.equal(recall(await catalogue()).model.id, "nano");
  remember(choice);
  remember(nanoChoice(one));
  assert.equal(recall(await catalogue()).model.id, "nano");
  for (const bad of ["{", "3", "null", '{"model":{"id":"gone"}}', '{"model":3,"sae":4}']) {
    stored.set("phi3-steer.model", bad);
    assert.equal(recall(one).model.id, "nano", bad);
  }
});

const files = (...names) => names.map((name) => new File(["x"], name));
const names = (list) => list && list.map((file) => file.name);

test("dropped files are told apart", () => {
  assert.deepEqual(names(sort(files("x.gguf")).model), ["x.gguf"]);
  const model = ["m/config.json", "m/tokenizer.json", "m/model-00001-of-00002.safetensors"];
  assert.deepEqual(sort(files(...model)).dictionary, null);
  assert.deepEqual(names(sort(files(...model)).model), model);
  assert.deepEqual(names(sort(files("d/cfg.json", "d/sae.safetensors")).dictionary), ["d/cfg.json", "d/sae.safetensors"]);
  assert.deepEqual(names(sort(files("params.npz")).dictionary), ["params.npz"]);
  const inside = [...model, "m/sae/layers.3/cfg.json", "m/sae/layers.3/sae.safetensors"];
  assert.deepEqual(names(sort(files(...inside)).model), inside);
  assert.equal(sort(files(...inside)).dictionary, null);
  const both = sort(files(...model, "d/cfg.json", "d/sae_weights.safetensors"));
  assert.deepEqual([names(both.model), names(both.dictionary)], [model, ["d/cfg.json", "d/sae_weights.safetensors"]]);
  assert.deepEqual(sort(files("d/.git/model.safetensors", "photo.jpg")), { model: null, dictionary: null, other: null });
  assert.match(sort(files("sae.pt")).other, /pickle/);
  assert.match(sort(files("m/mlc-chat-config.json", "m/params_shard_0.bin")).other, /MLC/);
});

test("the dictionary in the model's own folder", () => {
  const report = { hook: "layers.3" };
  assert.equal(ownDictionary("https://b.example/m/", report), "https://b.example/m/sae/layers.3/");
  assert.deepEqual(names(ownDictionary(files("m/config.json", "m/sae/layers.3/cfg.json", "m/sae/layers.4/cfg.json"), report)), ["m/sae/layers.3/cfg.json"]);
  assert.equal(ownDictionary(files("config.json"), report), null);
  assert.equal(ownDictionary("https://b.example/m/", null), null);
});

test("stored files go to the engine under their folder's name, and an address where nothing is kept", async () => {
  const downloads = { open: async () => files("cfg.json", "sae.safetensors"), item: () => undefined };
  const entry = { kind: "dictionary", url: "https://huggingface.co/o/n/tree/main/layers.6/" };
  assert.deepEqual(names(await sourceOf(entry, true, downloads)), ["n/layers.6/cfg.json", "n/layers.6/sae.safetensors"]);
  assert.equal(await sourceOf(entry, false, downloads), "https://huggingface.co/o/n/resolve/main/layers.6/");
  const gguf = { kind: "model", url: "https://b.example/x.gguf" };
  assert.deepEqual(names(await sourceOf(gguf, true, { ...downloads, open: async () => files("x.gguf") })), ["x.gguf"]);
});

test("rates are of the last seconds, and only of the network", () => {
  const job = { progress: null, rate: 0, samples: [] };
  const at = (seconds, received, stage = "download") => {
    job.progress = { stage, file: "f", index: 0, count: 1, loaded: received + 50e6, total: 200e6, received };
    measure(job, seconds * 1000);
  };
  at(0, 0);
  assert.equal(job.rate, 0);
  for (let second = 1; second <= 30; second++) at(second, second <= 20 ? second * 1e6 : 20e6 + (second - 20) * 4e6);
  assert.equal(job.rate, 4e6);
  assert.equal(describe(job), "110.0 MB of 200.0 MB, 4.0 MB a second, 23 s left");
  at(31, 70e6, "verify");
  assert.equal(job.rate, 0);
  assert.equal(describe(job), "Checking f: 120.0 MB of 200.0 MB");
  assert.deepEqual([duration(0.2), duration(59), duration(600), duration(7200)], ["1 s", "59 s", "10 min", "2.0 h"]);
});

test("a lost engine comes back by itself once, not in a loop, and never after a lack of memory", () => {
  const one = new Recovery();
  const turn = {};
  assert.equal(one.note("device-lost", turn, ["a", "b"], 2, 1000), true);
  assert.deepEqual(one.take(), { turn, rest: ["a", "b"], length: 2 });
  assert.equal(one.take(), null);
  assert.equal(one.note("device-lost", turn, null, 1, 30_000), false);
  assert.deepEqual(one.take(), { turn, rest: null, length: 1 });
  assert.equal(one.note("crashed", turn, null, 1, 100_000), true);
  assert.equal(new Recovery().note("out-of-memory", turn, null, 1, 0), false);
});

test("a browser that is still starting its graphics gets some time", async () => {
  const fails = (code, times) => {
    let left = times;
    return async () => {
      if (left-- > 0) throw Object.assign(new Error(code), { code });
      return "engine";
    };
  };
  const one = new Recovery();
  const rest = async () => {};
  assert.equal(await one.restart(fails("no-adapter", 3), rest), "engine");
  await assert.rejects(one.restart(fails("no-adapter", 99), rest));
  await assert.rejects(one.restart(fails("cancelled", 1), rest));
});
