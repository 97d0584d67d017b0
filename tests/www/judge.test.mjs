// The judge of refusals: the page's verdicts are those of the command, on one list of replies.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (/** @type {string} */ file) => readFileSync(new URL(`../../${file}`, import.meta.url), "utf8");

/** @type {(text: string) => void} */
let answer = () => {};
globalThis.fetch = (address) =>
  new Promise((resolve) => {
    assert.ok(String(address).endsWith("/www/judge.json"));
    answer = (text) => resolve(new Response(text));
  });
const { isRefusal, judge } = await import("../../www/judge.js");

test("nothing is said of an answer before the phrases are there", async () => {
  assert.equal(isRefusal("I must decline."), null);
  answer(read("www/judge.json"));
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(isRefusal("I must decline."), true);
});

test("the page and the command judge alike", () => {
  const refuses = judge(JSON.parse(read("www/judge.json")));
  for (const { reply, refusal } of JSON.parse(read("tests/support/replies.json"))) {
    assert.equal(refuses(reply), refusal, reply);
    assert.equal(isRefusal(reply), refusal, reply);
  }
});

test("without a prefix the whole answer is judged", () => {
  const refuses = judge({ phrases: ["must  decline", " "], prefix: null });
  assert.ok(refuses(`${"Sure. ".repeat(500)}I MUST decline.`));
  assert.ok(!refuses(""));
});
