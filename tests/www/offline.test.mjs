// The service worker without a browser: what it fetches, keeps and serves.

import assert from "node:assert/strict";
import { createHash, randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { draws } from "./draws.mjs";

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
console.log(`SEED=${seed}`);
const draw = draws(seed);

const SCRIPT = readFileSync(new URL("../../www/offline-worker.js", import.meta.url), "utf8");
const SCOPE = "https://a.example/page/";
const random = (size) => Uint8Array.from({ length: size }, () => draw(256));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Caches that outlive a service worker. */
function emptyCaches() {
  const all = new Map();
  return {
    all,
    keys: async () => [...all.keys()],
    delete: async (name) => all.delete(name),
    open: async (name) => {
      if (!all.has(name)) all.set(name, new Map());
      const inside = all.get(name);
      return {
        match: async (url) => inside.get(url)?.clone(),
        put: async (url, response) => inside.set(url, response),
        delete: async (url) => inside.delete(url),
      };
    },
  };
}

/**
 * A service worker of a build of these files.
 * @param {Record<string, Uint8Array>} build
 * @param {Record<string, Uint8Array>} site what the server has, which may change
 */
function start(build, site, { caches = emptyCaches(), active = null, aside = [] } = {}) {
  const listed = Object.entries(build).map(([path, bytes]) => [path, sha256(bytes), bytes.length]);
  const name = sha256(Buffer.from(JSON.stringify(listed))).slice(0, 16);
  const asked = [];
  const listeners = {};
  const state = { online: true, asked, caches, unregistered: 0, reloads: 0, script: `const BUILD = "${name}";` };
  const clients = [{ url: SCOPE, navigate: async () => state.reloads++ }];
  const worker = {
    registration: { scope: SCOPE, active, unregister: async () => state.unregistered++ },
    location: { href: `${SCOPE}sw.js` },
    clients: { claim: async () => {}, matchAll: async () => clients },
    skipWaiting() {},
    addEventListener: (kind, run) => (listeners[kind] = run),
  };
  const get = async (input) => {
    const url = typeof input === "string" ? input : input.url;
    if (!state.online) throw new TypeError("offline");
    const path = url.slice(SCOPE.length);
    asked.push(path);
    if (path === "") return new Response(site["index.html"]);
    if (path === "sw.js") return new Response(state.script);
    const bytes = site[path];
    if (!bytes) return new Response("no", { status: 404 });
    let at = 0;
    const body = new ReadableStream({
      pull: async (controller) => {
        await new Promise((resolve) => setImmediate(resolve));
        if (at >= bytes.length) controller.close();
        else controller.enqueue(bytes.slice(at, (at = Math.min(bytes.length, at + 1 + draw(900)))));
      },
    });
    return new Response(body, { headers: { "Content-Length": String(bytes.length), "Content-Type": "text/x" } });
  };
  new Function("self", "BUILD", "FILES", "ASIDE", "caches", "fetch", SCRIPT)(worker, name, listed, aside, caches, get);
  const dispatch = async (kind, more = {}) => {
    const until = [];
    let answer = null;
    listeners[kind]({ waitUntil: (work) => until.push(work), respondWith: (work) => (answer = work), ...more });
    const response = answer && (await answer);
    return { response, settled: () => Promise.all(until) };
  };
  const ask = async (path, range, mode = "cors") => {
    const headers = new Headers(range ? { Range: range } : {});
    const request = { url: SCOPE + path, method: "GET", cache: "default", mode, headers };
    return dispatch("fetch", { request });
  };
  const text = async (path, range, mode) => Buffer.from(await (await ask(path, range, mode)).response.arrayBuffer());
  const fill = () => new Promise((resolve) => dispatch("message", { data: "keep", ports: [{ postMessage: resolve }] }));
  return { state, dispatch, ask, text, fill };
}

const site = () => ({ "index.html": random(500), "www/a.js": random(2000), "models/nano/model.safetensors": random(20_000 + draw(9000)) });
const MODEL = "models/nano/model.safetensors";

test("a file is fetched once, however many ask for it and in whatever parts", async () => {
  for (let round = 0; round < 20; round++) {
    const files = site();
    const { state, text, fill, dispatch } = start(files, files);
    await (await dispatch("install")).settled();
    assert.deepEqual(state.asked, [], "the page's own files were fetched before it asked for them");
    const right = Buffer.from(files[MODEL]);
    const parts = Array.from({ length: 1 + draw(6) }, () => {
      const from = draw(right.length);
      const to = from + 1 + draw(right.length - from);
      return [from, draw(3) ? to : null];
    });
    const got = await Promise.all(parts.map(([from, to]) => text(MODEL, `bytes=${from}-${to === null ? "" : to - 1}`)));
    for (const [index, [from, to]] of parts.entries()) assert.ok(got[index].equals(right.subarray(from, to ?? right.length)), `${from}-${to}`);
    assert.ok((await text(MODEL)).equals(right));
    assert.deepEqual(await fill(), { whole: true, left: false });
    assert.deepEqual(state.asked.map((path) => path || "index.html").toSorted(), Object.keys(files).toSorted());
    // From then on without the network.
    state.online = false;
    for (const [path, bytes] of Object.entries(files)) {
      assert.ok((await text(path)).equals(Buffer.from(bytes)));
      assert.ok((await text(path, "bytes=5-9")).equals(Buffer.from(bytes.subarray(5, 10))));
    }
    assert.ok((await text("", null, "navigate")).equals(Buffer.from(files["index.html"])));
  }
});

test("heads of ranges are those of a server", async () => {
  const files = site();
  const { ask, fill } = start(files, files);
  for (const kept of [false, true]) {
    for (const [range, status, content] of [["bytes=0-9", 206, "bytes 0-9/500"], ["bytes=490-", 206, "bytes 490-499/500"], ["bytes=-3", 206, "bytes 497-499/500"], ["bytes=500-", 416, "bytes */500"], ["bytes=0-1,4-5", 200, null]]) {
      const { response } = await ask("index.html", range);
      assert.deepEqual([response.status, response.headers.get("Content-Range")], [status, content], `${range}, kept: ${kept}`);
      await response.arrayBuffer();
    }
    await fill();
  }
});

test("what was damaged on the disk is not served", async () => {
  const files = site();
  const { state, text, ask, fill } = start(files, files);
  await fill();
  for (let round = 0; round < 10; round++) {
    const path = Object.keys(files)[draw(3)];
    const [cache] = state.caches.all.values();
    const bad = files[path].slice();
    bad[draw(bad.length)] ^= 1 + draw(255);
    cache.set(SCOPE + path, new Response(bad));
    const range = draw(2) ? "bytes=0-" : null;
    assert.ok((await text(path, range)).equals(Buffer.from(files[path])), "damaged bytes were served");
  }
  const [cache] = state.caches.all.values();
  cache.set(`${SCOPE}www/a.js`, new Response("bad"));
  state.online = false;
  assert.equal((await ask("www/a.js")).response.type, "error");
  assert.equal(state.unregistered, 0, "a lost file without a network is no other build");
});

test("another build on the server: handed on while little is kept, and never mixed", async () => {
  const files = site();
  const served = { ...files };
  const one = start(files, served);
  const { response: whole, settled } = await one.ask(MODEL);
  await whole.arrayBuffer();
  await settled();
  // The next page begins while only a part is kept, and the server has another build.
  served[MODEL] = random(3000);
  one.state.script = 'const BUILD = "other";';
  const again = start(files, served, { caches: one.state.caches });
  again.state.script = one.state.script;
  served["index.html"] = random(100);
  const { response: first } = await again.ask("index.html", null, "navigate");
  assert.ok(Buffer.from(await first.arrayBuffer()).equals(Buffer.from(served["index.html"])), "the page is not the server's");
  assert.equal(again.state.unregistered, 1);
  assert.equal(one.state.caches.all.size, 0);
  const { response } = await again.ask(MODEL);
  assert.equal(response, null, "the worker still stands between");

  // A server that serves a file otherwise: what it has is handed on, and nothing counts as kept.
  for (const odd of [random(50), new Uint8Array(40_000), files[MODEL].map((byte) => byte ^ 1)]) {
    const altered = { ...files, [MODEL]: odd };
    const two = start(files, altered);
    const got = await two.text(MODEL).catch(() => null);
    if (got) assert.ok(got.equals(Buffer.from(odd)));
    assert.ok((await two.text(MODEL)).equals(Buffer.from(odd)), "the server's own file was not handed on");
    assert.equal((await two.fill()).whole, false);
  }

  // All was kept, one file was lost, and the server has another: the page is reloaded from there.
  const kept = emptyCaches();
  await start(files, files, { caches: kept }).fill();
  const late = start(files, { ...files, "www/a.js": random(10) }, { caches: kept });
  [...kept.all.values()][0].delete(`${SCOPE}www/a.js`);
  assert.equal((await late.ask("www/a.js")).response.type, "error");
  assert.deepEqual([late.state.unregistered, late.state.reloads, kept.all.size], [1, 1, 0]);
});

test("a new build takes over what is the same, and is whole or not there", async () => {
  const files = site();
  const old = start(files, files);
  await old.fill();
  const next = { ...files, "www/a.js": random(1000) };
  const fresh = start(next, next, { caches: old.state.caches, active: {} });
  await (await fresh.dispatch("install")).settled();
  assert.deepEqual(fresh.state.asked, ["www/a.js"]);
  const half = start({ ...next, "www/a.js": random(1000) }, next, { caches: old.state.caches, active: {} });
  await assert.rejects((await half.dispatch("install")).settled());
});

test("what is not the page's is left alone", async () => {
  const files = site();
  const { ask, dispatch } = start(files, files, { aside: ["models/nano/eval.json"] });
  for (const path of ["models/nano/eval.json", "models/other/config.json", "x", "%"]) assert.equal((await ask(path)).response, null, path);
  for (const path of ["models/nano/none.json", "models/nano/100%"]) assert.equal((await ask(path)).response.status, 404, path);
  for (const request of [{ method: "POST" }, { cache: "no-store" }, { url: "https://b.example/index.html" }]) {
    const { response } = await dispatch("fetch", { request: { url: `${SCOPE}index.html`, method: "GET", cache: "default", mode: "cors", headers: new Headers(), ...request } });
    assert.equal(response, null);
  }
});
