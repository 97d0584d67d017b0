// A plan is complete or there is none, and says why: against servers that are played by the test.

import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { checkConfig, checkHead, ggufArchitecture } from "../../www/store/content.js";
import { formAt, ggufParts, otherForm } from "../../www/store/forms.js";
import { looseJson } from "../../www/store/json.js";
import { parseManifest } from "../../www/store/manifest.js";
import { checkIndex, resolve } from "../../www/store/sources.js";
import { place } from "../../www/store/store.js";
import { draws } from "./draws.mjs";

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
console.log(`SEED=${seed}`);
const draw = draws(seed);

const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;
const HASH = "ab".repeat(32);
const BASE = "https://b.example/m/";
const TREE = "https://huggingface.co/api/models/o/n/tree/main?recursive=true";

/**
 * @param {(path: string, method: string, range: string | undefined) => Response | Promise<Response>} answer
 */
function world(answer, more = {}) {
  const asked = [];
  return {
    asked,
    page: "https://a.example/page/",
    signal: new AbortController().signal,
    sleep: async () => {},
    random: () => 0,
    diagnose: async () => null,
    reached: new Set(),
    fetch: async (url, { method = "GET", headers = {}, signal }) => {
      asked.push(`${method} ${url}`);
      return answer(url, method, headers.Range, signal);
    },
    ...more,
  };
}

const no = (status = 404) => new Response(null, { status });
const yes = (text, headers = {}) => new Response(text, { headers: { "Content-Length": String(Buffer.byteLength(text)), ...headers } });

/** A server of these files under BASE. */
const folder = (files, missing = 404, head = 200) =>
  world((url, method) => {
    const text = files[url.slice(BASE.length)];
    if (text === undefined) return no(missing);
    if (method === "HEAD" && head !== 200) return no(head);
    return method === "HEAD" ? new Response(null, { headers: { "Content-Length": String(text.length) } }) : yes(text);
  });

const hub = (list) => world((url) => (url === TREE ? yes(JSON.stringify(list.map((path) => ({ type: "file", path, size: 3, oid: "cd".repeat(20), ...(/\.(json|jinja)$/.test(path) ? {} : { lfs: { oid: HASH, size: 9 } }) })))) : no()));
const paths = (plan) => plan.files.map((file) => file.path);
const MODEL = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "12345" };

test("what is optional and refused counts as missing; it is said only where something lacks", async () => {
  for (const status of [401, 403]) {
    const plan = await resolve(BASE, "model", folder(MODEL, status));
    assert.deepEqual(paths(plan), Object.keys(MODEL));
    const { "tokenizer.json": _, ...rest } = MODEL;
    await assert.rejects(resolve(BASE, "model", folder(rest, status)), (error) => code("forbidden")(error) && /tokenizer\.json/.test(error.message));
    await assert.rejects(resolve(BASE, "dictionary", folder({}, status)), code("forbidden"));
  }
  await assert.rejects(resolve(BASE, "model", folder({})), code("not-found"));
});

test("a server that refuses HEAD is asked with GET", async () => {
  for (const status of [400, 401, 403, 405, 500, 501]) {
    const plan = await resolve(BASE, "model", folder(MODEL, 404, status));
    assert.deepEqual(paths(plan), Object.keys(MODEL), `HEAD ${status}`);
  }
  const broken = world((url, method, range) => {
    if (method === "HEAD") throw new TypeError("Failed to fetch");
    const text = MODEL[url.slice(BASE.length)];
    if (text === undefined) return no();
    return range ? new Response(text[0], { status: 206, headers: { "Content-Range": `bytes 0-0/${text.length}` } }) : yes(text);
  });
  const plan = await resolve(BASE, "model", broken);
  assert.deepEqual(plan.files.map((file) => file.bytes), [2, 2, 5]);
  // Nor to a range that a browser cannot take.
  const whole = world((url, method, range) => {
    if (method === "HEAD" || range) throw new TypeError("Failed to fetch");
    const text = MODEL[url.slice(BASE.length)];
    return text === undefined ? no() : yes(text);
  });
  assert.deepEqual((await resolve(BASE, "model", whole)).files.map((file) => file.bytes), [2, 2, 5]);
  // A compressed answer's length is not the file's.
  const packed = world((url) => (url.slice(BASE.length) in MODEL ? yes("x", { "Content-Encoding": "gzip" }) : no()));
  assert.deepEqual((await resolve(BASE, "model", packed)).files.map((file) => file.bytes), [null, null, null]);
});

