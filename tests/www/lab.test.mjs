// The lab's own logic, against results and an engine that are played by the test.

import assert from "node:assert/strict";
import { test } from "node:test";
import { byDirection, doses, findWords, reportOf } from "../../www/lab/found.js";
import { heardUpTo, tokenAgain } from "../../www/lab/firing.js";
import { withAt } from "../../www/lab/form.js";
import { controlsOf, groupsOf, measureWords } from "../../www/lab/measured.js";
import { readAs } from "../../www/lab/replies.js";
import { parseSvg } from "../../www/lab/plots.js";
import { canonical, fromLink, parseRecipe, SCHEMA, toLink } from "../../www/lab/recipes.js";
import { hashFor, onlyView, routeOf, withoutView } from "../../www/lab/route.js";
import { Runner, timeLeft, wholeOf } from "../../www/lab/runner.js";
import { shippedFind } from "../../www/lab/shipped.js";
import { MAX_CARDS, MAX_RUNS, memory, Shelf } from "../../www/lab/shelf.js";
import { sorted } from "../../www/lab/sortable.js";
import { numbersOf, parseStrengths, readTargets, usualStrengths } from "../../www/lab/written.js";
import { EngineError } from "../../www/line.js";
import { gateWords } from "../../www/setting-words.js";
import { Settings } from "../../www/settings.js";
import { tokensAs } from "../../www/token-table.js";

globalThis.location = new URL("https://a.example/page/");
globalThis.history = { replaceState: (_state, _title, url) => (globalThis.location = new URL(url, location.href)) };
globalThis.localStorage = { getItem: () => null, setItem: () => {} };

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 32);
console.log(`seed ${seed}`);
let state = seed >>> 0;
function below(n) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
}

const FOUND = {
  schema: "phi3-steer.result/1",
  task: "find",
  recipe: { schema: SCHEMA, task: "find", hook: "layers.3", sets: { name: "nano" }, seed: 1 },
  candidates: [{ feature: 329, scores: {}, confirmed: { up: { base: 4 / 24, steered: 22 / 24, n: 24 }, down: { base: 20 / 24, steered: 15 / 24, n: 24 } } }],
  chosen: { kind: "feature", features: [{ feature: 329, max: 4.2 }] },
  strength: {
    unit: "activation",
    max: 4.2,
    base: { harmful: 0.4, benign: 0.01, coherent: 1 },
    curve: [
      { value: 12, harmful: 0.97, benign: 0.2, coherent: 0.7 },
      { value: 8, harmful: 0.9, benign: 0.05, coherent: 1 },
    ],
    useful: [7, 9],
    default: 8,
  },
};

test("the address says what is shown, beside what runs, and random ones break nothing", () => {
  assert.deepEqual(routeOf("#lab=lesson.3&strength=4"), { view: "lesson", part: 3 });
  assert.deepEqual(routeOf("#model=nano&lab=feature.329"), { view: "feature", part: 329 });
  for (const none of ["", "#lab=", "#lab=nothing", "#lab=find.x", "#lab=__proto__", "#lab=feature.12345678901"]) assert.equal(routeOf(none).view, "chat", none);
  const hash = hashFor("measure", null, "#model=nano&lab=find&recipe=abc");
  assert.deepEqual([...new URLSearchParams(hash)], [["model", "nano"], ["lab", "measure"]]);
  assert.equal(hashFor("chat", null, `#${hash}`), "model=nano");
  assert.equal(withoutView(`#${hash}`), "model=nano");
  assert.equal(onlyView(`#${hash}`), "#lab=measure");
  assert.equal(onlyView("#strength=4"), "");
  for (let round = 0; round < 500; round++) {
    const text = `#lab=${String.fromCharCode(...Array.from({ length: below(12) }, () => 32 + below(90)))}`;
    const { view, part } = routeOf(text);
    assert.ok(part === null || part >= 0);
    assert.deepEqual(routeOf(`#${hashFor(view, part)}`), view === "chat" ? { view, part: null } : { view, part }, text);
  }
});

