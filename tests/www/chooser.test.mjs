// What the chooser offers and remembers, without a page.

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

const { Catalogue, mayBring } = await import("../../www/catalogue.js");
const { forgetAddress, nanoChoice, recall, remember, sourceOf } = await import("../../www/choice.js");
const { labels } = await import("../../www/chooser-row.js");
const { sentence } = await import("../../www/chooser-steering.js");
const { EngineError } = await import("../../www/line.js");

const LIST = readFileSync(new URL("../../www/catalogue.json", import.meta.url), "utf8");
async function catalogue(list = LIST) {
  const one = new Catalogue();
  globalThis.fetch = async () => new Response(list);
  await one.load("https://a.example/catalogue.json");
  return one;
}
const everything = () => [...stored.values()].join("\n");

test("a deleted address is nowhere left, with its secret", async () => {
  for (const kind of ["model", "dictionary"]) {
    stored.clear();
    const one = await catalogue();
    const entry = one.addUrl(kind, "https://b.example/m.gguf?token=secret");
    const other = one.addUrl(kind, "https://b.example/other.gguf");
    const nano = nanoChoice(one);
    remember(kind === "model" ? { ...nano, model: entry } : { ...nano, model: one.find("phi-3-mini-4k"), sae: entry });
    assert.ok(everything().includes("secret"));
    one.drop(kind, entry.url);
    forgetAddress(kind, entry.url);
    assert.ok(!everything().includes("secret"), everything());
    // It is still on the list of this page, and the next entry does not bring it back to the disk.
    assert.ok(one.entries.includes(entry));
    one.addUrl(kind, "https://b.example/third.gguf");
    assert.ok(!everything().includes("secret"), everything());
    const next = await catalogue();
    assert.ok(next.at(kind, other.url) && !next.at(kind, entry.url));
    assert.equal(recall(next).model.id, kind === "model" ? "nano" : "phi-3-mini-4k");
    // Chosen again, it is kept again.
    assert.equal(one.addUrl(kind, entry.url), entry);
    assert.ok(everything().includes("secret"));
    assert.ok(!entry.about.includes("secret") && !entry.name.includes("secret"));
  }
  forgetAddress("model", "https://b.example/");
  stored.set("phi3-steer.model", "{");
  forgetAddress("model", "https://b.example/");
});

test("what was trained here and is gone is nowhere asked for", async () => {
  const one = await catalogue();
  const entry = one.addUrl("dictionary", "https://a.example/page/trained-here/mine/layers.3/");
  const other = one.addUrl("dictionary", "https://b.example/layers.3/");
  const store = (open) => ({ item: () => undefined, open });
  const failing = (code) => store(async () => { throw new EngineError(code, "as it is"); });
  for (const keep of [true, false]) {
    await assert.rejects(sourceOf(entry, keep, failing("not-stored")), (error) => error.code === "not-stored" && /no other copy/.test(error.message));
    await assert.rejects(sourceOf(entry, keep, failing("no-storage")), { code: "no-storage" });
    // Kept, it is read although nobody has listed the disk yet.
    const [file] = await sourceOf(entry, keep, store(async () => [new File(["x"], "cfg.json")]));
    assert.equal(file.name, "mine/layers.3/cfg.json");
  }
  assert.equal(await sourceOf(other, false, failing("not-stored")), "https://b.example/layers.3/");
  await assert.rejects(sourceOf(other, true, failing("not-stored")), { message: "as it is" });
});

test("one bad line takes no other with it", async () => {
  stored.set(
    "phi3-steer.own-entries",
    JSON.stringify([{ kind: "model", url: "https://b.example/100%/" }, { kind: "model", url: "https://huggingface.co/o/%/tree/main/%zz" }, { kind: "model", url: "http://" }, { kind: "model", url: "https://me:secret@b.example/" }, { kind: "model", url: "x".repeat(10_000) }, null, { kind: "dictionary", url: "https://b.example/d/" }]),
  );
  const one = await catalogue();
  assert.deepEqual(one.entries.filter((entry) => entry.own).map((entry) => entry.url), ["https://b.example/100%/", "https://huggingface.co/o/%/tree/main/%zz/", "https://b.example/d/"]);
  for (const entry of one.entries.filter((entry) => entry.own)) assert.ok(entry.name);
  const list = JSON.stringify({ models: [{ id: "a", name: "A\u202e\n", url: "./m/" }, { id: "b", name: "B", url: "ftp://x" }], dictionaries: [] });
  const names = (await catalogue(list)).entries.filter((entry) => !entry.own).map((entry) => entry.name);
  assert.deepEqual(names, ["A\\u{202e}\\u{a}"]);
});

test("who has no dictionary is told so beforehand, with those that fit", async () => {
  const one = await catalogue();
  for (const model of one.entries.filter((entry) => entry.kind === "model")) {
    assert.equal(mayBring(model), model.id === "nano", model.id);
    const fitting = one.fitting(model);
    for (const entry of fitting) assert.ok(!entry.unusable && entry.families.some((family) => model.families.includes(family)));
    const said = sentence(model, "none", fitting.length);
    assert.match(said, /no steering/);
    assert.equal(/Public dictionaries for it/.test(said), fitting.length > 0, model.id);
  }
  assert.ok(one.fitting(one.find("phi-3-mini-4k-q4")).length >= 4);
  assert.equal(one.fitting(one.find("phi-4-mini")).length, 0, "one that cannot be loaded is no offer");
  assert.ok(mayBring(one.addUrl("model", "https://b.example/m/")));
  assert.equal(sentence(one.find("nano"), "auto", 0), "");
  assert.match(sentence(one.addUrl("model", "https://b.example/m/"), "auto", 0), /without one it only chats/);
});

test("choices are told apart by what differs", () => {
  assert.deepEqual(labels(["https://b.example/o/n/l1/params.npz", "https://b.example/o/n/l2/params.npz"]), ["l1/params.npz", "l2/params.npz"]);
  assert.deepEqual(labels(["https://b.example/o/a%20b.gguf", "https://b.example/o/%.gguf"]), ["a b.gguf", "%.gguf"]);
  assert.deepEqual(labels(["https://b.example/x"]), ["x"]);
});
