// What is fetched for an address, against servers that are played by the test.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { isInside, parseManifest, shards } from "../../www/store/manifest.js";
import { resolve } from "../../www/store/sources.js";

const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;
const HASH = "ab".repeat(32);
const OID = "cd".repeat(20);

/**
 * @param {Record<string, any>} files by address: text, a status, or a Response
 */
function world(files) {
  const asked = [];
  return {
    asked,
    page: "https://a.example/page/",
    signal: new AbortController().signal,
    sleep: async () => {},
    random: () => 0,
    diagnose: async () => null,
    reached: new Set(),
    fetch: async (url, { method }) => {
      asked.push(`${method} ${url}`);
      const file = files[url];
      if (file === undefined) return new Response("no", { status: 404 });
      if (typeof file === "number") return new Response("no", { status: file });
      if (file instanceof Response) return file.clone();
      return new Response(method === "HEAD" ? null : file, { headers: { "Content-Length": String(file.length) } });
    },
  };
}

const under = (base, files) => Object.fromEntries(Object.entries(files).map(([name, text]) => [base + name, text]));
const paths = (plan) => plan.files.map((file) => file.path);

const entry = (name, bytes = 9) => ({ name, bytes, sha256: HASH });
const MODEL = ["config.json", "tokenizer.json", "model.safetensors"];

test("a manifest says it all", async () => {
  const base = "https://b.example/m/";
  const manifest = JSON.stringify({ format: "phi3-steer-planes-1", files: [...MODEL, "sae/layers.3/a b.safetensors"].map((name) => entry(name)) });
  const plan = await resolve("https://b.example/m", "model", world(under(base, { "manifest.json": manifest })));
  assert.deepEqual(paths(plan), [...MODEL, "sae/layers.3/a b.safetensors", "manifest.json"]);
  assert.equal(plan.files[3].url, `${base}sae/layers.3/a%20b.safetensors`);
  assert.deepEqual([plan.files[3].bytes, plan.files[3].sha256, plan.files[3].proof], [9, HASH, "manifest"]);
  assert.equal(plan.files[4].sha256, createHash("sha256").update(manifest).digest("hex"));
  // What follows "?" in the folder's address may be what opens it.
  const signed = await resolve("https://b.example/m/?token=1", "model", world({ [`${base}manifest.json?token=1`]: manifest }));
  assert.ok(signed.files.every((file) => file.url.endsWith("?token=1")));
});

test("a manifest is not trusted with paths, sizes and hashes", () => {
  for (const bad of [
    { name: "../x", bytes: 1, sha256: HASH },
    { name: "/x", bytes: 1, sha256: HASH },
    { name: "a/./x", bytes: 1, sha256: HASH },
    { name: "https://evil.example/x", bytes: 1, sha256: HASH },
    { name: "a\\x", bytes: 1, sha256: HASH },
    { name: "x", bytes: -1, sha256: HASH },
    { name: "x", bytes: 1.5, sha256: HASH },
    { name: "x", bytes: 1, sha256: "0" },
    { name: "x", bytes: 1 },
    null,
  ]) {
    assert.throws(() => parseManifest(JSON.stringify({ files: [bad] }), "https://b.example/"), code("bad-answer"), JSON.stringify(bad));
  }
  assert.equal(parseManifest('{"name":"an app"}', "https://b.example/"), null);
  assert.throws(() => parseManifest("<html>", "https://b.example/"), code("bad-answer"));
  assert.ok(isInside("sae/layers.3/x.safetensors"));
});