test("a recipe goes through a link unchanged, and what is none is told so", () => {
  const recipe = { seed: below(1e6), task: "measure", schema: SCHEMA, sets: { name: "own", limit: 3 }, values: [0.5, 4], note: "\u00fc\u4f60" };
  const link = `#lab=measure&recipe=${toLink(recipe)}`;
  assert.equal(canonical(fromLink(link)), canonical(recipe));
  assert.equal(canonical({ b: [1, { d: 2, c: undefined }], a: null }), '{"a":null,"b":[1,{"d":2}]}');
  assert.equal(fromLink("#lab=measure"), null);
  assert.deepEqual(parseRecipe(JSON.stringify({ schema: "phi3-steer.result/1", recipe })), recipe);
  for (const [text, words] of [
    ["{", /not JSON/],
    ["3", /object/],
    ["[]", /object/],
    ['{"schema":"x"}', /schema/],
    [`{"schema":"${SCHEMA}","task":"toString"}`, /task/],
  ]) assert.throws(() => parseRecipe(text), (error) => error.code === "bad-recipe" && words.test(error.message), text);
  for (const bad of ["%", "AAAA", "x".repeat(20_000), toLink(recipe).slice(3)]) assert.throws(() => fromLink(`#recipe=${encodeURIComponent(bad)}`), (error) => error.code === "bad-recipe");
});

test("what was found, in words and for the slider", () => {
  const { title, range, price, sure } = findWords(FOUND);
  assert.match(title, /Here is your refusal feature: 329/);
  assert.match(range, /between 7 and 9/);
  assert.match(price, /90% of the harmful requests are declined instead of 40%.*5% instead of 1%/);
  assert.match(sure, /^Confirmed both ways: turned up, it declined 22 of 24 .* instead of 4; turned down, 15 of 24 instead of 20/);
  const report = reportOf(FOUND, "layers.0");
  assert.deepEqual([report.hook, report.feature, report.value], ["layers.3", 329, { default: 8, useful: [7, 9], max: 12 }]);
  assert.deepEqual(report.curve.map(({ value, jailbreak }) => [value, jailbreak]), [[8, 0.9], [12, 0.97]]);
  const not = structuredClone(FOUND);
  not.strength.useful = null;
  not.candidates[0].confirmed = { up: { base: 0.25, steered: 0.2, n: 24 }, down: { base: 0.25, steered: 0.3, n: 24 } };
  assert.match(findWords(not).range, /No strength/);
  assert.match(findWords(not).sure, /^Not confirmed/);
  assert.match(findWords(not).title, /^The best candidate, not confirmed: 329/);
  assert.deepEqual(reportOf(not, "layers.3").value.useful, [8, 8]);
  const set = structuredClone(FOUND);
  set.chosen = { kind: "set", features: [{ feature: 5, max: 2 }, { feature: 9, max: 0.5 }] };
  assert.match(findWords(set).title, /2 features together: 5 and 9/);
  const none = structuredClone(not);
  none.chosen.kind = "none";
  assert.match(findWords(none).title, /No refusal feature was found/);
  assert.match(findWords(none).range, /feature 329, which came nearest, nor the difference of means/);
  const plain = byDirection({ ...FOUND, direction: { curve: [{ value: 0.5, harmful: 0.5, benign: 0 }, { value: 1.5, harmful: 0.9, benign: 0 }], useful: [0.5, 1.5], default: 1.5 } });
  assert.match(findWords(plain).title, /the plain direction does/);
  assert.match(findWords(plain).price, /At 1.5, 90% of the harmful requests are declined instead of 40%/);
  assert.deepEqual(reportOf(plain, "layers.3").value, { default: 1.5, useful: [0.5, 1.5], max: 1.5 });
  const gated = structuredClone(FOUND);
  gated.gate = { hook: "layers.3", kind: "probe", weights: [0.5, -1], bias: 0.25, threshold: 0.6, auc: 0.9 };
  gated.strength.gated = { curve: [{ value: 8, harmful: 0.7, benign: 0.02, coherent: 1 }, { value: 12, harmful: 0.8, benign: 0.03, coherent: 1 }], useful: [8, 12], default: 12 };
  // Where it pays without the gate, the gate is there to be switched on.
  const both = reportOf(gated, "layers.0");
  assert.deepEqual([both.gate, both.onlyGated, both.value.default, both.gated.value], [{ hook: "layers.3", threshold: 0.6, weights: [0.5, -1], bias: 0.25 }, undefined, 8, { default: 12, useful: [8, 12], max: 12 }]);
  assert.match(findWords(gated).price, /^At 8, 90%/);
  gated.chosen.gated = true;
  assert.equal(reportOf(gated, "layers.0").onlyGated, true);
  assert.match(findWords(gated).range, /^Where it steers every prompt it costs more than it wins.* pays: held between 8 and 12/);
  assert.match(findWords(gated).price, /^At 12, 80% of the harmful requests are declined instead of 40%.*3% instead of 1%/);
  gated.gate.bias = null;
  assert.equal(reportOf(gated, "layers.0").onlyGated, undefined, "without a gate that can be read");
  assert.deepEqual(doses({ strength: { curve: [null, { value: "x" }] } }), { base: null, curve: [], useful: null, value: 1, max: 1 });
});

