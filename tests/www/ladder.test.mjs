// The first screen's real models: where each comes from, what is said of it and of this machine.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

globalThis.document = { baseURI: "https://a.example/page/" };
globalThis.localStorage = { getItem: () => null, setItem() {}, removeItem() {} };

const { Catalogue } = await import("../../www/catalogue.js");
const { guess, machineWords, traffic } = await import("../../www/machine.js");
const { modelWords } = await import("../../www/model-words.js");
const { REAL_SUGGESTIONS, SUGGESTIONS } = await import("../../www/prompts.js");
const { welcomeWords } = await import("../../www/welcome.js");

const read = (place) => readFileSync(new URL(`../../${place}`, import.meta.url), "utf8");
const LIST = JSON.parse(read("www/catalogue.json"));

async function catalogue(list = LIST) {
  const one = new Catalogue();
  globalThis.fetch = async () => new Response(JSON.stringify(list));
  await one.load("https://a.example/catalogue.json");
  return one;
}

test("every step says its size, licence, memory and what is known of its refusals", async () => {
  const rungs = (await catalogue()).rungs();
  assert.equal(rungs.length, 4);
  for (const { model, dictionary } of rungs) {
    assert.ok(model.licence && model.bytes && model.memory && model.refusals && model.caveat, model.id);
    assert.ok(!dictionary || (dictionary.bytes && dictionary.memory && dictionary.licence && dictionary.families.includes(model.families[0])), model.id);
    assert.match(new URL(model.url).protocol, /https/);
  }
  const sizes = rungs.map(({ model }) => model.bytes);
  assert.deepEqual(sizes, [...sizes].sort((a, b) => a - b));
  // Only what was fetched and tested here has a hash, and it is the one that the script checks.
  const script = read("scripts/small-model.sh");
  const tested = LIST.models.filter(({ sha256 }) => sha256);
  assert.deepEqual(tested.map(({ id }) => id), ["smollm2-135m"]);
  assert.ok(script.includes(`SHA256=${tested[0].sha256}`) && script.includes(`NAME=${tested[0].url.split("/").at(-1)}`));
});

test("a file beside the page takes its step, with all that is known of it", async () => {
  const beside = { id: "beside x", name: "Ours", url: "./models/x/SmolLM2-135M-Instruct.Q4_1.gguf", bytes: 3, beside: true, about: "put here" };
  const other = { id: "beside y", name: "Y", url: "./models/y/another.gguf", bytes: 3, beside: true };
  const one = await catalogue({ ...LIST, models: [beside, other, ...LIST.models] });
  const [{ model }] = one.rungs();
  assert.equal(model.id, "beside x");
  const known = one.find("smollm2-135m");
  for (const field of ["licence", "families", "refusals", "caveat", "sha256", "memory"]) assert.deepEqual(model[field], known[field], field);
  assert.equal(model.about, "put here");
  assert.equal(model.bytes, 3);
  assert.equal(one.find("beside y").caveat, undefined);
  // A dictionary beside the page that says which models it is for is loaded with them.
  const dictionary = { id: "beside d", name: "D", url: "./models/d/", bytes: 5, beside: true, families: ["smollm2-135m"], found: true };
  const stranger = { id: "beside e", name: "E", url: "./models/e/", bytes: 5, beside: true };
  const two = await catalogue({ ...LIST, models: [beside, ...LIST.models], dictionaries: [stranger, dictionary, ...LIST.dictionaries] });
  assert.deepEqual(two.rungs().map((rung) => rung.dictionary?.id ?? null), ["beside d", null, "eleuther-smollm2-1.7b-17", two.find("phi-3-mini-4k-q4").dictionary ?? null]);
  assert.equal(two.find("beside d").found, true);
  // A list that somebody else wrote is no reason to fail.
  for (const ladder of [undefined, "x", [3, null, "gone", "nev-phi-3-4k"]]) assert.deepEqual((await catalogue({ ...LIST, ladder })).rungs(), []);
});

test("what is said of this machine is said as an estimate, with two digits", () => {
  const machine = { memory: 8 * 2 ** 30, software: false, traffic: 100e9, room: 50e9 };
  const need = { memory: 1_234_567_890, download: 1e9 };
  assert.deepEqual(guess(need, machine), { tight: false, words: "Takes about 1.20 GB of graphics memory; at most about 80 tokens a second here." });
  assert.match(guess(need, { ...machine, traffic: 10.123e12 }).words, /at most about 8,200 tokens/);
  assert.match(guess(need, { ...machine, traffic: 0.512e9 }).words, /at most about 0\.4 tokens/);
  for (const nothing of [{ traffic: null }, { software: true, traffic: null }]) assert.equal(guess(need, { ...machine, ...nothing }).words, "Takes about 1.20 GB of graphics memory.");
  const small = guess(need, { ...machine, memory: 2 ** 30 });
  assert.ok(small.tight && /likely more than this machine has to give/.test(small.words));
  const full = guess(need, { ...machine, room: 9e8 });
  assert.ok(full.tight && /900 MB more on this disk/.test(full.words));
  assert.ok(!guess({ ...need, download: 0 }, { ...machine, room: 0 }).tight, "what is here needs no room");
  assert.match(machineWords({ ...machine, software: true }), /in software/);
  assert.match(machineWords({ ...machine, traffic: null }), /does not tell/);
  assert.match(machineWords(machine), /guessed/);
  assert.equal(machineWords(null), "");
});

test("a device that is lost while it is tried ends the trial", async () => {
  let destroyed = false;
  const device = {
    createBuffer: () => ({}),
    createCommandEncoder: () => ({ copyBufferToBuffer() {}, finish: () => ({}) }),
    queue: { submit() {}, onSubmittedWorkDone: () => new Promise(() => {}) },
    lost: Promise.resolve({ reason: "unknown" }),
    destroy: () => (destroyed = true),
  };
  await assert.rejects(traffic({ requestDevice: async () => device }), /lost/);
  assert.ok(destroyed);
});

test("what is suggested to real models is of their prompts, and promises nothing", () => {
  const sets = JSON.parse(read("sets/real.json"));
  const said = new Set(Object.values(sets.splits).flatMap((split) => split.sets.flatMap((set) => set.items.flatMap((item) => item.messages.filter(({ role }) => role === "user").map(({ content }) => content)))));
  for (const { turns, expect, promise } of REAL_SUGGESTIONS) {
    for (const turn of turns) assert.ok(said.has(turn), turn);
    assert.ok(!expect && !promise);
  }
  assert.equal(REAL_SUGGESTIONS.length, SUGGESTIONS.length);
});

test("the line under the message field says which model it is, and what it is not", async () => {
  const one = await catalogue();
  for (const model of one.entries.filter(({ kind }) => kind === "model")) {
    const words = modelWords(model);
    assert.ok(words.startsWith(`${model.name} is a `) && words.endsWith("."), words);
    assert.equal(words.includes("toy"), model.id === "nano");
    assert.ok(!words.includes("of your own choice"), model.id);
  }
  assert.match(modelWords(one.addUrl("model", "https://b.example/m/")), /of your own choice: nothing is known/);
  assert.match(welcomeWords({ dictionary: false, report: null, fitting: 0 }).text, /No public one is known/);
  assert.match(welcomeWords({ dictionary: false, report: null, fitting: 3 }).text, /has public ones/);
});
