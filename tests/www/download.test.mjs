// Whole downloads against servers whose files change: a plan is renewed, what still matches stays, no
// file is fetched twice in one try, and what is handed out is right.

import assert from "node:assert/strict";
import { createHash, randomInt } from "node:crypto";
import { test } from "node:test";
import { download } from "../../www/store/download.js";
import { describeItem, itemFiles, keyOf, listItems } from "../../www/store/store.js";
import { draws } from "./draws.mjs";
import { freshDisk } from "./opfs.mjs";

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
console.log(`SEED=${seed}`);
const draw = draws(seed);

const BASE = "https://b.example/m/";
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const random = (size) => Uint8Array.from({ length: size }, () => draw(256));
const text = (value) => new TextEncoder().encode(value);

/** Random weights that begin as weights do. */
function weights(size) {
  const bytes = random(size);
  bytes.set([16, 0, 0, 0, 0, 0, 0, 0, 0x7b]);
  return bytes;
}

/** A folder on a server with ranges; `odd` may answer a request itself. */
class Site {
  constructor(files, { manifest = true, etags = true, dates = false } = {}) {
    this.files = new Map(Object.entries(files));
    this.manifest = manifest;
    this.etags = etags;
    this.dates = dates;
    /** Bytes sent of each file. */
    this.sent = new Map();
    this.odd = () => null;
    if (manifest) this.list();
  }
  list() {
    const files = [...this.files].filter(([name]) => name !== "manifest.json").map(([name, bytes]) => ({ name, bytes: bytes.length, sha256: sha256(bytes) }));
    this.files.set("manifest.json", text(JSON.stringify({ files })));
  }
  set(name, bytes) {
    this.files.set(name, bytes);
  }
  fetch = async (url, { method = "GET", headers = {}, signal } = {}) => {
    signal?.throwIfAborted();
    const name = decodeURIComponent(url.slice(BASE.length));
    const odd = this.odd(name, method, headers.Range);
    if (odd) return odd;
    const bytes = this.files.get(name);
    if (!bytes) return new Response(null, { status: 404 });
    const hash = sha256(bytes).slice(0, 8);
    const date = new Date(parseInt(hash, 16) * 1000).toUTCString();
    const common = { ...(this.etags ? { ETag: `"${hash}"` } : {}), ...(this.dates ? { "Last-Modified": date } : {}) };
    if (method === "HEAD") return new Response(null, { headers: { ...common, "Content-Length": String(bytes.length) } });
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.Range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range?.[2] ? Math.min(bytes.length, Number(range[2]) + 1) : bytes.length;
    let at = start;
    const body = new ReadableStream({
      pull: (controller) => {
        if (signal?.aborted) return controller.error(signal.reason);
        if (at >= end) return controller.close();
        const piece = bytes.slice(at, Math.min(end, at + 1 + draw(3000)));
        at += piece.length;
        this.sent.set(name, (this.sent.get(name) ?? 0) + piece.length);
        controller.enqueue(piece);
      },
    }, { highWaterMark: 0 });
    return new Response(body, { status: range ? 206 : 200, headers: { ...common, "Content-Length": String(end - start), ...(range ? { "Content-Range": `bytes ${start}-${end - 1}/${bytes.length}` } : {}) } });
  };
}

const KEY = keyOf("model", BASE);

/** @returns {Promise<string | null>} the code of the error, null when all is there */
async function bring(site, { stopAfter = Infinity, diagnose = async () => null } = {}) {
  const abort = new AbortController();
  site.sent.clear();
  const world = {
    fetch: site.fetch,
    page: "https://a.example/",
    signal: abort.signal,
    sleep: async (_, signal) => signal.throwIfAborted(),
    random: () => 0,
    diagnose,
    reached: new Set(),
    connections: 3,
    part: 4000,
    stall: 500,
  };
  const tell = () => {
    if ([...site.sent.values()].reduce((sum, one) => sum + one, 0) >= stopAfter) abort.abort(new Error("paused"));
  };
  const fetching = site.fetch;
  world.fetch = async (url, init) => {
    tell();
    return fetching(url, init);
  };
  try {
    await download({ key: KEY, kind: "model", url: BASE, name: "m" }, world, tell);
    return null;
  } catch (error) {
    assert.ok(error.code || error.message === "paused", String(error.stack));
    return error.code ?? "paused";
  }
}

/** What is handed out must be the site's files as they are now. */
async function assertRight(site, names) {
  const files = await itemFiles(KEY);
  assert.deepEqual(files.map((file) => file.name).sort(), names.toSorted());
  for (const file of files) assert.ok(Buffer.from(await file.arrayBuffer()).equals(Buffer.from(site.files.get(file.name))), `${file.name} is another`);
}

const small = () => ({ "config.json": text('{"model_type":"phi3"}'), "tokenizer.json": text(`{"a":${draw(1e9)}}`) });
const model = (more = {}) => ({ ...small(), "model.safetensors": weights(40_000 + draw(9000)), ...more });
const NAMES = ["config.json", "tokenizer.json", "model.safetensors"];

