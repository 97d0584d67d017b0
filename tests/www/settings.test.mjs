// Settings, links and the report.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { linkTo, parseLink } from "../../www/links.js";
import { parseReport, readReport } from "../../www/report.js";
import { CHOICES, Settings } from "../../www/settings.js";

const RAW = {
  hook: "layers.3",
  feature: 1415,
  value: { default: 8, useful: [4, 10], max: 16 },
  validation: {
    base: { jailbreaks: 44, refused: { benign: 1 }, facts: 90 },
    curve: [
      { value: 8, jailbreaks: 91, refused: { benign: 20 } },
      { value: 2, jailbreaks: 50, refused: { benign: 2 } },
      { value: 5, jailbreaks: 50, refused: {} },
    ],
  },
  table: [],
};

/** @type {Map<string, string>} */
let stored;
beforeEach(() => {
  stored = new Map();
  globalThis.localStorage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, value) => stored.set(key, value) };
  globalThis.location = new URL("https://a.example/page/");
  globalThis.history = { replaceState: (_state, _title, url) => (globalThis.location = new URL(url, location.href)) };
});

function started(report = parseReport(RAW)) {
  const settings = new Settings();
  settings.notes = [];
  settings.addEventListener("note", (event) => settings.notes.push(event.detail));
  settings.linked = parseLink(location.hash).settings;
  settings.start(report);
  return settings;
}

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 32);
console.log(`seed ${seed}`);
let state = seed >>> 0;
function below(n) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
}
const pick = (list) => list[below(list.length)];

test("the report: the curve in order and in shares, rows without figures left out", () => {
  assert.deepEqual(parseReport(RAW), {
    hook: "layers.3",
    feature: 1415,
    value: { default: 8, useful: [4, 10], max: 16 },
    base: { jailbreak: 0.44, benign: 0.01, facts: 0.9, coherent: null },
    curve: [
      { value: 2, jailbreak: 0.5, benign: 0.02, facts: null, coherent: null },
      { value: 8, jailbreak: 0.91, benign: 0.2, facts: null, coherent: null },
    ],
  });
  const measured = parseReport({ ...RAW, table: [{ value: 8, jailbreaks: 90, refused: { benign: 5 } }] });
  assert.deepEqual(measured?.curve, [{ value: 8, jailbreak: 0.9, benign: 0.05, facts: null, coherent: null }]);
});

test("arms that are clamps of the report's feature join the curve, controls do not", () => {
  const arm = (name, value, jailbreaks) => ({ arm: name, value, jailbreaks, refused: { benign: 0 } });
  const arms = [
    arm("ablated", undefined, 36),
    arm("clamp -8", -8, 7),
    arm("clamp 8", 8, 1),
    arm("clamp 9, error dropped", 9, 90),
    arm("random feature 864 at 9", 9, 8),
    arm("random direction 1 at 9", 9, 27),
    arm("reconstruction, no clamp", undefined, 38),
    null,
  ];
  const { curve } = parseReport({ ...RAW, arms });
  assert.deepEqual(curve.map(({ value, jailbreak }) => [value, jailbreak]), [[-8, 0.07], [0, 0.36], [2, 0.5], [8, 0.91]]);
});

test("without a report on this model and dictionary steering starts off, whatever was stored", () => {
  started().set({ steering: true, feature: 1415 });
  const settings = new Settings();
  settings.start(null, "layers.3");
  assert.equal(settings.choices.steering, false);
  assert.deepEqual(settings.interventions(), []);
  settings.linked = parseLink("#steering=true").settings;
  settings.start(null, "layers.3");
  assert.equal(settings.choices.steering, true);
});

test("a report that is none, or whose numbers cannot be, is refused with its reason", () => {
  const value = RAW.value;
  const bad = [
    [null, "hook"],
    [{}, "hook"],
    [[], "hook"],
    ["x", "hook"],
    [{ ...RAW, hook: 3 }, "hook"],
    [{ ...RAW, hook: "x".repeat(1e6) }, "hook"],
    [{ ...RAW, value: { default: 8 } }, "value.max"],
    [{ ...RAW, value: { ...value, max: -5 } }, "value.max"],
    [{ ...RAW, value: { ...value, max: 0 } }, "value.max"],
    [{ ...RAW, value: { ...value, max: 1e300 } }, "value.max"],
    [{ ...RAW, value: { ...value, default: -5 } }, "value.default"],
    [{ ...RAW, value: { ...value, default: 17 } }, "value.default"],
    [{ ...RAW, value: { ...value, useful: [9, 4] } }, "value.useful"],
    [{ ...RAW, value: { ...value, useful: "all" } }, "value.useful"],
    ...["x", -5, 1.5, 1e300, 2 ** 32, null, NaN].map((feature) => [{ ...RAW, feature }, "feature"]),
  ];
  for (const [json, name] of bad) assert.throws(() => parseReport(json), (error) => error instanceof RangeError && error.message.includes(name), JSON.stringify(json)?.slice(0, 100));
});