test("a connection that breaks while the list is made is tried again", async () => {
  let broken = 0;
  const files = folder(MODEL);
  const flaky = { ...files, fetch: async (url, init) => (broken++ % 3 === 1 ? Promise.reject(new TypeError("reset")) : files.fetch(url, init)), diagnose: async () => assert.fail("the reason was looked for") };
  assert.deepEqual(paths(await resolve(BASE, "model", flaky)), Object.keys(MODEL));
});

test("an incomplete model or dictionary has no plan", async () => {
  const index = JSON.stringify({ weight_map: { a: "a.safetensors", b: "b.safetensors" } });
  const sharded = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors.index.json": index, "a.safetensors": "1", "b.safetensors": "2" };
  assert.equal((await resolve(BASE, "model", folder(sharded))).files.length, 5);
  for (const [files, kind] of [
    [sharded, "model"],
    [MODEL, "model"],
    [{ "cfg.json": "{}", "sae.safetensors": "1" }, "dictionary"],
    [{ "hyperparams.json": "{}", "checkpoints/final.safetensors": "1" }, "dictionary"],
  ]) {
    for (const name of Object.keys(files)) {
      const { [name]: _, ...rest } = files;
      await assert.rejects(resolve(BASE, kind, folder(rest)), code("not-found"), `${kind} without ${name}`);
      await assert.rejects(resolve("o/n", kind, hub(Object.keys(rest).filter((one) => !one.includes("index")))), code("not-found"), `${kind} without ${name} on the Hub`);
      const manifest = JSON.stringify({ files: Object.keys(rest).map((one) => ({ name: one, bytes: 1, sha256: HASH })) });
      if (!name.match(/^[ab]\./)) await assert.rejects(resolve(BASE, kind, folder({ "manifest.json": manifest })), code("not-found"), `${kind} without ${name} in a manifest`);
    }
  }
  const plan = { name: "x", files: [{ path: "a.safetensors" }] };
  assert.throws(() => checkIndex("model.safetensors.index.json", index, plan), (error) => /b\.safetensors/.test(error.message));
  checkIndex("model.safetensors.index.json", JSON.stringify({ weight_map: { a: "a.safetensors" } }), plan);
});

test("split GGUF files are one model", async () => {
  assert.deepEqual(ggufParts("d/x-Q4-00002-of-00003.gguf"), ["d/x-Q4-00001-of-00003.gguf", "d/x-Q4-00002-of-00003.gguf", "d/x-Q4-00003-of-00003.gguf"]);
  for (const whole of ["x.gguf", "x-00004-of-00003.gguf", "x-00001-of-00000.gguf", "x-00001-of-99999.gguf", "x-1-of-3.gguf"]) assert.equal(ggufParts(whole), null, whole);
  const parts = ggufParts("x-00001-of-00003.gguf");
  assert.deepEqual(paths(await resolve("o/n", "model", hub(["README.md", ...parts]))), parts);
  assert.deepEqual(paths(await resolve(`https://huggingface.co/o/n/resolve/main/${parts[1]}`, "model", hub(parts))), parts);
  await assert.rejects(resolve("o/n", "model", hub(parts.slice(1))), (error) => code("not-found")(error) && error.message.includes(parts[0]));
  await assert.rejects(resolve("o/n", "model", hub([...parts, "y.gguf"])), (error) => code("ambiguous")(error) && error.choices.length === 2);
  const files = Object.fromEntries(parts.map((part) => [part, "GGUF"]));
  const plan = await resolve(`${BASE}${parts[2]}`, "model", folder(files));
  assert.deepEqual(paths(plan), parts);
  assert.deepEqual(plan.files.map((file) => file.url), parts.map((part) => BASE + part));
  delete files[parts[1]];
  await assert.rejects(resolve(`${BASE}${parts[2]}`, "model", folder(files)), (error) => code("not-found")(error) && error.message.includes(parts[1]));
});

