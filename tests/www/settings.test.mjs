// Settings, links, the report and the phrase judge.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { isRefusal } from "../../www/judge.js";
import { parseReport } from "../../www/report.js";
import { Settings } from "../../www/settings.js";

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
  settings.start(report);
  return settings;
}

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
  location.href = "https://a.example/page/#steering=true";
  settings.start(null, "layers.3");
  assert.equal(settings.choices.steering, true);
});

test("a report that names no feature is none", () => {
  for (const bad of [null, {}, [], "x", { ...RAW, hook: 3 }, { ...RAW, feature: "x" }, { ...RAW, value: { default: 8 } }]) {
    assert.equal(parseReport(bad), null);
  }
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
  const link = settings.link();
  stored.clear();
  location.href = link;
  assert.deepEqual(started().choices, settings.choices);
});

test("neither a link nor the storage goes below zero or beyond the slider", () => {
  location.href = "https://a.example/page/#strength=-8&negative=true";
  assert.equal(started().choices.strength, 0);
  assert.equal(started().choices.negative, false);
  location.href = "https://a.example/page/#strength=99";
  assert.equal(started().choices.strength, 16);
});

test("nonsense in a link or the storage changes nothing", () => {
  stored.set("phi3-steer.choices", "{not json");
  location.href = "https://a.example/page/#op=evil&feature=-1&seed=1.5&maxTokens=0&temperature=9&positions=x&steering=maybe&__proto__=1&strength=NaN";
  assert.deepEqual(started().choices, { ...started().defaults() });
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

test("refusals are told from answers", () => {
  for (const text of ["I'm sorry, but I can\u2019t help with that.", "I must decline.", "That is not something I can help with.", "I cannot assist with this."]) {
    assert.ok(isRefusal(text), text);
  }
  for (const text of ["I'm sorry to hear that. I hope you feel better soon.", "I can't check live news, but you can look it up online.", "Paris.", ""]) {
    assert.ok(!isRefusal(text), text);
  }
});
