// What the store knows without a browser: ranges, hashes, records, waiting, addresses.

import assert from "node:assert/strict";
import { createHash, randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { hubFile, hubPlace, hubTree, isFile, nameOf, normalise, refused } from "../../www/store/address.js";
import { diagnose } from "../../www/store/diagnose.js";
import { gitOid } from "../../www/store/download.js";
import { Parts, areRanges, covered, missing, prefix, withRange } from "../../www/store/ranges.js";
import { decode, encode, newest } from "../../www/store/record.js";
import { beginsAsPage, contentRange, isEncoded, isPage, STALL } from "../../www/store/connection.js";
import { Passing, PROGRESS, parseRetryAfter, statusError, TRIES, waitAfter } from "../../www/store/retry.js";
import { shown, shownUrl } from "../../www/store/shown.js";
import { Sha256, sha256 } from "../../www/store/sha256.js";

const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;

/** Draws that can be repeated. */
export function draws(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
console.log(`SEED=${seed}`);
const draw = draws(seed);

test("ranges against a bitmap", () => {
  for (let round = 0; round < 200; round++) {
    const total = 1 + draw(60);
    const bitmap = new Uint8Array(total);
    let ranges = [];
    for (let n = draw(12); n >= 0; n--) {
      const start = draw(total + 1);
      const end = start + draw(total - start + 1);
      ranges = withRange(ranges, start, end);
      bitmap.fill(1, start, end);
    }
    assert.ok(areRanges(ranges, total), JSON.stringify(ranges));
    assert.equal(covered(ranges), bitmap.reduce((sum, bit) => sum + bit, 0));
    const first = bitmap.indexOf(0);
    assert.equal(prefix(ranges), first < 0 ? total : first);
    const rest = new Uint8Array(total).fill(1);
    for (const [start, end] of missing(ranges, total)) rest.fill(0, start, end);
    assert.deepEqual(rest, bitmap);
  }
});

test("parts cover what is missing, each byte once, also after some came back", () => {
  for (let round = 0; round < 200; round++) {
    const total = 1 + draw(200);
    const size = 1 + draw(20);
    const done = withRange([], draw(total), draw(total));
    const count = new Uint8Array(total);
    for (const [start, end] of done) count.fill(1, start, end);
    const parts = new Parts(missing(done, total), size);
    for (let part = parts.take(); part; part = parts.take()) {
      const [start, end] = part;
      assert.ok(end - start <= size && end > start);
      const kept = draw(3) ? end : start + draw(end - start);
      for (let at = start; at < kept; at++) count[at] += 1;
      if (kept < end) parts.giveBack(kept, end);
    }
    assert.ok(count.every((n) => n === 1), `total ${total}, part ${size}: ${count}`);
  }
});

test("ranges from disk are not trusted", () => {
  for (const bad of [null, {}, [[0]], [[0, 0]], [[1, 0]], [[0, 11]], [[-1, 2]], [[0, 2], [2, 3]], [[0, 3], [1, 4]], [[0, 1.5]], [["0", "1"]]]) {
    assert.ok(!areRanges(bad, 10), JSON.stringify(bad));
  }
  assert.ok(areRanges([[0, 2], [4, 10]], 10));
});

test("SHA-256 is that of another implementation, however the bytes are cut", () => {
  for (let round = 0; round < 60; round++) {
    const bytes = Uint8Array.from({ length: draw(400) }, () => draw(256));
    const hash = new Sha256();
    for (let at = 0; at < bytes.length; ) {
      const next = at + draw(130);
      hash.update(bytes.subarray(at, next));
      at = next;
    }
    assert.equal(hash.hex(), createHash("sha256").update(bytes).digest("hex"));
  }
});

test("git's name of a file", async () => {
  // `printf 'hello\n' | git hash-object --stdin`
  assert.equal(await gitOid(new TextEncoder().encode("hello\n")), "ce013625030ba8dba906f756967f9e9ca394464a");
});

test("a record that was torn anywhere is not read, and the one before it is", () => {
  const old = encode(7, { done: [[0, 5]] });
  const next = encode(8, { done: [[0, 9]] });
  for (let cut = 0; cut < next.length; cut++) {
    assert.equal(decode(next.subarray(0, cut)), null, `cut at ${cut}`);
    assert.deepEqual(newest([decode(old), decode(next.subarray(0, cut))])?.value, { done: [[0, 5]] });
  }
  for (let at = 0; at < next.length; at++) {
    const spoilt = next.slice();
    spoilt[at] ^= 1 + draw(127);
    assert.equal(decode(spoilt), null, `byte ${at}`);
  }
  assert.equal(newest([decode(next), decode(old)])?.slot, 0);
  assert.equal(newest([null, null]), null);
});

/** What the engine's requests are tested with, too. */
const RULES = JSON.parse(readFileSync(new URL("../support/requests.json", import.meta.url), "utf8"));

test("heads of answers are read as the engine reads them", () => {
  const answer = (headers) => ({ headers: new Headers(headers) });
  for (const name of ["contentRange", "retryAfter", "encoded", "page", "beginsAsPage"]) assert.ok(RULES[name].length > 4, name);
  for (const [text, range] of RULES.contentRange) {
    const read = contentRange(text);
    assert.deepEqual(read && [read.start, read.end, read.total], range, text);
  }
  for (const [text, wait] of RULES.retryAfter) assert.equal(parseRetryAfter(text, RULES.now), wait, text);
  for (const [text, encoded] of RULES.encoded) assert.equal(isEncoded(answer({ "Content-Encoding": text })), encoded, text);
  for (const [text, page] of RULES.page) assert.equal(isPage(text), page, text);
  assert.equal(isPage(null), false);
  for (const [text, page] of RULES.beginsAsPage) assert.equal(beginsAsPage(new TextEncoder().encode(text)), page, text);
  assert.equal(STALL, RULES.stall);
});

test("what passes and what does not, as for the engine", () => {
  for (const status of RULES.passing) assert.ok(statusError(status, "u", null, 0) instanceof Passing, String(status));
  for (const status of RULES.lasting) assert.ok(!(statusError(status, "u", null, 0) instanceof Passing), String(status));
  assert.deepEqual([TRIES, PROGRESS], [RULES.tries, RULES.progress]);
  assert.equal(waitAfter(1, null, () => 1), RULES.firstWait);
  assert.equal(waitAfter(40, null, () => 1), RULES.longestWait);
  const asked = (milliseconds) => statusError(503, "u", String(milliseconds / 1000), 0);
  assert.ok(asked(RULES.longestRetryAfter) instanceof Passing);
  assert.ok(code("throttled")(asked(RULES.longestRetryAfter + 1000)));
  for (const [name, statuses] of Object.entries(RULES.codes)) {
    for (const status of statuses) {
      const error = statusError(status, "u", null, 0);
      assert.equal((error instanceof Passing ? error.error : error).code, name, String(status));
    }
  }
  assert.equal(statusError(429, "u", "2", 0).wait, 2000);
  assert.ok(code("throttled")(statusError(429, "u", "3600", 0)), "an hour is too long to wait");
  assert.equal(parseRetryAfter("Wed, 21 Oct 2015 07:28:00 GMT", Date.UTC(2015, 9, 21, 7, 27, 50)), 10_000);
  assert.equal(parseRetryAfter("Wed, 21 Oct 2015 07:28:00 GMT", Date.UTC(2016, 0)), 0);
  assert.equal(parseRetryAfter("soon", 0), null);
});

test("waits grow, are spread, and keep what the server asks", () => {
  const longest = [1, 2, 3, 4].map((failures) => waitAfter(failures, null, () => 1));
  assert.deepEqual(longest, [500, 1000, 2000, 4000]);
  assert.equal(waitAfter(3, null, () => 0), 0);
  assert.equal(waitAfter(40, null, () => 1), 30_000);
  assert.ok(waitAfter(1, 2000, () => 0) >= 2000);
});

test("addresses are brought into one form", () => {
  const page = "https://a.example/page/";
  assert.equal(normalise("https://b.example/m", page), "https://b.example/m/");
  assert.equal(normalise(" models/x ", page), "https://huggingface.co/models/x/");
  assert.equal(normalise("./models/x/", page), "https://a.example/page/models/x/");
  assert.equal(normalise("./x.gguf", page), "https://a.example/page/x.gguf");
  assert.equal(normalise("microsoft/Phi-3-mini-4k-instruct", page), "https://huggingface.co/microsoft/Phi-3-mini-4k-instruct/");
  assert.equal(
    normalise("https://huggingface.co/o/n/blob/main/x-q4.gguf?download=true#y", page),
    "https://huggingface.co/o/n/resolve/main/x-q4.gguf",
  );
  for (const bad of ["javascript:alert(1)", "file:///etc/passwd", "http://", "https://me:secret@b.example/"]) {
    assert.throws(() => normalise(bad, page), code("bad-url"), bad);
  }
  assert.ok(isFile("https://b.example/x.GGUF?download=true"));
  assert.ok(!isFile("https://b.example/x.gguf/"));
});

test("addresses that the page may not ask", () => {
  const page = "https://a.example/";
  assert.ok(code("insecure-url")(refused("http://b.example/", page)));
  for (const good of ["https://b.example/", "http://localhost:8000/", "http://127.0.0.1/", "https://a.example/m/"]) assert.equal(refused(good, page), null);
  assert.equal(refused("http://10.0.0.2/m/", "http://10.0.0.2/"), null);
});

test("places on the Hub", () => {
  const place = hubPlace("https://huggingface.co/o/n/resolve/v1%2Fx/a%20b/f.gguf");
  assert.deepEqual(place, { repo: "o/n", revision: "v1/x", path: "a b/f.gguf" });
  assert.equal(hubFile(place, "a b/f.gguf"), "https://huggingface.co/o/n/resolve/v1%2Fx/a%20b/f.gguf");
  assert.equal(hubTree({ repo: "o/n", revision: "main", path: "l 6" }), "https://huggingface.co/api/models/o/n/tree/main/l%206?recursive=true");
  assert.deepEqual(hubPlace("https://huggingface.co/o/n/"), { repo: "o/n", revision: "main", path: "" });
  assert.equal(hubPlace("https://huggingface.co/datasets/o/n"), null);
  assert.equal(hubPlace("https://b.example/o/n/"), null);
  assert.equal(nameOf("https://huggingface.co/o/n/"), "n");
  assert.equal(nameOf("https://huggingface.co/o/n/resolve/main/x-q4.gguf"), "x-q4.gguf");
  assert.equal(nameOf("https://huggingface.co/o/n/tree/main/layers.6/"), "n/layers.6");
  assert.equal(nameOf("https://b.example/"), "b.example");
});

test("a server that answers but forbids is told from one that is not there, and from the one that it sends on to", async () => {
  const page = "https://a.example/";
  const fails = async () => {
    throw new TypeError("Failed to fetch");
  };
  const opaque = async (_url, { mode }) => (mode === "no-cors" ? new Response(null) : fails());
  const found = await diagnose("https://b.example/x?token=1", page, true, opaque);
  assert.ok(code("cors")(found) && found.message.startsWith("b.example answers, but does not allow"));
  assert.ok(!found.message.includes("token"));
  const onward = async (_url, { mode }) => (mode === "no-cors" ? new Response(null) : Object.defineProperty(new Response(null), "type", { value: "opaqueredirect" }));
  const further = await diagnose("https://b.example/x", page, true, onward);
  assert.ok(code("cors")(further) && /sends on to another server, which does not/.test(further.message));
  // What can be read after all was only a broken connection.
  assert.equal(await diagnose("https://b.example/x", page, true, async () => new Response(null)), null);
  assert.equal(await diagnose("https://b.example/x", page, true, fails), null);
  assert.equal(await diagnose("https://b.example/x", page, false, opaque), null);
  assert.equal(await diagnose("https://a.example/x", page, true, opaque), null);
});

test("names and addresses are shown without what hides, and short", () => {
  for (let round = 0; round < 300; round++) {
    const text = Array.from({ length: draw(300) }, () => String.fromCharCode(draw(4) ? 32 + draw(95) : draw(0x10000))).join("");
    for (const out of [shown(text), shownUrl(`https://b.example/${text}`)]) {
      assert.ok(!/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u.test(out), JSON.stringify(out));
      assert.ok(out.length <= 200 * 9);
    }
  }
  assert.equal(shown("layers.3/a b\u00e9.safetensors"), "layers.3/a b\u00e9.safetensors");
  assert.equal(shown("x\u202egpj.exe\n\u001b[2J"), "x\\u{202e}gpj.exe\\u{a}\\u{1b}[2J");
  const long = shown("a".repeat(50_000_000));
  assert.equal(long.length, 80);
  assert.equal(shownUrl("https://b.example/x.gguf?token=secret#y"), "https://b.example/x.gguf?\u2026");
  assert.equal(shown(undefined), "undefined");
});

test("an address with a percent sign that stands for nothing takes nothing else with it", () => {
  for (const url of ["https://b.example/100%/m/", "https://huggingface.co/o/n/tree/ma%in/%", "https://b.example/%zz.gguf"]) {
    assert.equal(typeof nameOf(normalise(url, "https://a.example/")), "string");
    hubPlace(url);
  }
});

test("an item's key depends on its kind and address", () => {
  assert.notEqual(sha256(new TextEncoder().encode("model x")), sha256(new TextEncoder().encode("dictionary x")));
});