test("rows that cannot be are left out, and so are those after a thousand", () => {
  const row = { value: 8, jailbreaks: 90, refused: { benign: 5 } };
  const { curve } = parseReport({ ...RAW, table: [row, { ...row, jailbreaks: 101 }, { ...row, value: 1e9 }, { ...row, refused: { benign: -1 } }, null, 3] });
  assert.equal(curve.length, 1);
  assert.equal(parseReport({ ...RAW, table: Array(100_000).fill(row) }).curve.length, 1000);
});

test("reading a report: none, a server's own page for it, damaged, endless, silent", async () => {
  const answers = async (body, status = 200) => {
    globalThis.fetch = async () => new Response(body, { status });
    return readReport("https://a.example/m/");
  };
  assert.deepEqual(await answers("", 404), { report: null, note: null });
  assert.deepEqual(await answers("<!doctype html><p>hello"), { report: null, note: null });
  assert.match((await answers("{")).note, /not JSON/);
  assert.match((await answers(JSON.stringify({ ...RAW, value: { ...RAW.value, max: -5 } }))).note, /value\.max must be .* and not -5/);
  assert.equal((await answers(JSON.stringify(RAW))).report.feature, 1415);
  let sent = 0;
  const endless = new ReadableStream({
    pull(controller) {
      sent += 1e6;
      controller.enqueue(new Uint8Array(1e6).fill(32));
    },
  });
  assert.match((await answers(endless)).note, /longer than/);
  assert.ok(sent < 10e6, `${sent} bytes were read`);
  globalThis.fetch = async () => Promise.reject(new TypeError("network"));
  assert.deepEqual(await readReport("https://a.example/m/"), { report: null, note: null });
  const big = new File([new Uint8Array(5e6)], "m/report.json");
  assert.match((await readReport([big])).note, /longer than/);
});

test("the report's operating point is the default, and off means no intervention", () => {
  const settings = started();
  assert.deepEqual(settings.interventions(), [
    { hook: "layers.3", feature: 1415, op: "clamp", value: 8, positions: "all", onlyIfActive: false, includeBos: false },
  ]);
  settings.set({ steering: false });
  assert.deepEqual(settings.interventions(), []);
  assert.deepEqual(started(null).interventions(), []);
});

test("choices outlive a reload, and a link wins over them until something changes", () => {
  started().set({ strength: 5, op: "add" });
  assert.equal(started().choices.strength, 5);
  location.href = "https://a.example/page/#strength=9";
  const linked = started();
  assert.equal(linked.choices.strength, 9);
  assert.equal(linked.choices.op, "add");
  linked.set({ tint: false });
  assert.equal(location.hash, "");
});

test("a link carries the choices over", () => {
  const settings = started();
  settings.set({ strength: 6.5, positions: "generated", seed: 7, steering: false });
  const link = linkTo(settings.pairs(), "");
  stored.clear();
  location.href = link;
  const there = started();
  assert.deepEqual(there.choices, settings.choices);
  assert.deepEqual(there.notes, []);
});

test("a strength below zero comes with a link, opens its switch and says so", () => {
  location.href = "https://a.example/page/#strength=-8&hook=layers.3";
  const settings = started();
  assert.deepEqual([settings.choices.strength, settings.choices.negative], [-8, true]);
  assert.match(settings.notes.join(), /-8: below zero/);
  settings.set({ tint: false });
  location.href = "https://a.example/page/";
  assert.equal(started().choices.strength, -8, "what the visitor's own hand set stays");
});

test("nonsense in a link or the storage changes nothing, is told of, and is never stored", () => {
  stored.set("phi3-steer.choices", "{not json");
  const bad = ["op=evil", "feature=-1", "seed=1.5", "maxTokens=0", "temperature=9", "positions=x", "steering=maybe", "__proto__=1", "strength=NaN", "strength=99"];
  bad.push("seed=1e300", "seed=4294967296", "maxTokens=1e15", "feature=1e21", "feature=Infinity", "feature=0x10", "constructor=1", "hook=%3Cb%3E", "unheard=1");
  for (const pair of bad) {
    location.href = `https://a.example/page/#${pair}`;
    const settings = started();
    assert.deepEqual(settings.choices, { ...settings.defaults() }, pair);
    assert.equal(settings.notes.length, 1, `${pair}: ${settings.notes}`);
    settings.set({ tint: true });
    assert.deepEqual(JSON.parse(stored.get("phi3-steer.choices")), { ...settings.defaults() }, pair);
  }
});

test("what the model and the dictionary do not allow goes back to the default, with a note", () => {
  location.href = "https://a.example/page/#feature=1536&maxTokens=5000&hook=layers.3";
  const settings = started();
  settings.limit({ features: 1536, context: 4096 });
  assert.deepEqual([settings.choices.feature, settings.choices.maxTokens], [1415, 128]);
  assert.equal(settings.notes.length, 2);
  settings.set({ feature: 1e9, maxTokens: 4096, seed: -1 });
  assert.deepEqual([settings.choices.feature, settings.choices.maxTokens, settings.choices.seed], [1415, 4096, 1]);
  const short = started();
  location.href = "https://a.example/page/";
  stored.clear();
  const fresh = started();
  fresh.limit({ features: 1536, context: 64 });
  assert.deepEqual([fresh.choices.maxTokens, fresh.notes], [64, []]);
  // A report that is about a larger dictionary is about another one.
  const other = started();
  other.limit({ features: 1000, context: 4096 });
  assert.equal(other.report, null);
  assert.equal(other.choices.feature, 0);
  assert.match(other.notes.join(), /another dictionary/);
  assert.ok(short);
});