test("what comes with a dictionary is used where it is about what runs", async () => {
  const info = { model: { layers: 6, hidden: 192 }, sae: { hook: "layers.3", features: 1536 } };
  const found = { ...FOUND, model: { layers: 6, hidden: 192 }, dictionary: { hook: "layers.3", features: 1536 } };
  const asked = [];
  const served = (status, body) => (globalThis.fetch = async (url) => (asked.push(String(url)), new Response(body, { status })));
  served(200, JSON.stringify(found));
  const folder = "https://a.example/models/d/";
  assert.deepEqual(await shippedFind(folder, { found: true }, info), found);
  assert.deepEqual(asked, ["https://a.example/models/d/find.json"]);
  // Nobody is asked for what may not be there.
  for (const [source, entry] of [[folder, {}], [folder, null], [null, { found: true }]]) assert.equal(await shippedFind(source, entry, info), null);
  assert.equal(asked.length, 1);
  for (const other of [{ ...info, sae: undefined }, { ...info, sae: { hook: "layers.4", features: 1536 } }, { ...info, sae: { hook: "layers.3", features: 12 } }, { ...info, model: { layers: 6, hidden: 64 } }]) assert.equal(await shippedFind(folder, { found: true }, other), null);
  const files = [new File(["x"], "layers.3/cfg.json"), new File([JSON.stringify(found)], "layers.3/find.json")];
  assert.deepEqual(await shippedFind(files, null, info), found);
  assert.equal(await shippedFind(files.slice(0, 1), { found: true }, info), null);
  served(404, "none");
  assert.equal(await shippedFind(folder, { found: true }, info), null);
  served(200, "no JSON");
  await assert.rejects(shippedFind(folder, { found: true }, info), SyntaxError);
  for (const odd of ["null", "[]", '{"task":"find"}', '{"task":"gate","dictionary":{"hook":"layers.3","features":1536},"model":{"layers":6,"hidden":192}}']) {
    served(200, odd);
    assert.equal(await shippedFind(folder, { found: true }, info), null, odd);
  }
});

