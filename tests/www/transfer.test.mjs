// Downloads against servers that are played by the test: whatever they do, the bytes are right or
// there is an error that says why.

import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { covered } from "../../www/store/ranges.js";
import { Changed, Transfer } from "../../www/store/transfer.js";

const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
console.log(`SEED=${seed}`);
let state = seed >>> 0;
const draw = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

const code = (wanted) => (error) => error.code === wanted && error.message.length > 0;

/** A file in memory that can be "crashed": back to what was last saved. */
class Memory {
  constructor() {
    this.progress = { total: null, etag: null, done: [] };
    this.bytes = new Uint8Array(0);
    this.saved = structuredClone(this.progress);
    this.clears = 0;
    this.room = Infinity;
  }
  reserve(total) {
    if (total > this.room) throw Object.assign(new Error("full"), { code: "quota" });
    this.bytes = new Uint8Array(total).map((_, at) => this.bytes[at] ?? 0xee);
  }
  write(at, piece) {
    if (at + piece.length > this.bytes.length) {
      const more = new Uint8Array(at + piece.length).fill(0xee);
      more.set(this.bytes);
      this.bytes = more;
    }
    this.bytes.set(piece, at);
  }
  save() {
    this.saved = structuredClone(this.progress);
  }
  clear() {
    this.clears += 1;
    this.progress = { total: null, etag: null, done: [] };
    this.bytes = new Uint8Array(0);
    this.save();
  }
}

const content = (size) => Uint8Array.from({ length: size }, () => draw(256));

/**
 * A server: `script` is called with the number of the request and its range, and gives what is
 * different about the answer.
 */
function server(file, script = () => ({})) {
  const asked = [];
  const get = async (url, { headers, signal }) => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(headers.Range ?? "");
    const odd = script(asked.length, range ? Number(range[1]) : null) ?? {};
    asked.push(headers.Range ?? "all");
    signal.throwIfAborted();
    if (odd.fail) throw new TypeError("Failed to fetch");
    if (odd.status) return new Response("no", { status: odd.status, headers: odd.headers ?? {} });
    const data = odd.file ?? file;
    const partial = range && !odd.whole;
    const start = partial ? Number(range[1]) : 0;
    const end = partial && range[2] ? Math.min(data.length, Number(range[2]) + 1) : data.length;
    if (partial && start >= data.length) return new Response(null, { status: 416, headers: { "Content-Range": `bytes */${data.length}` } });
    let at = start;
    const stop = Math.min(end, start + (odd.drop ?? Infinity));
    const body = new ReadableStream({
      async pull(controller) {
        await null;
        if (signal.aborted) controller.error(signal.reason);
        else if (odd.hang && at >= stop) await new Promise((resolve) => signal.addEventListener("abort", resolve)).then(() => controller.error(signal.reason));
        else if (at < stop) controller.enqueue(data.slice(at, (at = Math.min(stop, at + 1 + draw(700)))));
        else if (at < end && !odd.quiet) controller.error(new TypeError("network error"));
        else controller.close();
      },
    });
    const answer = { ...odd.headers };
    if (odd.etag !== null) answer.ETag = odd.etag ?? '"1"';
    if (partial && !odd.hidden) answer["Content-Range"] = odd.range ?? `bytes ${start}-${end - 1}/${data.length}`;
    answer["Content-Length"] = String(odd.length ?? end - start);
    return new Response(body, { status: partial ? 206 : 200, headers: answer });
  };
  return { get, asked };
}

function transfer(file, script, target, more = {}) {
  const { get, asked } = server(file, script);
  const waits = [];
  const abort = new AbortController();
  const one = new Transfer("https://a.example/f", target, {
    fetch: get,
    signal: abort.signal,
    bytes: null,
    sleep: async (milliseconds, signal) => {
      waits.push(milliseconds);
      signal.throwIfAborted();
    },
    random: () => 1,
    diagnose: async () => null,
    reached: new Set(),
    onBytes: () => {},
    part: 2000,
    stall: 50,
    ...more,
  });
  return { run: () => one.run(), asked, waits, abort };
}

function assertWhole(target, file) {
  assert.equal(target.progress.total, file.length);
  assert.equal(covered(target.progress.done), file.length);
  assert.deepEqual(target.saved, target.progress, "what came last was not saved");
  assert.ok(Buffer.from(target.bytes).equals(Buffer.from(file)), "the bytes are not the file's");
}

const SIZE = 20_003;

test("a file comes in parts, several at a time", async () => {
  const file = content(SIZE);
  const target = new Memory();
  const { run, asked } = transfer(file, undefined, target);
  await run();
  assertWhole(target, file);
  assert.equal(asked.length, 11);
  assert.equal(asked[0], "bytes=0-");
});