test("the form that is whole counts, and the only candidate is taken", async () => {
  // A foreign config.json beside the only GGUF file; safetensors without a tokenizer beside one.
  assert.deepEqual(paths(await resolve("o/n", "model", hub(["config.json", "nano.gguf"]))), ["nano.gguf"]);
  assert.deepEqual(paths(await resolve("o/n", "model", hub(["config.json", "model.safetensors", "nano.gguf"]))), ["nano.gguf"]);
  assert.deepEqual(paths(await resolve("o/n", "dictionary", hub(["README.md", "layers.6/cfg.json", "layers.6/sae.safetensors"]))), ["layers.6/cfg.json", "layers.6/sae.safetensors"]);
  assert.deepEqual(paths(await resolve("o/n", "model", hub(["q4/config.json", "q4/tokenizer.json", "q4/model.safetensors"]))), ["q4/config.json", "q4/tokenizer.json", "q4/model.safetensors"]);
  // Of several folders only one is whole.
  assert.deepEqual(paths(await resolve("o/n", "dictionary", hub(["a/sae.safetensors", "b/cfg.json", "b/sae.safetensors"]))), ["b/cfg.json", "b/sae.safetensors"]);
  await assert.rejects(resolve("o/n", "dictionary", hub(["a/params.npz", "b/c/params.npz"])), (error) => code("ambiguous")(error) && error.choices.length === 2);
  const many = Array.from({ length: 1000 }, (_, layer) => `l${layer}/params.npz`);
  await assert.rejects(resolve("o/n", "dictionary", hub(many)), (error) => code("ambiguous")(error) && error.choices.length === 200 && /1000/.test(error.message));
});

