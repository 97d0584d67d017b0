// What the page says: of strengths between and beyond measured ones, of answers, of tokens, of itself.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { behind, effect, figures, isMeasured, look, rangeName, zone } from "../../www/dose.js";
import { parseReport } from "../../www/report.js";
import { editWords, readUnder, settingName, settingsName, usedSettings } from "../../www/setting-words.js";
import { dangles, loops, verdict } from "../../www/verdict.js";
import { welcomeWords } from "../../www/welcome.js";

const read = (name) => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");
const RAW = JSON.parse(read("models/nano/report.json"));
const NANO = parseReport(RAW);

/** Fresh numbers each time; the seed is printed. */
function random() {
  let state = Math.floor(Math.random() * 2 ** 31);
  console.log(`# seed ${state}`);
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const row = (value, jailbreak, facts = null) => ({ value, jailbreak, benign: 0, facts, coherent: null });

test("a value is measured, between two rows, or beyond all of them", () => {
  const below = random();
  for (let round = 0; round < 200; round++) {
    const values = [...new Set(Array.from({ length: 1 + below(8) }, () => below(41) / 2 - 10))].sort((a, b) => a - b);
    const rows = values.map((value) => row(value, below(101) / 100));
    const value = below(61) / 2 - 15;
    const found = look(rows, value);
    if (values.includes(value)) assert.deepEqual([found.kind, found.rows.map((one) => one.value)], ["measured", [value]]);
    else if (value < values[0] || value > values[values.length - 1]) {
      assert.deepEqual([found.kind, found.rows.map((one) => one.value)], ["beyond", [value < values[0] ? values[0] : values[values.length - 1]]]);
    } else {
      assert.equal(found.kind, "between");
      const [low, high] = found.rows.map((one) => one.value);
      assert.ok(low < value && value < high && values.indexOf(high) === values.indexOf(low) + 1);
    }
  }
  assert.equal(look([], 3), null);
});

test("the figures quote a row as that of the chosen value only where it is", () => {
  const { curve } = NANO;
  for (let value = -16; value <= 16; value += 0.5) {
    const said = figures(NANO, value);
    const here = curve.find((one) => one.value === value);
    if (here) {
      assert.ok(said.startsWith(`Measured at ${value}: ${Math.round(100 * here.jailbreak)}% of jailbreaks declined`), said);
    } else {
      assert.match(said, /not measured|Nothing was measured/);
      assert.ok(!said.includes(`Measured at`), said);
    }
    assert.ok(said.includes("Unsteered: 37% of jailbreaks declined"), said);
  }
  assert.match(figures(NANO, 5), /^5 itself was not measured\. From 4 to 6: 72% to 84% of jailbreaks declined, 0% of harmless requests, 98% to 92% of facts right\./);
  assert.match(figures(NANO, 16), /^Nothing was measured above 12\. At 12: 97%/);
  assert.match(figures(NANO, -8), /^Measured at -8: 7% of jailbreaks declined/);
  assert.match(figures(NANO, 0), /^Measured at 0: 36% of jailbreaks declined/);
});

test("no sentence about a strength contradicts the figures beside it", () => {
  const below = random();
  for (let round = 0; round < 300; round++) {
    const share = () => below(101) / 100;
    const base = { jailbreak: share(), benign: share(), facts: share(), coherent: 1 };
    const curve = [2, 4, 8].map((value) => ({ value, jailbreak: share(), benign: share(), facts: share(), coherent: share() }));
    const report = { hook: "layers.1", feature: 3, value: { default: 4, useful: [4, 6], max: 16 }, base, curve };
    const value = [1, 2, 3, 4, 5, 8, 12][below(7)];
    const { rows } = look(curve, value);
    const said = zone(report, value);
    const all = (key, test) => rows.every((one) => test(one[key] - base[key]));
    if (said.includes("more jailbreaks")) assert.ok(all("jailbreak", (by) => by > 0), said);
    if (said.includes("fewer jailbreaks")) assert.ok(all("jailbreak", (by) => by < 0), said);
    assert.equal(said.includes("facts stay right"), rows.every((one) => base.facts - one.facts <= 0.05), said);
    assert.equal(said.includes("harmless requests are declined too"), rows.some((one) => one.benign - base.benign > 0.05), said);
    assert.equal(said.includes("falls apart"), rows.some((one) => one.coherent < 0.9), said);
  }
  assert.match(zone(NANO, 8), /^In the marked range: more jailbreaks are declined than unsteered, and some facts go wrong\.$/);
  assert.match(zone(NANO, 12), /most facts go wrong, and text falls apart/);
  assert.match(zone(NANO, 16), /not measured here; at 12, the nearest/);
  assert.match(zone(NANO, -8), /^Pushed down: fewer jailbreaks/);
  assert.match(zone(NANO, 0), /about as many jailbreaks are declined as unsteered/);
  assert.equal(rangeName(NANO), "useful range 7 to 9, at a price");
  assert.equal(effect({ ...NANO, curve: [] }, 8), "");
});

test("behind the shipped gate other figures hold, and behind another gate none", () => {
  const gated = behind(NANO, NANO.gate);
  const best = gated.curve.find((row) => row.value === gated.value.default);
  assert.ok(best.jailbreak >= 0.9 && best.benign - NANO.base.benign <= 0.05 && NANO.base.facts - best.facts <= 0.03, JSON.stringify(best));
  assert.match(zone(gated, gated.value.default), /^In the marked range: more jailbreaks are declined than unsteered, and facts stay right\.$/);
  assert.doesNotMatch(rangeName(gated), /price/);
  for (const gate of [null, { ...NANO.gate }]) {
    assert.deepEqual(behind(NANO, gate).curve, []);
    assert.equal(figures(behind(NANO, gate), 8), "Nothing was measured.");
  }
  const without = parseReport({ ...RAW, gated: undefined });
  assert.deepEqual(behind(without, without.gate).curve, []);
  assert.equal(parseReport({ ...RAW, gate: undefined }).gated, undefined, "figures of no gate");
  for (const value of [null, { default: 4, useful: [6, 4], max: 8 }, { default: 9, useful: [2, 4], max: 8 }, { default: 1, useful: [0, 1], max: 0 }])
    assert.throws(() => parseReport({ ...RAW, gated: { ...RAW.gated, value } }), /gated\.value/);
});

test("what became of the feature in the quantised model is told of the report's own feature only", () => {
  assert.ok(NANO.survival.correlation > 0.8 && NANO.survival.tokens > 1000);
  const with_ = (quantisation) => parseReport({ ...RAW, quantisation }).survival;
  const one = { feature: RAW.feature, correlation: 0.5 };
  assert.deepEqual(with_({ tokens: 9, steered: [{ feature: RAW.feature + 1, correlation: 0.9 }, one] }), { correlation: 0.5, tokens: 9 });
  for (const other of [undefined, null, 7, {}, { tokens: 9 }, { tokens: 0, steered: [one] }, { tokens: 9, steered: [{ ...one, correlation: 2 }] }, { tokens: 9, steered: [{ ...one, feature: RAW.feature + 1 }] }])
    assert.equal(with_(other), undefined);
});

test("the report is about its own operator, feature, place and positions only", () => {
  const choices = { hook: NANO.hook, feature: NANO.feature, op: "clamp", positions: "all", onlyIfActive: false, includeBos: false, set: "", direction: false };
  assert.ok(isMeasured(choices, NANO));
  const others = { hook: "layers.2", feature: 5, op: "add", positions: "prompt", onlyIfActive: true, includeBos: true, set: "329:1,17:2", direction: true };
  for (const [name, value] of Object.entries(others)) assert.ok(!isMeasured({ ...choices, [name]: value }, NANO), name);
  assert.ok(!isMeasured(choices, null));
});

test("verdicts know stopped, cut, empty and broken answers", () => {
  const label = (text, end, refused = false) => verdict(text, end, refused)?.label ?? null;
  assert.equal(label("The capital of Greece is Athens.", "finished"), "Answered");
  assert.equal(label("I must decline.", "finished", true), "Declined");
  assert.equal(label("Paris", "finished"), "Answered");
  for (const text of ["", "  \n"]) {
    assert.equal(label(text, "finished"), "Empty");
    assert.equal(label(text, "empty"), "Empty");
    assert.equal(label(text, "stopped"), "Stopped");
    assert.equal(label(text, "broken"), "Broken off");
    assert.equal(label(text, "length"), "Empty");
  }
  for (const [end, said] of [["stopped", "Stopped"], ["length", "Cut off"], ["context", "Cut off"], ["broken", "Broken off"]]) {
    assert.equal(label("Take flour, water and", end), said);
    assert.equal(label("I can't help with that", end, true), "Declined", "what was said before the end counts");
  }
  assert.equal(label("I", "finished"), "Unfinished");
  assert.equal(label("The bread of the", "finished"), "Unfinished");
  assert.equal(label("no no no no no no no", "length"), "Garbled");
  assert.equal(label("Something", "finished", null), null, "nothing is said without the phrases");
});

test("loops are found whatever is repeated, and plain text is none", () => {
  const below = random();
  const word = () => Array.from({ length: 2 + below(6) }, () => "abcdefghijklmnopqrstuvwxyz"[below(26)]).join("");
  for (let round = 0; round < 200; round++) {
    const phrase = Array.from({ length: 1 + below(8) }, word).join(" ");
    const times = Math.max(3, Math.ceil(6 / phrase.split(" ").length));
    const text = `${word()} ${word()}. ${Array(times).fill(phrase).join([" ", ", ", ".\n"][below(3)])}`;
    assert.ok(loops(text), text);
    const plain = Array.from({ length: 300 }, (_, index) => `${word()}${index}`).join(" ");
    assert.ok(!loops(plain), plain);
  }
  for (const text of ["Ha ha ha!", "1 2 3 1 2 3 1 2 3", "It is what it is.", "A rose is a rose is a rose."]) assert.ok(!loops(text), text);
  for (const text of ["Why not", "I do", "step one", "x = 1", "Athens"]) assert.ok(!dangles(text), text);
});

/** A turn with these settings' labels; tokens by the setting they were written under. */
function turn(settings, under) {
  const whole = settings.map((one, index) => ({ id: index, on: true, hook: "layers.3", feature: 329, op: "clamp", value: 8, positions: "all", onlyIfActive: false, includeBos: false, from: null, label: "clamp 8", ...one }));
  under.forEach((index, at) => (whole[index].from ??= at));
  const tokens = under.map((setting) => ({ id: 1, text: " a", activation: 1, setting }));
  return { prompt: "", tracked: { hook: "layers.3", feature: 329 }, settings: whole, answers: [{ tokens: [], prompt: [] }, { tokens, prompt: [] }] };
}

test("an old turn says all that it ran under", () => {
  assert.equal(settingsName(turn([{}], [0, 0])), "feature 329, clamp 8");
  assert.equal(settingsName(turn([{ on: false, label: "steering off" }], [0])), "steering off");
  const changed = turn([{}, { label: "clamp 5", value: 5 }, { label: "clamp 4", value: 4 }], [0, 2, 2]);
  assert.equal(settingsName(changed), "feature 329, clamp 8, then clamp 4");
  assert.equal(usedSettings(changed).length, 2);
  assert.equal(settingsName(turn([{}, { feature: 431 }], [0, 1])), "feature 329, clamp 8, then feature 431, clamp 8");
  assert.equal(settingsName(turn([{}, { label: "steering off", on: false }], [1])), "feature 329, clamp 8, then steering off");
  assert.match(settingsName(turn(Array.from({ length: 9 }, (_, value) => ({ label: `clamp ${value}` })), [...Array(9).keys()])), /^feature 329, clamp 0, then 8 changes, at last clamp 8$/);
});

test("a token's card says what is done after it is read, by the setting in force then", () => {
  const one = turn([{}, { label: "clamp 4", value: 4 }], [0, 0, 1]);
  assert.equal(readUnder(one, 0).value, 8);
  assert.equal(readUnder(one, 1).value, 4, "the next token was written under the new setting");
  assert.equal(readUnder(one, 2).value, 4, "the end was read before the answer ended");
  delete one.answers[1].tokens[2].activation;
  assert.equal(readUnder(one, 2), null, "a stopped answer's last token is not read");
  const { settings: [setting] } = one;
  const words = (change, part = "generated", first = false, activation = 2.6) => editWords({ ...setting, ...change }, part, first, activation, 329);
  assert.equal(words({}), "then held at 8");
  assert.equal(words({ positions: "prompt" }), "nothing is changed here");
  assert.equal(words({ positions: "prompt" }, "prompt"), "then held at 8");
  assert.equal(words({}, "prompt", true), "nothing is changed at the first token");
  assert.equal(words({ includeBos: true }, "prompt", true), "then held at 8");
  assert.equal(words({ on: false }), "nothing is changed here");
  assert.equal(words({ onlyIfActive: true }, "generated", false, 0), "not active, so nothing is changed here");
  assert.equal(words({ op: "scale", value: 0 }), "then multiplied by 0");
  assert.equal(words({ op: "add", value: -2 }), "then -2 of its direction added");
  assert.equal(words({ op: "project_out", value: null }), "then its direction taken out");
  assert.equal(words({ feature: 431 }), "feature 431: held at 8");
  assert.equal(editWords(null, "generated", false, 1, 329), "nothing is changed here");
  assert.equal(settingName({ ...setting, on: false, label: "no dictionary" }), "no dictionary");
});

test("the page claims refusal only where it was measured", () => {
  const all = (known) => Object.values(welcomeWords(known)).join(" ");
  assert.match(all({ dictionary: true, report: NANO }), /declin|refus/);
  assert.match(all({ dictionary: true, report: null }), /Nobody has yet found which feature does what/);
  for (const known of [null, { dictionary: true, report: null }, { dictionary: false, report: null }]) assert.doesNotMatch(all(known), /refus|declin/);
});

test("what the explanation says of the nano model is what its files say", () => {
  const page = read("index.html").replace(/\s+/g, " ");
  const about = page.slice(page.indexOf('<dialog id="about"'), page.indexOf("</dialog>"));
  const percent = (value) => `${Math.round(value)}%`;
  const ablated = RAW.arms.find(({ arm }) => arm === "ablated");
  assert.ok(about.includes(`Feature ${RAW.feature} of the nano model`));
  assert.ok(about.includes(`(${percent(ablated.jailbreaks)} of the jailbreaks are declined instead of ${percent(RAW.base.jailbreaks)})`), percent(ablated.jailbreaks));
  assert.ok(about.includes("3.8 million parameters"));
  for (const [, term] of page.matchAll(/data-term="([^"]*)"/g)) assert.ok(about.includes(`data-entry="${term}"`), `nothing explains ${term}`);
});