test("sizes around the parts' edges, and an empty file", async () => {
  for (const size of [0, 1, 1999, 2000, 2001, 4000, 4001]) {
    const file = content(size);
    const target = new Memory();
    await transfer(file, undefined, target).run();
    assertWhole(target, file);
  }
});

test("a file that is there asks for nothing", async () => {
  const file = content(SIZE);
  const target = new Memory();
  await transfer(file, undefined, target).run();
  const again = transfer(file, undefined, target);
  await again.run();
  assert.deepEqual(again.asked, []);
});

test("connections that break anywhere are taken up where they broke", async () => {
  for (let round = 0; round < 20; round++) {
    const file = content(5000 + draw(30_000));
    const target = new Memory();
    const { run } = transfer(file, (n) => (n % 3 === 2 ? {} : { drop: draw(2500), quiet: draw(2) === 0 }), target, { part: 500 + draw(5000), progress: 1 });
    await run();
    assertWhole(target, file);
  }
});

test("a transfer stopped anywhere goes on from what was saved", async () => {
  for (let round = 0; round < 20; round++) {
    const file = content(SIZE);
    const target = new Memory();
    for (;;) {
      let left = draw(60);
      const one = transfer(file, undefined, target, { onBytes: () => left-- || one.abort.abort() });
      const ended = await one.run().then(
        () => true,
        (error) => {
          assert.equal(error.name, "AbortError", String(error.stack));
          return false;
        },
      );
      if (ended) break;
      assert.deepEqual(target.saved, target.progress);
      // A crash: only what was saved is known.
      target.progress = structuredClone(target.saved);
    }
    assertWhole(target, file);
  }
});

test("a server that ignores ranges sends it all, and again after a break", async () => {
  const file = content(SIZE);
  const target = new Memory();
  const { run, asked } = transfer(file, (n) => ({ whole: true, drop: n < 3 ? 3000 : Infinity }), target);
  await run();
  assertWhole(target, file);
  assert.deepEqual(asked, ["bytes=0-", "all", "all", "all"]);
});

test("a server that stops knowing ranges in the middle", async () => {
  const file = content(SIZE);
  const target = new Memory();
  await transfer(file, (n) => ({ whole: n > 2 }), target).run();
  assertWhole(target, file);
});

test("a compressed answer's length is not the file's", async () => {
  const file = content(SIZE);
  const target = new Memory();
  await transfer(file, () => ({ whole: true, length: 10 }), target).run();
  assertWhole(target, file);
});

test("a file that changes on the way is said to have changed, and what came stays", async () => {
  const [before, after] = [content(SIZE), content(SIZE)];
  for (const odd of [{ file: after, etag: '"2"' }, { file: after.slice(5) }, { file: after.slice(5), etag: null }]) {
    const target = new Memory();
    await assert.rejects(transfer(before, (n) => (n > 3 ? odd : {}), target).run(), (error) => error instanceof Changed && code("changed")(error));
    assert.ok(covered(target.progress.done) > 0);
    assert.deepEqual(target.saved, target.progress);
    // Whoever began it decides: anew.
    target.clear();
    await transfer(odd.file, undefined, target).run();
    assertWhole(target, odd.file);
  }
  // The server's name for it does not count where it was forgotten.
  const target = new Memory();
  await assert.rejects(transfer(before, (n) => (n > 3 ? { etag: '"2"' } : {}), target).run(), code("changed"));
  target.progress.etag = null;
  await transfer(before, () => ({ etag: '"2"' }), target).run();
  assertWhole(target, before);
});

test("a changed file is noticed after a restart", async () => {
  const [before, after] = [content(SIZE), content(SIZE)];
  const target = new Memory();
  const one = transfer(before, (n) => (n > 2 ? { status: 404 } : {}), target);
  await assert.rejects(one.run(), code("not-found"));
  assert.ok(covered(target.progress.done) > 0);
  await assert.rejects(transfer(after, () => ({ etag: '"2"' }), target).run(), code("changed"));
});

test("in one answer, where every machine behind an address has its own name for the file", async () => {
  const file = content(SIZE);
  const target = new Memory();
  const { run, asked } = transfer(file, (n) => ({ etag: `"${n}"` }), target, { ranges: false });
  await run();
  assertWhole(target, file);
  assert.deepEqual(asked, ["all"]);
});