test("a plain folder: the usual names, shards by the index, the report's dictionary", async () => {
  const base = "https://b.example/m/";
  const single = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors": "12345", "report.json": '{"hook":"layers.3"}', "sae/layers.3/cfg.json": "{}", "sae/layers.3/sae.safetensors": "xyz" };
  const plan = await resolve(base, "model", world(under(base, single)));
  assert.deepEqual(paths(plan), ["config.json", "tokenizer.json", "report.json", "model.safetensors", "sae/layers.3/cfg.json", "sae/layers.3/sae.safetensors"]);
  assert.deepEqual(plan.files.map((file) => file.proof), Array(6).fill(null));
  assert.equal(plan.files[3].bytes, 5);
  const index = JSON.stringify({ weight_map: { a: "m-2.safetensors", b: "m-1.safetensors", c: "m-2.safetensors" } });
  const sharded = await resolve(base, "model", world(under(base, { "config.json": "{}", "model.safetensors.index.json": index, "tokenizer.json": "{}", "chat_template.jinja": "x", "generation_config.json": "{}", "m-1.safetensors": "1", "m-2.safetensors": "22" })));
  assert.deepEqual(paths(sharded), ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja", "model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"]);
  for (const bad of ["{}", '{"weight_map":{}}', '{"weight_map":{"a":"../x"}}', '{"weight_map":{"a":1}}']) assert.throws(() => shards(bad, "x"), code("bad-answer"), bad);
});

test("a start page where a file is missing is no file", async () => {
  const base = "https://b.example/m/";
  const page = () => new Response("<!doctype html>", { headers: { "Content-Type": "text/html; charset=utf-8" } });
  const everywhere = new Proxy({}, { get: page });
  await assert.rejects(resolve(base, "model", world(everywhere)), code("not-found"));
  await assert.rejects(resolve(base, "dictionary", world({})), code("not-found"));
});

test("single files need no list", async () => {
  const one = world({});
  const plan = await resolve("https://b.example/x/y.gguf?token=1", "model", one);
  assert.deepEqual(paths(plan), ["y.gguf"]);
  assert.equal(plan.files[0].url, "https://b.example/x/y.gguf?token=1");
  assert.deepEqual(one.asked, []);
  const manifest = JSON.stringify({ files: [{ name: "z.gguf", bytes: 7, sha256: HASH }] });
  const here = await resolve("./models/z/z.gguf", "model", world({ "https://a.example/page/models/z/manifest.json": manifest }));
  assert.deepEqual([here.files[0].url, here.files[0].sha256], ["https://a.example/page/models/z/z.gguf", HASH]);
});

const TREE = "https://huggingface.co/api/models/o/n/tree/main";
const lfs = (path, size) => ({ type: "file", path, size, oid: OID, lfs: { oid: HASH, size } });
const small = (path) => ({ type: "file", path, size: 3, oid: OID });

test("the Hub gives sizes and hashes, over several pages", async () => {
  const next = `${TREE}?recursive=true&cursor=2`;
  const index = JSON.stringify({ weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" } });
  const plan = await resolve(
    "o/n",
    "model",
    world({
      [`${TREE}?recursive=true`]: new Response(JSON.stringify([small("config.json"), small("tokenizer.json"), lfs("model-00001-of-00002.safetensors", 500), { type: "directory", path: "x" }]), { headers: { Link: `<${next}>; rel="next"` } }),
      [next]: JSON.stringify([lfs("model-00002-of-00002.safetensors", 400), small("model.safetensors.index.json"), lfs("onnx/model.onnx", 9)]),
      "https://huggingface.co/o/n/resolve/main/model.safetensors.index.json": index,
    }),
  );
  assert.deepEqual(paths(plan), ["config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
  const [config, , , shard] = plan.files;
  assert.deepEqual([config.sha256, config.gitOid, config.bytes], [null, OID, 3]);
  assert.deepEqual([shard.sha256, shard.gitOid, shard.bytes, shard.proof], [HASH, null, 500, "hub"]);
  assert.equal(shard.url, "https://huggingface.co/o/n/resolve/main/model-00001-of-00002.safetensors");
});

test("one GGUF of a repository, by its address; several are a choice", async () => {
  const files = { [`${TREE}?recursive=true`]: JSON.stringify([lfs("a-q4.gguf", 5), lfs("a-fp16.gguf", 9), small("README.md")]) };
  const plan = await resolve("https://huggingface.co/o/n/blob/main/a-q4.gguf", "model", world(files));
  assert.deepEqual(paths(plan), ["a-q4.gguf"]);
  assert.equal(plan.files[0].sha256, HASH);
  await assert.rejects(resolve("o/n", "model", world(files)), (error) => {
    assert.deepEqual(error.choices, ["https://huggingface.co/o/n/resolve/main/a-q4.gguf", "https://huggingface.co/o/n/resolve/main/a-fp16.gguf"]);
    return code("ambiguous")(error);
  });
  await assert.rejects(resolve("https://huggingface.co/o/n/resolve/main/b.gguf", "model", world(files)), code("not-found"));
});

test("dictionaries of a repository: one folder, or a choice, and never pickle", async () => {
  const files = {
    [`${TREE}?recursive=true`]: JSON.stringify([small("layer_21/cfg.json"), lfs("layer_21/sae_weights.safetensors", 7), small("layer_22/cfg.json"), lfs("layer_22/sae_weights.safetensors", 7)]),
    [`${TREE}/layer_21?recursive=true`]: JSON.stringify([small("layer_21/cfg.json"), lfs("layer_21/sae_weights.safetensors", 7), lfs("layer_21/checkpoints/a.pt", 7)]),
    "https://huggingface.co/api/models/o/p/tree/main?recursive=true": JSON.stringify([lfs("sae.pt", 7), small("README.md")]),
  };
  const plan = await resolve("https://huggingface.co/o/n/tree/main/layer_21", "dictionary", world(files));
  assert.deepEqual(paths(plan), ["cfg.json", "sae_weights.safetensors"]);
  assert.equal(plan.files[1].url, "https://huggingface.co/o/n/resolve/main/layer_21/sae_weights.safetensors");
  await assert.rejects(resolve("o/n", "dictionary", world(files)), (error) => {
    assert.deepEqual(error.choices, ["https://huggingface.co/o/n/resolve/main/layer_21/", "https://huggingface.co/o/n/resolve/main/layer_22/"]);
    return true;
  });
  await assert.rejects(resolve("o/p", "dictionary", world(files)), (error) => /pickle/.test(error.message));
});

test("gated and missing repositories, and a server in trouble", async () => {
  await assert.rejects(resolve("o/n", "model", world({ [`${TREE}?recursive=true`]: 401 })), code("forbidden"));
  await assert.rejects(resolve("o/n", "model", world({})), code("not-found"));
  await assert.rejects(resolve("https://b.example/m/", "model", world({ "https://b.example/m/manifest.json": 500 })), code("server"));
  await assert.rejects(resolve("http://b.example/m/", "model", world({})), code("insecure-url"));
});
