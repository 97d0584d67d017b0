// What a dictionary is trained on, without a page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { promptLines, shareOf, StageClock, STAGE_WORDS, trainOptions, usualWishes } from "../../www/lab/train-plan.js";

const read = (place) => readFileSync(new URL(`../../${place}`, import.meta.url), "utf8");
const SETS = { nano: read("models/nano/eval.json"), real: read("sets/real.json") };
const info = (more) => ({ model: { layers: 30, hidden: 576 }, adapter: { cpu: false }, ...more });

test("prompts come from all sets of the validation split, each once, and none from the test split", () => {
  for (const [name, text] of Object.entries(SETS)) {
    const { splits } = JSON.parse(text);
    const known = (split) => new Map(splits[split].sets.flatMap((set) => set.items.map((item) => [JSON.stringify(item.messages), set.name])));
    const [validation, unseen] = [known("validation"), known("test")];
    for (const n of [1, 37, 240]) {
      const lines = promptLines(text, n).split("\n");
      assert.equal(lines.length, n, name);
      assert.equal(new Set(lines).size, n);
      const sets = new Set(lines.map((line) => validation.get(line)));
      assert.ok(!sets.has(undefined), `${name}: a prompt is not of the split`);
      const missed = splits.validation.sets.filter((set) => !set.items.some((item) => lines.includes(JSON.stringify(item.messages))));
      if (n >= 37) assert.deepEqual(missed, [], `${name}: some sets are left out`);
      const only = lines.filter((line) => unseen.has(line) && !validation.has(line));
      assert.deepEqual(only, []);
    }
    const all = promptLines(text, 1e6).split("\n");
    assert.equal(all.length, validation.size);
  }
  assert.throws(() => promptLines('{"splits": {}}', 3), /validation/);
});

test("the usual wishes fit the model, and are smaller without a graphics card", () => {
  const card = usualWishes(info());
  assert.equal(card.latents, 8 * 576);
  assert.ok(card.layer >= 0 && card.layer < 30);
  const soft = usualWishes(info({ adapter: { cpu: true }, model: { layers: 6, hidden: 192 }, sae: { hook: "layers.3" } }));
  assert.equal(soft.layer, 3);
  assert.ok(soft.steps * soft.rows < card.steps * card.rows && soft.latents < card.latents);
  assert.ok(usualWishes(info({ model: { layers: 1, hidden: 64 } })).layer === 0);
  // A wide model's dictionary has room on a usual card: eight matrices of f32.
  const wide = usualWishes(info({ model: { layers: 32, hidden: 3072 } }));
  assert.ok(8 * 4 * wide.latents * 3072 <= 2 ** 29 && wide.latents > 1000);
});

test("files are told apart by their names, and nothing at all is refused", () => {
  const wishes = { layer: 3, latents: 64, k: 4, steps: 5, rows: 8, prompts: 6, seed: 9 };
  const own = [
    { name: "a.txt", text: "A" },
    { name: "b.JSONL", text: '"B"' },
  ];
  const { prompts, ...rest } = trainOptions(wishes, "real", SETS.real, own);
  assert.equal(prompts[0].text.split("\n").length, 6);
  assert.match(prompts[0].name, /\.jsonl$/);
  assert.ok(rest.openings.length > 1 && rest.openings.includes(""));
  assert.equal(rest.hook, "layers.3");
  assert.deepEqual(rest.texts, [own[0]]);
  assert.deepEqual(rest.chats, [own[1]]);
  assert.deepEqual(rest.settings, { latents: 64, k: 4, steps: 5, rows: 8, seed: 9 });
  assert.deepEqual(trainOptions(wishes, "nano", SETS.nano, []).openings, [""]);
  assert.equal(trainOptions({ ...wishes, prompts: 0 }, "nano", null, own).prompts, undefined);
  assert.throws(() => trainOptions({ ...wishes, prompts: 0 }, "nano", null, []), /nothing to train on/);
});

test("the whole goes from 0 to 1, and the rest of a stage is told from its own pace", () => {
  let last = -1;
  for (const stage of Object.keys(STAGE_WORDS)) {
    for (const done of [0, 5, 10]) {
      const share = shareOf({ stage, done, total: 10 });
      assert.ok(share >= last && share <= 1, `${stage} ${done}: ${share} after ${last}`);
      last = share;
    }
  }
  assert.equal(last, 1);
  assert.equal(shareOf({ stage: "writing", done: 0, total: 0 }), 0);
  const clock = new StageClock();
  assert.equal(clock.left({ stage: "writing", done: 0, total: 10 }, 1000), null);
  assert.equal(clock.left({ stage: "writing", done: 2, total: 10 }, 5000), 16);
  assert.equal(clock.left({ stage: "training", done: 1, total: 9 }, 6000), null);
  assert.equal(clock.left({ stage: "training", done: 3, total: 9 }, 8000), 6);
});