test("ranges that are none: compressed on the way, of another place, in several parts, refused", async () => {
  const file = content(SIZE);
  for (const odd of [
    { headers: { "Content-Encoding": "gzip" }, length: 71, range: "bytes 0-70/71" },
    // The same from a foreign server, which shows less.
    { range: "bytes 0-70/71" },
    { hidden: true, length: 71 },
    { range: "bytes 5-9/20003" },
    { range: "bytes nonsense" },
    { headers: { "Content-Type": "multipart/byteranges; boundary=x" } },
    { status: 416 },
    { status: 416, headers: { "Content-Range": `bytes */${SIZE}` } },
  ]) {
    const target = new Memory();
    const ranged = (n, at) => (at === null ? {} : odd);
    const { run, asked } = transfer(file, ranged, target);
    await run();
    assertWhole(target, file);
    assert.equal(asked.at(-1), "all", JSON.stringify(odd));
  }
  // Only from the second part on.
  for (const odd of [{ status: 416 }, { range: `bytes 0-9/${SIZE}` }, { headers: { "Content-Encoding": "br" } }]) {
    const target = new Memory();
    await transfer(file, (n, at) => (at ? odd : {}), target).run();
    assertWhole(target, file);
  }
});

test("a range that a browser cannot take: the file comes in one answer", async () => {
  // What Chromium does with a compressed range.
  const file = content(SIZE);
  const target = new Memory();
  const { run, asked } = transfer(file, (n, at) => ({ fail: at !== null }), target, { diagnose: async () => assert.fail("the reason was looked for") });
  await run();
  assertWhole(target, file);
  assert.deepEqual(asked, ["bytes=0-", "bytes=0-", "all"]);
});

test("a server that sends less at a time than it is asked for", async () => {
  const file = content(SIZE);
  const target = new Memory();
  const { get } = server(file);
  const asked = [];
  const one = transfer(file, undefined, target, {
    fetch: async (url, init) => {
      const [, start, end] = /^bytes=(\d+)-(\d*)$/.exec(init.headers.Range);
      asked.push(start);
      const last = Math.min(Number(start) + 699, end ? Number(end) : SIZE - 1, SIZE - 1);
      const answer = await get(url, { ...init, headers: { Range: `bytes=${start}-${last}` } });
      return answer;
    },
  });
  await one.run();
  assertWhole(target, file);
  assert.deepEqual(one.waits, [], "it was taken for a failure");
  assert.ok(asked.length >= SIZE / 700);
});

test("a whole answer whose length is that of something else", async () => {
  // A short text that grew by compression, from a server that does not show it.
  const file = content(20);
  const target = new Memory();
  const { run, asked } = transfer(file, () => ({ whole: true, length: 43 }), target);
  await run();
  assertWhole(target, file);
  assert.deepEqual(asked, ["bytes=0-", "all", "all"]);
});

test("an answer without end", async () => {
  const endless = async (_url, { signal }) => {
    const body = new ReadableStream({ pull: (controller) => (signal.aborted ? controller.error(signal.reason) : controller.enqueue(new Uint8Array(1000))) });
    return new Response(body, { status: 200 });
  };
  await assert.rejects(transfer(content(9), undefined, new Memory(), { fetch: endless, most: 100_000 }).run(), code("too-large"));
  const known = new Memory();
  await assert.rejects(transfer(content(9), undefined, known, { fetch: endless, bytes: 5000 }).run(), code("wrong-length"));
  assert.ok(known.bytes.length <= 5000);
  await assert.rejects(transfer(content(SIZE), undefined, new Memory(), { most: SIZE - 1 }).run(), code("too-large"));
});

test("the first bytes are looked at before the rest comes", async () => {
  for (const [size, whole] of [[SIZE, false], [SIZE, true], [700, false], [0, false]]) {
    const file = content(size);
    let seen = null;
    const target = new Memory();
    await transfer(file, () => ({ whole }), target, { check: (head) => (seen = head) }).run();
    assert.deepEqual([...(seen ?? [])], [...file.subarray(0, 1024)]);
    const refuse = () => {
      throw Object.assign(new Error("no"), { code: "bad-config" });
    };
    const refused = new Memory();
    await assert.rejects(transfer(file, () => ({ whole }), refused, { check: refuse }).run(), code("bad-config"));
    assert.ok(covered(refused.progress.done) < 3 * 2000 + 1024 + 700);
  }
});

test("lengths that cannot be", async () => {
  const file = content(SIZE);
  await assert.rejects(transfer(file, undefined, new Memory(), { bytes: SIZE + 1 }).run(), code("wrong-length"));
  await assert.rejects(transfer(file, () => ({ whole: true }), new Memory(), { bytes: SIZE - 1 }).run(), code("wrong-length"));
  await assert.rejects(transfer(file, () => ({ hidden: true, length: "x" }), new Memory()).run(), code("bad-answer"));
  const target = new Memory();
  await transfer(file, () => ({ hidden: true }), target).run();
  assertWhole(target, file);
});