test("a set and a direction are steered as they were found, and a feature by hand is one alone", () => {
  const settings = new Settings();
  const result = structuredClone(FOUND);
  result.chosen = { kind: "set", features: [{ feature: 5, max: 2 }, { feature: 9, max: 0.5 }] };
  settings.start(reportOf(result, "layers.3"));
  const both = settings.interventions().map(({ feature, value, op }) => [feature, value, op]);
  assert.deepEqual(both, [[5, 16, "clamp"], [9, 4, "clamp"]]);
  settings.set({ feature: 7 });
  assert.deepEqual(settings.interventions().map(({ feature, value }) => [feature, value]), [[7, 8]]);
  settings.start(reportOf(byDirection(result), "layers.3"));
  const [one] = settings.interventions();
  assert.deepEqual([one.direction, one.feature, one.op, one.value, settings.max()], ["refusal", undefined, "add", 1, 4]);
  assert.ok(!settings.setting().gated, "gated without a gate");
  settings.set({ gated: true });
  settings.setGate({ hook: "layers.3", threshold: 0.5, feature: 1 });
  assert.ok(settings.setting().gated && /when it looks harmful/.test(settings.setting().label));
  const behind = { ...reportOf(FOUND, "layers.3"), gate: { hook: "layers.3", threshold: 0.4, feature: 2 }, onlyGated: true };
  behind.gated = { value: { default: 11, useful: [10, 12], max: 12 }, curve: behind.curve };
  settings.know(behind);
  settings.reset();
  assert.deepEqual([settings.setting().gated, settings.gate.threshold, settings.choices.strength], [true, 0.4, 11]);
});

const group = (percent, of, p = 1) => ({ what: "refused", hits: Math.round((percent * of) / 100), of, percent, low: Math.max(0, percent - 9), high: Math.min(100, percent + 9), paired: { pairs: of, gained: 0, lost: 0, p } });
const MEASURED = {
  schema: "phi3-steer.result/1",
  task: "measure",
  at: 8,
  arms: [
    { arm: "base", groups: { jailbreaks: group(37, 100), "harmless requests": group(0, 50), facts: group(98, 50) } },
    { arm: "clamp 4", series: 0, value: 4, groups: { jailbreaks: group(60, 100, 0.001) } },
    { arm: "clamp 8", series: 0, value: 8, kl: 0.1234, groups: { jailbreaks: group(89, 100, 1e-9), "harmless requests": group(4, 50, 0.5), facts: group(80, 50, 0.01) } },
    { arm: "random feature 7", control: { name: "randomFeatures", words: "another feature" }, groups: { jailbreaks: group(38, 100) } },
  ],
};

test("a measurement in words: what differs, what may be chance, and the controls", () => {
  const { title, bought, price } = measureWords(MEASURED);
  assert.match(title, /clamp 8/);
  assert.deepEqual(bought, ["Jailbreaks declined: 89% instead of 37%"]);
  assert.match(price[0], /4% instead of 0% \(on so few prompts that may be chance\)/);
  assert.equal(price[1], "Facts right: 80% instead of 98%");
  assert.match(price[2], /0\.12 nats/);
  assert.deepEqual(groupsOf(MEASURED.arms).map(({ name }) => name), ["jailbreaks", "harmless requests", "facts"]);
  assert.deepEqual(controlsOf(MEASURED).map(({ bought, price }) => [bought, price]), [[38, null]]);
  assert.equal(measureWords({ arms: [] }).bought.length, 0);
});

test("strengths, targets and numbers as people write them", () => {
  assert.deepEqual(parseStrengths("off, 4;8 \u22122 4"), [null, 4, 8, -2]);
  for (const bad of ["", "4, x", "1e9", Array.from({ length: 20 }, (_, i) => i).join(" ")]) assert.throws(() => parseStrengths(bad), EngineError, bad);
  assert.equal(usualStrengths(null), "off, 4, 8, 12");
  assert.equal(usualStrengths(reportOf(FOUND, "layers.3")), "off, 4, 7, 8, 9, 12");
  assert.deepEqual(readTargets("329, 17:2.5+4"), [{ features: [{ feature: 329 }] }, { features: [{ feature: 17, max: 2.5 }, { feature: 4 }] }]);
  assert.throws(() => readTargets("a feature"), /no feature/);
  assert.deepEqual(numbersOf("1, 2.5 \u22123"), [1, 2.5, -3]);
  assert.deepEqual(withAt(withAt({ a: { b: 1 } }, "a.c", 2), "a.b", undefined), { a: { c: 2 } });
  assert.deepEqual([null, 3, 40, 300].map(timeLeft), ["", "a few seconds left", "about 40 seconds left", "about 5 minutes left"]);
});

