// Where a visitor's message stands among the tokens of a chat, whatever its template.

import assert from "node:assert/strict";
import { test } from "node:test";
import { draws } from "./draws.mjs";

const { placeOf } = await import("../../www/heard-prompt.js");

/** Templates: before the message, its end, and what opens the answer. */
const TEMPLATES = [
  [["<s>", "<|user|>"], ["<|end|>", "<|assistant|>"]],
  [["<|im_start|>", "user", "\n"], ["<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]],
  [["<|start_header_id|>", "user", "<|end_header_id|>", "\n\n"], ["<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n"]],
  [["<|user|>", "\n"], ["</s>", "\n", "<|assistant|>", "\n"]],
];
const WORDS = ["user", "assistant", " user", "Hello", " there", "?", " the", "\n", "é", "<", "|", " end"];

test("a message is found in every template, also where it says what the template says", () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  console.log(`seed ${seed}`);
  const draw = draws(seed);
  let tried = 0;
  for (let round = 0; round < 2000; round++) {
    const [before, after] = TEMPLATES[draw(TEMPLATES.length)];
    const said = Array.from({ length: 1 + draw(4) }, () => WORDS[draw(WORDS.length)]);
    const message = said.join("").trim();
    // White space at the ends is the field's to take away, but for a first word's own.
    if (!message || /^\n|\s$/.test(said.join(""))) continue;
    tried += 1;
    const tokens = [...before, ...said, ...after].map((text) => ({ id: 0, text }));
    assert.deepEqual(placeOf(message, tokens), { from: before.length, end: before.length + said.length }, JSON.stringify(tokens.map(({ text }) => text)));
  }
  assert.ok(tried > 1000);
  assert.equal(placeOf("gone", [{ id: 0, text: "<|end|>" }]), null);
  assert.equal(placeOf("", [{ id: 0, text: "<|end|>" }]), null);
  // A message whose characters share a token with others stays plain.
  assert.equal(placeOf("b", [{ id: 0, text: "ab" }, { id: 1, text: "<|end|>" }]), null);
});