test("a plan is renewed when the server's files changed while it was paused", async () => {
  for (let round = 0; round < 12; round++) {
    freshDisk();
    const manifest = round % 2 === 0;
    const site = new Site(model({ "extra.safetensors": weights(20_000) }), { manifest, etags: round % 3 !== 0 || manifest });
    if (!manifest) site.files.delete("extra.safetensors");
    const names = [...site.files.keys()];
    assert.equal(await bring(site, { stopAfter: 3000 + draw(25_000) }), "paused");
    const before = await describeItem(KEY);
    // One file changes, and with it the order of the list.
    const changed = ["model.safetensors", "tokenizer.json"][draw(2)];
    const fresh = changed === "tokenizer.json" ? text(`{"b":${draw(1e9)},"c":[]}`) : weights(30_000 + draw(20_000));
    const rest = [...site.files].filter(([name]) => name !== changed);
    site.files = new Map([...rest, [changed, fresh]]);
    if (manifest) site.list();
    assert.equal(await bring(site), null, `round ${round}: ${changed}`);
    await assertRight(site, names);
    for (const [name, bytes] of site.files) {
      const was = before.files.find((file) => file.path === name);
      // The index and descriptions are read while the list is made, too.
      const kept = name === changed || name.endsWith(".json") ? 0 : (was?.loaded ?? 0);
      const most = bytes.length - kept + (name.endsWith(".json") ? bytes.length : 0) + 3000 * 4;
      assert.ok((site.sent.get(name) ?? 0) <= most, `round ${round}: ${name}: ${site.sent.get(name)} of ${bytes.length} were sent, ${kept} were kept`);
    }
  }
});

test("without a manifest the server's word for a version says what stays, be it a date", async () => {
  for (const how of [{ dates: true }, { etags: true }, { etags: true, dates: true }, { etags: true, compressed: true }]) {
    freshDisk();
    const site = new Site(model(), { etags: false, ...how, manifest: false });
    const size = site.files.get("model.safetensors").length;
    const names = [...site.files.keys()];
    const note = JSON.stringify(how);
    // A proxy compresses what it is not asked a range of, and says so.
    site.odd = (name, method) => {
      if (!how.compressed || method !== "HEAD" || !site.files.has(name)) return null;
      return new Response(null, { headers: { ETag: `"${sha256(site.files.get(name)).slice(0, 8)}-gzip"`, "Content-Encoding": "gzip", "Content-Length": "77" } });
    };
    assert.equal(await bring(site, { stopAfter: 20_000 }), "paused", note);
    const kept = (await describeItem(KEY)).files.find(({ path }) => path === "model.safetensors").loaded;
    assert.ok(kept > 4000, note);
    // Another file changes.
    site.set("tokenizer.json", text(`{"b":${draw(1e9)},"c":[]}`));
    assert.equal(await bring(site, { stopAfter: 8_000 }), "paused", note);
    const more = site.sent.get("model.safetensors") ?? 0;
    // The rest of the weights, once.
    assert.equal(await bring(site), null, note);
    await assertRight(site, names);
    const sent = more + (site.sent.get("model.safetensors") ?? 0);
    assert.ok(sent <= size - kept + 3000 * 8, `${note}: ${sent} of ${size} were sent, ${kept} were kept`);
    // The weights change, and are as long as before: they come once.
    freshDisk();
    assert.equal(await bring(site, { stopAfter: 20_000 }), "paused", note);
    site.set("model.safetensors", weights(size));
    assert.equal(await bring(site), null, note);
    await assertRight(site, names);
    assert.ok(site.sent.get("model.safetensors") <= size + 3000 * 8, `${note}: ${site.sent.get("model.safetensors")} of ${size}`);
  }
});

test("a plan is renewed when the files change under the download", async () => {
  for (let round = 0; round < 12; round++) {
    freshDisk();
    const manifest = round % 3 !== 0;
    const site = new Site(model(), { manifest });
    const names = [...site.files.keys()];
    const when = 500 + draw(30_000);
    let done = false;
    site.odd = (name) => {
      if (done || name !== "model.safetensors" || (site.sent.get(name) ?? 0) < when) return null;
      done = true;
      site.set(name, weights(draw(2) ? site.files.get(name).length : 25_000 + draw(20_000)));
      if (manifest) site.list();
      return null;
    };
    assert.equal(await bring(site), null, `round ${round}`);
    await assertRight(site, names);
  }
});

test("bytes that were fetched under an old promise and fit the new one stay", async () => {
  freshDisk();
  const site = new Site(model());
  const old = site.files.get("manifest.json");
  const now = weights(40_000);
  site.set("model.safetensors", now);
  // The list still promises the file of before, with its length.
  const listed = JSON.parse(new TextDecoder().decode(old));
  listed.files.find(({ name }) => name === "model.safetensors").bytes = now.length;
  site.set("manifest.json", text(JSON.stringify(listed)));
  let renewed = false;
  site.odd = (name) => {
    if (name === "model.safetensors" && (site.sent.get(name) ?? 0) > 15_000 && !renewed) {
      renewed = true;
      site.list();
    }
    return null;
  };
  assert.equal(await bring(site), null);
  await assertRight(site, [...NAMES, "manifest.json"]);
  // A piece more than it is asked for may be under way.
  assert.ok(site.sent.get("model.safetensors") <= now.length + 3000, "it was fetched again");
});

