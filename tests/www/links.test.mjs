// Share links: what goes in comes out, nothing secret goes in, and nothing big begins unasked.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

globalThis.document = { baseURI: "https://a.example/page/" };
globalThis.location = new URL("https://a.example/page/?x=1");
globalThis.localStorage = { getItem: () => null, setItem: () => {} };

const { Catalogue } = await import("../../www/catalogue.js");
const { nanoChoice } = await import("../../www/choice.js");
const { Follower } = await import("../../www/follow.js");
const { linkedChoice, linkTo, parseLink, placesOf, sameChoice } = await import("../../www/links.js");

const LIST = readFileSync(new URL("../../www/catalogue.json", import.meta.url), "utf8");
async function catalogue() {
  const one = new Catalogue();
  globalThis.fetch = async () => new Response(LIST);
  await one.load("https://a.example/catalogue.json");
  return one;
}

test("a link carries the model, the dictionary, the setting and the prompt", async () => {
  const one = await catalogue();
  const model = one.find("phi-3-mini-4k-q4");
  const choice = { model, sae: one.find("analist-21"), saeHook: "layers.20", keep: true };
  const prompt = "What & why?\n#1 = \u201cthis\u201d";
  const link = parseLink(new URL(linkTo([...placesOf(choice), ["strength", "-8"], ["hook", "layers.20"]], prompt)).hash);
  assert.equal(link.prompt, prompt);
  assert.deepEqual(link.settings, { strength: "-8", hook: "layers.20" });
  assert.ok(sameChoice(linkedChoice(link, await catalogue()), choice));
  assert.deepEqual(link.notes, []);
  assert.ok(sameChoice(linkedChoice(parseLink("#model=nano"), one), nanoChoice(one)));
  assert.equal(linkedChoice(parseLink("#strength=3"), one), null);
});

test("an address of the visitor's own goes without its query, and files not at all", async () => {
  const one = await catalogue();
  const model = one.addUrl("model", "https://b.example/m/?token=secret");
  const pairs = placesOf({ model, sae: "none", saeHook: "", keep: true });
  assert.deepEqual(pairs, [["model", "https://b.example/m/"], ["dictionary", "none"]]);
  const linked = linkedChoice(parseLink("#model=https%3A%2F%2Fb.example%2Fx%3Fkey%3Dsecret"), one);
  assert.deepEqual(placesOf(linked)[0], ["model", "https://b.example/x/"]);
  const files = one.addFiles("model", [new File(["x"], "x.gguf")]);
  assert.deepEqual(placesOf({ model: files, sae: "auto", saeHook: "", keep: true }), []);
});

test("places that no page can read are refused with a reason", async () => {
  const one = await catalogue();
  for (const bad of ["javascript:alert(1)", "data:text/html,x", "https://user:password@b.example/m/", "http://b.example/m/", "file:///etc", "blob:https://a.example/x", "::", ""]) {
    assert.throws(() => linkedChoice(parseLink(`#model=${encodeURIComponent(bad)}`), one), (error) => error.message.length > 10, bad);
  }
  assert.throws(() => linkedChoice(parseLink("#model=nano&hookPoint=mlp.3"), one));
  assert.throws(() => linkedChoice(parseLink(`#model=nano&dictionary=${encodeURIComponent("ftp://x/")}`), one));
});

test("a link that is too long, and a prompt that is", () => {
  const long = parseLink(`#prompt=${"a".repeat(5000)}`);
  assert.equal(long.prompt.length, 4000);
  assert.match(long.notes.join(), /cut/);
  const endless = parseLink(`#strength=3&prompt=${"a".repeat(1e6)}`);
  assert.deepEqual([endless.settings, endless.prompt], [{}, ""]);
  assert.match(endless.notes.join(), /too long/);
});

test("a link's model that is not here is asked about, one that is here is not", async () => {
  const one = await catalogue();
  const said = [];
  const stored = new Set();
  const opened = [];
  const page = {
    catalogue: one,
    downloads: { refresh: async () => {}, item: (entry) => (stored.has(entry.url) ? { state: "whole" } : undefined) },
    settings: { linked: {} },
    composer: { setText: (text) => said.push(["prompt", text]) },
    chooser: { open: (choice) => opened.push(choice) },
    notes: { add: (sentence, ways = []) => said.push([sentence, ways]) },
  };
  const follower = new Follower(page);
  const here = nanoChoice(one);
  assert.equal(await follower.follow("#strength=3&prompt=Hi", here), null);
  assert.deepEqual([page.settings.linked, said], [{ strength: "3" }, [["prompt", "Hi"]]]);

  said.length = 0;
  assert.equal(await follower.follow("#model=phi-3-mini-4k-q4&dictionary=analist-21&strength=5", here), null);
  assert.deepEqual(page.settings.linked, {}, "the setting is about another model");
  assert.match(said[0][0], /another model: .* GB to download/);
  said[0][1][0].run();
  assert.equal(opened[0].model.id, "phi-3-mini-4k-q4");
  assert.deepEqual(follower.settingsFor(opened[0]), { strength: "5" });
  assert.deepEqual(follower.settingsFor(here), {});

  for (const id of ["phi-3-mini-4k-q4", "analist-21"]) stored.add(one.find(id).url);
  const next = await follower.follow("#model=phi-3-mini-4k-q4&dictionary=analist-21&strength=5", here);
  assert.equal(next.model.id, "phi-3-mini-4k-q4");
  assert.deepEqual(page.settings.linked, { strength: "5" });

  said.length = 0;
  assert.equal(await follower.follow("#model=javascript:x", here), null);
  assert.match(said[0][0], /cannot be loaded/);
});