test("random links and reports: never an error, never a number that the engine would refuse", () => {
  const names = ["strength", "feature", "seed", "maxTokens", "temperature", "op", "positions", "steering", "hook", "negative", "model", "prompt", "dictionary", "x", "__proto__", "toString", ""];
  const values = ["", "1", "-1", "0.5", "1e400", "-1e400", "NaN", "Infinity", "4294967295", "4294967296", "true", "false", "clamp", "add", "all", "layers.3", "\u202e", "\0", "<b>", "%", "9".repeat(400), "-0"];
  const junk = () => Array.from({ length: below(12) }, () => String.fromCharCode(below(0x250))).join("");
  for (let round = 0; round < 3000; round++) {
    const pairs = Array.from({ length: below(6) }, () => `${encodeURIComponent(pick(names))}=${pick([encodeURIComponent(pick(values)), encodeURIComponent(junk()), pick(values)])}`);
    location.href = `https://a.example/page/#${pairs.join("&")}`;
    stored.set("phi3-steer.choices", pick(["{}", "[]", "3", JSON.stringify({ [pick(names)]: pick(values), seed: pick([1, -1, 1.5, 1e300, "1", null]) })]));
    const settings = started();
    settings.limit({ features: 1536, context: 4096 });
    settings.set({ tint: true });
    for (const choices of [settings.choices, JSON.parse(stored.get("phi3-steer.choices"))]) {
      const { strength, feature, seed: own, maxTokens, temperature } = choices;
      assert.ok(Math.abs(strength) <= 16, location.hash);
      assert.ok(Number.isInteger(feature) && feature >= 0 && feature < 1536, location.hash);
      assert.ok(Number.isInteger(own) && own >= 0 && own < 2 ** 32, location.hash);
      assert.ok(Number.isInteger(maxTokens) && maxTokens >= 1 && maxTokens <= 4096, location.hash);
      assert.ok(temperature >= 0 && temperature <= 2, location.hash);
      assert.ok(CHOICES.some((one) => one.name === choices.op));
      assert.deepEqual(Object.keys(choices).sort(), Object.keys(settings.defaults()).sort());
    }
    for (const note of settings.notes) assert.ok(note.length < 400 && !/[\p{Cc}\p{Cf}]/u.test(note), JSON.stringify(note));
  }
  /** Anything that JSON can say. */
  const random = (depth) => {
    const kind = below(depth > 3 ? 5 : 8);
    if (kind < 2) return pick([0, -5, 1.5, 1e300, 8, 16, 329, 2 ** 33]);
    if (kind === 2) return pick(["layers.3", "", "x".repeat(999), "\u202e"]);
    if (kind === 3) return pick([null, true, false]);
    if (kind === 4) return [];
    if (kind === 5) return Array.from({ length: below(5) }, () => random(depth + 1));
    return Object.fromEntries(Array.from({ length: below(6) }, () => [pick(["hook", "feature", "value", "max", "default", "useful", "table", "base", "refused", "benign", "jailbreaks", "facts", "fit", "others"]), random(depth + 1)]));
  };
  let read = 0;
  for (let round = 0; round < 3000; round++) {
    const json = below(2) ? random(0) : { ...RAW, [pick(Object.keys(RAW))]: random(1), value: below(3) ? RAW.value : random(1) };
    try {
      const report = parseReport(json);
      read++;
      const { max, useful, default: start } = report.value;
      assert.ok(max > 0 && max <= 1000 && start >= 0 && start <= max && useful[0] >= 0 && useful[0] <= useful[1] && useful[1] <= max);
      assert.ok(Number.isInteger(report.feature) && report.feature >= 0 && report.feature < 2 ** 32);
      for (const row of report.curve) assert.ok(row.jailbreak >= 0 && row.jailbreak <= 1 && Math.abs(row.value) <= 1000);
    } catch (error) {
      assert.ok(error instanceof RangeError, error.stack);
    }
  }
  assert.ok(read > 100, `${read} reports were read`);
});

test("another dictionary's feature is not taken over", () => {
  started().set({ feature: 7 });
  assert.equal(started().choices.feature, 7);
  assert.equal(started(parseReport({ ...RAW, hook: "layers.4" })).choices.feature, 1415);
});

test("blocked storage is no obstacle", () => {
  globalThis.localStorage = {
    getItem: () => {
      throw new Error("blocked");
    },
    setItem: () => {
      throw new Error("blocked");
    },
  };
  const settings = started();
  settings.set({ strength: 3 });
  assert.equal(settings.choices.strength, 3);
});