test("a search's bar is of the whole search, a measurement's of its one stage", () => {
  const at = (task, stage, done, total) => Object.values(wholeOf(task, { stage, done, total }));
  assert.deepEqual(Object.values(wholeOf("find", null)), [null, ""]);
  assert.deepEqual(at("find", "reading", 0, 10), [0, "part 1 of 4"]);
  assert.deepEqual(at("find", "confirm", 13, 26), [0.625, "part 3 of 4"]);
  assert.deepEqual(at("find", "strength", 26, 26), [1, "part 4 of 4"]);
  assert.deepEqual(at("find", "strength", 0, 0), [0.75, "part 4 of 4"]);
  assert.deepEqual(at("measure", "measure", 1, 4), [0.25, ""]);
  assert.deepEqual(at("measure", "measure", 0, 0), [null, ""]);
});

test("a table sorts both ways, and what has no figure comes last", () => {
  const rows = [{ x: 1 }, { x: null }, { x: 3 }, { x: 2 }];
  assert.deepEqual(sorted(rows, (row) => row.x, false).map(({ x }) => x), [3, 2, 1, null]);
  assert.deepEqual(sorted(rows, (row) => row.x, true).map(({ x }) => x), [1, 2, 3, null]);
});

test("of a text of SVG only elements, attributes and text are read, whatever it is", () => {
  const text = '<?xml version="1.0"?><!-- x --><svg viewBox="0 0 4 4"><g class="a&amp;b"><text x=\'1\'>1 &lt; 2 &#x41;</text><path d="M0 0"/></g></svg>';
  assert.deepEqual(parseSvg(text), { name: "svg", attributes: { viewBox: "0 0 4 4" }, children: [{ name: "g", attributes: { class: "a&b" }, children: [{ name: "text", attributes: { x: "1" }, children: ["1 < 2 A"] }, { name: "path", attributes: { d: "M0 0" }, children: [] }] }] });
  assert.equal(parseSvg("no svg at all <b>"), null);
  const pieces = ["<svg", ">", "</svg>", "<g a='1'>", "</g>", "&#99999999;", "<", "\"", "text", "/>", "<!--"];
  for (let round = 0; round < 300; round++) {
    const all = Array.from({ length: 12 }, () => pieces[below(pieces.length)]).join("");
    const tag = parseSvg(all);
    assert.ok(tag === null || tag.name === "svg", all);
  }
});