test("what is something else is named for what it is", async () => {
  for (const [list, what] of [
    [["mlc-chat-config.json", "ndarray-cache.json", "params_shard_0.bin", "tokenizer.json"], /MLC/],
    [["adapter_config.json", "adapter_model.safetensors", "README.md"], /adapter/],
    [["config.json", "tokenizer.json", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data"], /ONNX/],
    [["config.json", "pytorch_model.bin"], /pickle/],
    [["config.json", "tf_model.h5"], /TensorFlow/],
    [["model.mlpackage/Data/weights"], /Core ML/],
    [["README.md"], /no model\.safetensors/],
  ]) {
    await assert.rejects(resolve("o/n", "model", hub(list)), (error) => code("not-found")(error) && what.test(error.message), list[0]);
  }
  assert.equal(otherForm(["photo.jpg"]), null);
  // A server that lists nothing is asked for the marks.
  await assert.rejects(resolve(BASE, "model", folder({ "mlc-chat-config.json": "{}" })), (error) => /MLC/.test(error.message));
});

test("a model's config is looked at before its weights", () => {
  checkConfig("config.json", '{"model_type":"phi3"}');
  checkConfig("config.json", '\uFEFF{"model_type":"phi3","x":NaN}');
  for (const [json, what] of [
    ['{"model_type":"mistral"}', /mistral/],
    ['{"model_type":"llava","text_config":{"model_type":"phi3"}}', /several kinds/],
    ['{"model_type":"phi3","quantization_config":{"quant_method":"bitsandbytes"}}', /bitsandbytes/],
    ['{"model_type":"phi3","quantization":{"group_size":64,"bits":4}}', /MLX/],
    ["[]", /no model/],
  ]) {
    assert.throws(() => checkConfig("config.json", json), (error) => code("bad-config")(error) && what.test(error.message), json);
  }
  assert.throws(() => checkConfig("config.json", "{"), code("bad-answer"));
});

const gguf = (architecture) => {
  const key = "general.architecture";
  const head = Buffer.alloc(24);
  head.write("GGUF");
  const long = (value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  return new Uint8Array(Buffer.concat([head, long(key.length), Buffer.from(key), Buffer.from([8, 0, 0, 0]), long(architecture.length), Buffer.from(architecture), Buffer.alloc(50)]));
};

test("a file that begins as something else is refused by what it is", () => {
  const bytes = (text) => new TextEncoder().encode(text);
  const header = new Uint8Array([16, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]);
  checkHead("model.safetensors", header);
  checkHead("config.json", bytes('\uFEFF {"a":1}'));
  checkHead("params.npz", bytes("PK\u0003\u0004"));
  checkHead("README.html", bytes("<!doctype html>"));
  checkHead("x.gguf", gguf("phi3"));
  checkHead("x.gguf", bytes("GGUF"));
  assert.equal(ggufArchitecture(gguf("phi3")), "phi3");
  assert.throws(() => checkHead("x.gguf", gguf("qwen2")), (error) => code("bad-config")(error) && /qwen2/.test(error.message));
  for (const name of ["model.safetensors", "config.json", "x.gguf", "params.npz", "chat_template.jinja"]) {
    assert.throws(() => checkHead(name, bytes(" <!DOCTYPE html><html>")), (error) => code("not-found")(error) && /web page/.test(error.message), name);
    assert.throws(() => checkHead(name, bytes('<?xml version="1.0"?><Error>')), (error) => /XML/.test(error.message), name);
    assert.throws(() => checkHead(name, bytes("version https://git-lfs.github.com/spec/v1\noid")), (error) => /LFS/.test(error.message), name);
  }
  for (const name of ["model.safetensors", "config.json", "x.gguf", "params.npz"]) assert.throws(() => checkHead(name, bytes("Not found")), code("bad-answer"), name);
  // Whatever the bytes, there is an error or none, and no other failure.
  for (let round = 0; round < 2000; round++) {
    const base = [header, gguf("phi3"), bytes('{"a":[1]}')][draw(3)].slice();
    for (let n = draw(4); n > 0; n--) base[draw(base.length)] = draw(256);
    try {
      checkHead(["m.safetensors", "m.gguf", "m.json", "m.npz"][draw(4)], base.subarray(0, draw(base.length + 1)));
    } catch (error) {
      assert.equal(error.name, "StoreError", String(error.stack));
    }
  }
});

test("Python's JSON", () => {
  assert.deepEqual(looseJson('\uFEFF{"a": NaN, "b": [Infinity, -Infinity, -1], "c": "NaN, \\"Infinity"}'), { a: null, b: [null, null, -1], c: 'NaN, "Infinity' });
  for (const bad of ["", "NaN x", "{'a': 1}", "{a: NaN}", '{"a": None}', '"\\']) assert.throws(() => looseJson(bad), SyntaxError, bad);
  // As much work as there is text, however it is made.
  for (const text of ['{"a": NaN, "' + '\\"'.repeat(2 ** 21), `[${"NaN,".repeat(2 ** 19)}`, "-".repeat(2 ** 21)]) assert.throws(() => looseJson(text), SyntaxError);
});

test("lists are bounded: bytes, silence, time, entries, pages", { timeout: 20_000 }, async () => {
  const body = (pull) => new Response(new ReadableStream({ pull }));
  let sent = 0;
  const endless = world(() => body((controller) => controller.enqueue(new Uint8Array((sent += 65536) && 65536).fill(32))));
  await assert.rejects(resolve(BASE, "model", endless), code("too-large"));
  assert.ok(sent < 20 << 20, `${sent} bytes were taken in`);

  const quiet = (url, method, range, signal) => body((controller) => new Promise((resolve) => signal.addEventListener("abort", resolve)).then(() => controller.error(signal.reason)));
  await assert.rejects(resolve(BASE, "model", world(quiet, { stall: 10 })), code("network"));

  // A byte now and then is no silence.
  const drop = (url, method, range, signal) => body((controller) => new Promise((resolve) => setTimeout(resolve, 2)).then(() => (signal.aborted ? controller.error(signal.reason) : controller.enqueue(new Uint8Array([32])))));
  const drops = world(drop, { stall: 1000, longest: 60 });
  await assert.rejects(resolve(BASE, "model", drops), (error) => code("bad-answer")(error) && /longer than/.test(error.message));

  const files = Array.from({ length: 100_000 }, (_, n) => ({ name: `f${n}`, bytes: 1, sha256: HASH }));
  const many = folder({ "manifest.json": JSON.stringify({ files }) });
  await assert.rejects(resolve(BASE, "model", many), (error) => code("bad-answer")(error) && /100000 files/.test(error.message));
  assert.equal(many.asked.length, 1);

  const weight_map = Object.fromEntries(files.map(({ name }) => [name, name]));
  await assert.rejects(resolve(BASE, "model", folder({ ...MODEL, "model.safetensors": undefined, "model.safetensors.index.json": JSON.stringify({ weight_map }) })), (error) => /100000 files/.test(error.message));

  // A Hub whose pages never end, by itself or in a circle.
  let pages = 0;
  const tree = world((url) => yes("[]", { Link: `<${url}&c=${pages++}>; rel="next"` }));
  await assert.rejects(resolve("o/n", "model", tree), code("too-large"));
  const circle = world((url) => yes("[]", { Link: `<${url}>; rel="next"` }));
  await assert.rejects(resolve("o/n", "model", circle), code("not-found"));
  assert.equal(circle.asked.length, 1);
  for (const link of ["<https://evil.example/x>", "<https://me:secret@huggingface.co/x>", "<http://[>"]) {
    const other = world(() => yes("[]", { Link: `${link}; rel="next"` }));
    await assert.rejects(resolve("o/n", "model", other), code("not-found"), link);
    assert.equal(other.asked.length, 1);
  }
});

/** Random JSON-like values, proper and improper. */
function value(depth) {
  const odd = [null, true, -1, 0, 1.5, 9, 2 ** 53, 1e300, "", "x", "../x", "a/b", "a//b", "/a", "a\u0000b", "a\u202eb", "c:\\x", "x".repeat(600), "d/".repeat(20) + "x", HASH, HASH.toUpperCase(), "config.json", "__proto__"];
  if (depth > 3 || draw(3)) return odd[draw(odd.length)];
  if (draw(2)) return Array.from({ length: draw(4) }, () => value(depth + 1));
  return Object.fromEntries(Array.from({ length: draw(5) }, () => [["name", "bytes", "sha256", "files", "x", "__proto__"][draw(6)], value(depth + 1)]));
}

test("manifests of any kind give proper files or an error that is ours", () => {
  let taken = 0;
  for (let round = 0; round < 20_000; round++) {
    const files = Array.from({ length: draw(4) }, () => (draw(3) ? { name: draw(4) ? `f${draw(30)}/x` : value(4), bytes: draw(8) ? draw(2 ** 31) : value(4), sha256: draw(8) ? HASH : value(4) } : value(0)));
    let text = JSON.stringify(draw(8) ? { files } : value(0)) ?? "";
    if (!draw(4)) text = text.slice(0, draw(text.length + 1));
    if (!draw(6)) text = text.replace(/\d+/, "NaN");
    let listed;
    try {
      listed = parseManifest(text, BASE);
    } catch (error) {
      assert.equal(error.name, "StoreError", `${text}\n${error.stack}`);
      assert.ok(error.message.length < 1000 && !/[\p{Cc}\u202e]/u.test(error.message), error.message);
      continue;
    }
    for (const file of listed ?? []) {
      taken += 1;
      const url = new URL(file.url);
      assert.ok(url.href.startsWith(BASE) && !url.pathname.includes("/../"), file.url);
      assert.ok(Number.isSafeInteger(file.bytes) && file.bytes >= 0 && /^[0-9a-f]{64}$/.test(file.sha256), text);
    }
    assert.equal(new Set(listed?.map(({ path }) => path)).size, listed?.length ?? 0, "a name twice");
  }
  assert.ok(taken > 1000, "hardly any was proper");
});

test("what is on disk finds its place in another plan", () => {
  const file = (path, more = {}) => ({ path, url: BASE + path, bytes: null, sha256: null, gitOid: null, proof: null, etag: null, ...more });
  const record = (more = {}) => ({ state: "part", total: 9, etag: null, done: [[0, 4]], sha256: null, ...more });
  const other = "cd".repeat(32);
  const there = [
    { file: file("a", { sha256: HASH, slot: 4 }), record: record() },
    { file: file("b", { sha256: other, slot: 1 }), record: record({ state: "whole", sha256: other }) },
    { file: file("c", { slot: 2 }), record: record({ etag: '"1"' }) },
  ];
  const slots = (files) => place(files, there).map((one) => one.slot);
  // Another order, one more file, one that was renamed, one whose promise is another.
  assert.deepEqual(slots([file("new"), file("c"), file("a", { sha256: HASH }), file("moved", { sha256: other })]), [5, 2, 4, 1]);
  assert.deepEqual(slots([file("a", { sha256: "ef".repeat(32) }), file("b", { sha256: HASH })]), [5, 6]);
  assert.deepEqual(slots([file("c", { etag: '"1"' })]), [2]);
  assert.deepEqual(slots([file("c", { etag: '"2"' })]), [5]);
  assert.deepEqual(slots([file("c", { bytes: 8 })]), [5]);
  assert.deepEqual(slots([file("c", { url: "https://c.example/c" })]), [5]);
  // Bytes that proved wrong under the old promise are right under the new one.
  there[0].record.sha256 = "ef".repeat(32);
  assert.deepEqual(slots([file("a", { sha256: "ef".repeat(32) })]), [4]);
  assert.equal(formAt(new Set(["x"]), "model", ""), null);
});
