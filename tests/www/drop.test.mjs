// Folders dropped onto the page, played.

import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.document = { baseURI: "https://a.example/" };
const { droppedFiles } = await import("../../www/drop.js");
const { MOST_CHOSEN } = await import("../../www/catalogue.js");

const file = (name) => ({ isFile: true, name, file: (take) => take(new File(["x"], name)) });
/** A folder that hands out some entries at a time, as browsers do, for ever if `inside` is endless. */
const folder = (name, inside) => ({
  isDirectory: true,
  name,
  createReader: () => {
    const left = inside();
    return { readEntries: (take) => take(Array.from({ length: 100 }, () => left.next().value).filter(Boolean)) };
  },
});
const drop = (...entries) => droppedFiles({ files: [], items: entries.map((entry) => ({ kind: "file", webkitGetAsEntry: () => entry })) });

test("files keep their paths", async () => {
  const names = function* () {
    yield file("config.json");
    yield folder("sae", () => [file("cfg.json")].values());
  };
  assert.deepEqual((await drop(folder("m", names), file("x.gguf"))).map((one) => one.name), ["m/config.json", "m/sae/cfg.json", "x.gguf"]);
});

test("a folder without end is left", async () => {
  const endless = function* () {
    for (let n = 0; ; n++) yield file(`f${n}`);
  };
  const deep = function* () {
    yield file("a");
    yield folder("again", deep);
  };
  for (const inside of [endless, deep]) {
    const found = await drop(folder("m", inside));
    assert.ok(found.length > MOST_CHOSEN && found.length < MOST_CHOSEN + 200, String(found.length));
  }
});