test("wrong bytes are fetched once a try, and what was begun with others once more", async () => {
  freshDisk();
  const site = new Site(model());
  const right = site.files.get("model.safetensors");
  const wrong = right.slice();
  wrong[20_000] ^= 1;
  site.set("model.safetensors", wrong);
  for (let round = 0; round < 3; round++) {
    assert.equal(await bring(site), "hash-mismatch");
    assert.ok(site.sent.get("model.safetensors") <= wrong.length + 3000, "the whole came twice");
    await assert.rejects(itemFiles(KEY), (error) => error.code === "incomplete");
  }
  // Begun with the wrong one, under the same name.
  site.etags = false;
  assert.equal(await bring(site, { stopAfter: 30_000 }), "paused");
  site.set("model.safetensors", right);
  assert.equal(await bring(site), null);
  await assertRight(site, [...NAMES, "manifest.json"]);
});

test("a server that gives a file another name each time", async () => {
  for (const manifest of [true, false]) {
    freshDisk();
    const site = new Site(model(), { manifest, etags: false });
    const names = [...site.files.keys()];
    const fetching = site.fetch;
    let n = 0;
    site.fetch = async (url, init) => {
      const response = await fetching(url, init);
      response.headers.set("ETag", `"${n++}"`);
      return response;
    };
    assert.equal(await bring(site), null);
    await assertRight(site, names);
  }
});

test("files that change all the time end in an error", async () => {
  freshDisk();
  const site = new Site(model());
  site.odd = (name) => {
    if (name === "model.safetensors") site.set(name, weights(40_000 + draw(1000)));
    if (name === "manifest.json") {
      site.list();
      site.set("model.safetensors", weights(40_000));
    }
    return null;
  };
  const said = await bring(site);
  assert.ok(["wrong-length", "hash-mismatch", "changed"].includes(said), String(said));
  await assert.rejects(itemFiles(KEY));
});

test("nothing of a model that cannot run is fetched but its descriptions", async () => {
  for (const [config, code] of [
    ['{"model_type":"mistral"}', "bad-config"],
    ['{"model_type":"phi3","quantization_config":{"quant_method":"gptq"}}', "bad-config"],
    ["<!doctype html><p>not here", "not-found"],
    ["not here", "bad-answer"],
  ]) {
    for (const manifest of [true, false]) {
      freshDisk();
      const site = new Site({ "model.safetensors": weights(40_000), ...small(), "config.json": text(config) }, { manifest });
      assert.equal(await bring(site), code, config);
      assert.equal(site.sent.get("model.safetensors") ?? 0, 0, config);
      // And a second try says the same.
      assert.equal(await bring(site), code, config);
    }
  }
  // The index names a shard that the list lacks.
  freshDisk();
  const site = new Site({ ...small(), "model.safetensors.index.json": text('{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}'), "a.safetensors": weights(30_000) });
  assert.equal(await bring(site), "not-found");
  assert.equal(site.sent.get("a.safetensors") ?? 0, 0);
  // Weights that are something else end at their first bytes.
  freshDisk();
  const pointer = new Uint8Array(60_000).fill(32);
  pointer.set(text("version https://git-lfs.github.com/spec/v1\n"));
  const lfs = new Site({ ...small(), "model.safetensors": pointer }, { manifest: false });
  assert.equal(await bring(lfs), "not-found");
  assert.ok(lfs.sent.get("model.safetensors") < 30_000);
  assert.equal(await bring(lfs), "not-found", "what was refused once is not taken the second time");
});

test("the list is gone: what was begun goes on with the old one", async () => {
  freshDisk();
  const site = new Site(model());
  const names = [...site.files.keys()];
  assert.equal(await bring(site, { stopAfter: 20_000 }), "paused");
  site.odd = (name) => (name === "manifest.json" ? new Response(null, { status: 500 }) : null);
  const fetched = (await describeItem(KEY)).files.find(({ path }) => path === "manifest.json");
  const code = await bring(site);
  assert.equal(code, fetched.whole ? null : "server");
  if (code === null) await assertRight(site, names);
});

test("a server that was read before is not said to forbid reading", async () => {
  freshDisk();
  const site = new Site(model());
  assert.equal(await bring(site, { stopAfter: 20_000 }), "paused");
  site.fetch = async () => {
    throw new TypeError("Failed to fetch");
  };
  const forbids = async () => Object.assign(new Error("it forbids reading"), { code: "cors" });
  assert.equal(await bring(site, { diagnose: forbids }), "unreachable");
  freshDisk();
  assert.equal(await bring(site, { diagnose: forbids }), "cors");
});

test("what is all there is not asked for again", async () => {
  freshDisk();
  const site = new Site(model());
  assert.equal(await bring(site), null);
  assert.equal(await bring(site), null);
  assert.equal(site.sent.size, 0);
  const [item] = await listItems();
  assert.deepEqual([item.state, item.elsewhere], ["whole", false]);
});