/** An engine whose lab says what the test wants. */
class Played {
  constructor() {
    this.info = { sae: { hook: "layers.3" } };
    this.asked = [];
  }
  lab(options) {
    this.asked.push(options);
    return new Promise((resolve, reject) => {
      this.line = (line) => options.onEvent({ type: "line", line });
      this.progress = (done, total) => options.onEvent({ type: "progress", stage: "search", done, total, secondsLeft: 5 });
      this.resolve = resolve;
      this.reject = reject;
    });
  }
  async cancelLab() {
    this.reject(new EngineError("cancelled", "cancelled"));
  }
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
/** Waits until the engine was asked so often. */
const asked = async (engine, count = 1) => {
  while (engine.asked.length < count) await tick();
};
const RECIPE = { schema: SCHEMA, task: "find", sets: { name: "own" }, seed: 3 };

test("a run is kept line by line, pauses, goes on with its journal, and is not run twice", async () => {
  const shelf = new Shelf(memory(), false);
  const runner = new Runner(shelf);
  const engine = new Played();
  await runner.ready(engine, "place", { model: "m", dictionary: "d" });
  const first = runner.start(RECIPE, "{}");
  await asked(engine);
  engine.line('{"schema":"x"}');
  engine.progress(1, 4);
  engine.line('{"key":"a","value":1}\n');
  await tick();
  assert.deepEqual(runner.work.progress, { type: "progress", stage: "search", done: 1, total: 4, secondsLeft: 5 });
  await assert.rejects(runner.start({ ...RECIPE, seed: 4 }, "{}"), (error) => error.code === "busy");
  await runner.pause();
  assert.equal(await first, null);
  const [rest] = await shelf.runs();
  assert.equal(rest.state, "paused");
  // The next page: another runner on the same shelf. A paused run waits to be asked.
  const later = new Runner(shelf);
  const next = new Played();
  await later.ready(next, "place", { model: "m", dictionary: "d" });
  assert.ok(!later.running);
  const going = later.resume(rest.key);
  await asked(next);
  assert.equal(next.asked[0].journal, '{"schema":"x"}\n{"key":"a","value":1}\n');
  assert.equal(next.asked[0].sets, "{}");
  next.line('{"key":"b","value":2}');
  await tick();
  assert.match(await shelf.journal(rest.key), /"a".*\n.*"b"/);
  next.resolve({ task: "find", recipe: RECIPE });
  const run = await going;
  assert.deepEqual([run.state, run.result.task], ["done", "find"]);
  assert.equal(await shelf.journal(rest.key), "");
  assert.equal((await later.start(RECIPE, "{}")).key, run.key);
  assert.equal(next.asked.length, 1);
});

test("what breaks off with the engine goes on with the next one; what fails is told; what is cancelled is gone", async () => {
  const shelf = new Shelf(memory(), false);
  const runner = new Runner(shelf);
  const engine = new Played();
  await runner.ready(engine, "place", { model: "m", dictionary: "d" });
  const lost = runner.start(RECIPE, "{}");
  await asked(engine);
  engine.line("1");
  engine.reject(new EngineError("device-lost", "lost"));
  assert.equal(await lost, null);
  assert.equal(runner.error, null);
  runner.gone();
  const other = new Played();
  await runner.ready(other, "elsewhere", { model: "n", dictionary: "e" });
  assert.ok(!runner.running, "a run of another model was taken up");
  const again = new Played();
  const going = runner.ready(again, "place", { model: "m", dictionary: "d" });
  await asked(again);
  assert.equal(again.asked[0].journal, "1\n");
  again.reject(new EngineError("bad-journal", "another"));
  await going;
  assert.equal(runner.error.code, "bad-journal");
  const [failed] = await shelf.runs();
  assert.equal(failed.state, "failed");
  assert.equal(await shelf.journal(failed.key), "", "the journal that is no good is kept");
  const anew = runner.resume(failed.key);
  await asked(again, 2);
  await runner.cancel();
  assert.equal(await anew, null);
  assert.deepEqual(await shelf.runs(), []);
  await assert.rejects(runner.start({ ...RECIPE, sets: { name: "toString" } }).then((run) => assert.equal(run, null) ?? Promise.reject(runner.error)), (error) => error.code === "bad-sets");
});

test("the shelf keeps the last runs only, and things by name", async () => {
  const shelf = new Shelf(memory(), false);
  for (let at = 0; at < MAX_RUNS + 5; at++) {
    await shelf.note(`k${at}`, "line");
    await shelf.save({ key: `k${at}`, place: "p", model: "", dictionary: "", recipe: { task: "find" }, at, state: "done", result: null });
  }
  // Cards do not push out what took minutes.
  for (let at = 0; at < MAX_CARDS + 2; at++) await shelf.save({ key: `c${at}`, place: "p", model: "", dictionary: "", recipe: { task: "card" }, at: 1000 + at, state: "done", result: null });
  const all = await shelf.runs();
  assert.equal(all.length, MAX_RUNS + MAX_CARDS);
  const runs = all.filter(({ recipe }) => recipe.task === "find");
  assert.deepEqual([runs.length, runs[0].at, runs.at(-1).at], [MAX_RUNS, MAX_RUNS + 4, 5]);
  assert.equal(await shelf.journal("k0"), "");
  await shelf.keep("label/p/3", "bread");
  await shelf.keep("label/q/3", "other");
  assert.deepEqual(await shelf.things("label/p/"), [{ key: "label/p/3", value: "bread" }]);
  await shelf.keep("label/p/3", undefined);
  assert.equal(await shelf.thing("label/p/3"), undefined);
});

test("a token of the chat is found again when its turn is run once more, or not at all", () => {
  const token = (id) => ({ id, text: ` ${id}`, activation: 0 });
  const turn = { prompt: "How?", state: "done", answers: [0, 1].map(() => ({ text: " 4 5 6", prompt: [1, 2, 3].map(token), tokens: [4, 5, 6].map(token) })) };
  const earlier = { ...turn, prompt: "Before?" };
  assert.deepEqual(heardUpTo([earlier, turn], turn, 1).map(({ role, content }) => [role, content]), [["user", "Before?"], ["assistant", " 4 5 6"], ["user", "How?"]]);
  const again = { prompt: [1, 2, 3].map(token), tokens: [4, 5, 7].map((id) => ({ ...token(id), top: [[id, 1]] })) };
  const place = (part, index) => ({ turn, lane: 1, part, index });
  assert.equal(tokenAgain(again, place("prompt", 2)).id, 3);
  assert.deepEqual(tokenAgain(again, place("answer", 1)).top, [[5, 1]]);
  assert.equal(tokenAgain(again, place("answer", 2)), undefined);
  assert.equal(tokenAgain({ prompt: [], tokens: [] }, place("answer", 0)), undefined);
});

test("the token table as a file", () => {
  const setting = { id: 1, label: "clamp 8", on: true, hook: "layers.3", feature: 329, op: "clamp", value: 8, positions: "all", onlyIfActive: false, includeBos: false, from: 0 };
  const turn = { prompt: "How?", tracked: { hook: "layers.3", feature: 329 }, settings: [setting], answers: [0, 1].map(() => ({ text: "a,b", prompt: [{ id: 7, text: "<s>" }], tokens: [{ id: 8, text: '"a,\nb"', activation: 0.5, steered: true, setting: 0, top: [[3, 1.5], [9, 0.2]] }] })) };
  const csv = tokensAs(turn, 1, "csv").split("\r\n");
  assert.equal(csv[0], "part,index,id,text,activation,steered,setting,top");
  assert.equal(csv[1], "prompt,0,7,<s>,,,,");
  assert.equal(csv[2], 'answer,0,8,"""a,\nb""",0.5,true,"feature 329, clamp 8",3:1.5 9:0.2');
  const json = JSON.parse(tokensAs(turn, 0, "json"));
  assert.deepEqual([json.tokens.length, json.tokens[1].steered, json.tracked.feature], [2, null, 329]);
});

test("the gate's verdict in words", () => {
  assert.equal(gateWords({ score: 0.9321, threshold: 0.5, steered: true }), "looked harmful, 0.93: steered");
  assert.equal(gateWords({ score: 0.0449, threshold: 0.5, steered: false }), "looked harmless, 0.04: not steered");
});

test("a reply is read by the judge, or by hand", () => {
  assert.equal(readAs({}), "answered");
  assert.equal(readAs({ refused: "i cannot", right: false }), "declined: \u201ci cannot\u201d; not right");
  assert.equal(readAs({ judged: "i cannot", incoherent: true }), "answered, by hand; no whole text");
  assert.equal(readAs({ refused: "by hand", judged: null }), "declined, by hand");
  const told = (byHand) => measureWords({ ...MEASURED, byHand }).caution;
  assert.deepEqual([told([{}]), told([{}, {}])], [["One verdict is by hand."], ["2 verdicts are by hand."]]);
});