test("a server that promises more than it has ends in an error", async () => {
  const file = content(SIZE);
  const lie = (n, at) => ({ range: `bytes ${at}-${SIZE + 99}/${SIZE + 100}`, quiet: true });
  await assert.rejects(transfer(file, lie, new Memory()).run());
});

test("statuses: final ones at once, passing ones after some tries", async () => {
  const file = content(SIZE);
  for (const [status, wanted] of [[403, "forbidden"], [404, "not-found"], [400, "bad-answer"]]) {
    const one = transfer(file, () => ({ status }), new Memory());
    await assert.rejects(one.run(), code(wanted));
    assert.equal(one.asked.length, 1);
  }
  for (const [status, wanted] of [[500, "server"], [429, "throttled"]]) {
    const one = transfer(file, () => ({ status }), new Memory());
    await assert.rejects(one.run(), code(wanted));
    assert.equal(one.asked.length, 5);
    assert.deepEqual(one.waits, [500, 1000, 2000, 4000]);
  }
  const target = new Memory();
  const passing = transfer(file, (n) => (n < 3 ? { status: 503, headers: { "Retry-After": "7" } } : {}), target);
  await passing.run();
  assertWhole(target, file);
  assert.ok(passing.waits.every((wait) => wait >= 7000));
  const dead = transfer(file, () => ({ fail: true }), new Memory());
  await assert.rejects(dead.run(), code("unreachable"));
});

test("a throttling server gets fewer requests, and the file still comes", async () => {
  const file = content(40_000);
  const target = new Memory();
  let open = 0;
  const one = transfer(file, () => {}, target);
  const { get } = server(file);
  const limited = async (url, init) => {
    if (open >= 2) return new Response("no", { status: 429 });
    open += 1;
    const response = await get(url, init);
    init.signal.addEventListener("abort", () => (open -= 1), { once: true });
    return response;
  };
  const again = new Transfer("https://a.example/f", target, {
    fetch: limited, signal: one.abort.signal, bytes: null, sleep: async () => {}, random: () => 1, diagnose: async () => null, reached: new Set(), onBytes: () => {}, part: 2000,
  });
  await again.run();
  assertWhole(target, file);
});

test("silence is a broken connection", async () => {
  const file = content(SIZE);
  const target = new Memory();
  await transfer(file, (n) => (n === 1 ? { hang: true, drop: 10 } : {}), target).run();
  assertWhole(target, file);
  await assert.rejects(transfer(file, () => ({ hang: true, drop: 10 }), new Memory()).run(), code("network"));
});

test("what forbids reading is said after some tries, and never of a server that was read", async () => {
  const forbids = async () => Object.assign(new Error("no"), { code: "cors" });
  const one = transfer(content(9), () => ({ fail: true }), new Memory(), { diagnose: forbids });
  await assert.rejects(one.run(), code("cors"));
  assert.deepEqual(one.asked, ["bytes=0-", "bytes=0-", "all", "all", "all"]);
  // A connection that was reset once or twice.
  for (const times of [1, 2]) {
    const file = content(SIZE);
    const target = new Memory();
    await transfer(file, (n) => ({ fail: n < times }), target, { diagnose: forbids }).run();
    assertWhole(target, file);
  }
  // Read before, in this download or an earlier one.
  const broken = transfer(content(SIZE), (n) => (n > 2 ? { fail: true } : {}), new Memory(), { diagnose: forbids });
  await assert.rejects(broken.run(), code("unreachable"));
  const known = transfer(content(9), () => ({ fail: true }), new Memory(), { diagnose: forbids, reached: new Set(["https://a.example"]) });
  await assert.rejects(known.run(), code("unreachable"));
});

test("a page instead of the file, and no room", async () => {
  const html = () => ({ headers: { "Content-Type": "text/html; charset=utf-8" } });
  const page = (text) => new Uint8Array(Buffer.from(text.padEnd(99)));
  for (const text of ["<!doctype html>", " \n<html>", "\ufeff<html>", ""]) {
    await assert.rejects(transfer(page(text), html, new Memory()).run(), code("not-found"), JSON.stringify(text));
  }
  // Some servers call everything a page.
  for (const file of [page("{}"), Uint8Array.from(content(SIZE), (byte, at) => (at === 0 ? 0x47 : byte))]) {
    const target = new Memory();
    await transfer(file, html, target).run();
    assertWhole(target, file);
  }
  const full = new Memory();
  full.room = 5;
  await assert.rejects(transfer(content(99), undefined, full).run(), code("quota"));
});

