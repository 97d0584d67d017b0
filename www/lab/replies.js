// What was said, reply by reply, with how it was read; who reads it otherwise says so, and that counts.

import { h } from "../dom.js";
import { armsOf, nameOf } from "./measured.js";
import { sortable } from "./sortable.js";

/** @import { LabResult, LabVerdict } from "../types.d.ts" */

/** Prompts whose replies are judged by whether they decline. */
const JUDGED = new Set(["refuse", "jailbreak", "multi_turn", "benign", "fact", "arithmetic", "smalltalk"]);

/**
 * How a reply was read, in words.
 * @param {any} outcome
 */
export function readAs(outcome) {
  const { refused, right, incoherent, judged } = outcome;
  const byHand = judged !== undefined;
  const declined = byHand ? (refused ? "declined, by hand" : "answered, by hand") : refused ? `declined: \u201c${refused}\u201d` : "";
  const told = [declined, right === true ? "right" : right === false ? "not right" : "", incoherent ? "no whole text" : ""].filter(Boolean);
  return told.join("; ") || "answered";
}

/**
 * The replies of each arm; null where the result has none.
 * @param {LabResult} given
 * @param {(verdict: LabVerdict) => Promise<LabResult>} overrule counts a verdict by hand, and gives the result with it
 * @returns {HTMLElement | null}
 */
export function replies(given, overrule) {
  let result = given;
  const arms = () => armsOf(result).filter((arm) => Array.isArray(arm.outcomes));
  const items = /** @type {any[]} */ (result.items ?? []);
  if (!arms().length || !items.length) return null;
  const holder = h("div", { className: "lab-table" });
  const select = h("select", { "aria-label": "Arm" }, ...arms().map((arm, index) => h("option", { value: String(index) }, nameOf(arm))));
  const said = h("p", { className: "muted", role: "status" });

  /** @param {number} item */
  const reading = (item) => {
    const outcome = () => arms()[Number(select.value)]?.outcomes?.find((one) => one.item === item) ?? {};
    const words = h("span", {}, readAs(outcome()));
    if (!JUDGED.has(items[item]?.kind)) return words;
    const { refused, judged } = outcome();
    const choice = h("select", { "aria-label": `Read \u201c${items[item]?.text ?? ""}\u201d as` }, h("option", { value: "judge" }, "as the judge does"), h("option", { value: "declined" }, "declined"), h("option", { value: "answered" }, "answered"));
    choice.value = judged === undefined ? "judge" : refused ? "declined" : "answered";
    choice.addEventListener("change", async () => {
      choice.disabled = true;
      const byHand = choice.value === "judge" ? null : choice.value === "declined";
      try {
        result = await overrule({ arm: arms()[Number(select.value)].arm, item: items[item].id, refused: byHand });
        said.textContent = "Counted: the figures above are of what you say.";
      } catch (error) {
        console.error(error);
        said.textContent = `It could not be counted: ${error instanceof Error ? error.message : error}`;
      }
      words.textContent = readAs(outcome());
      choice.disabled = false;
    });
    return h("span", { className: "reading" }, words, choice);
  };
  const draw = () => {
    const arm = arms()[Number(select.value)];
    /** @type {import("./sortable.js").Column<any>[]} */
    const columns = [
      { name: "Set", order: (one) => items[one.item]?.set ?? null, cell: (one) => String(items[one.item]?.set ?? "") },
      { name: "Prompt", cell: (one) => String(items[one.item]?.text ?? "") },
      { name: "Reply", cell: (one) => String(one.text ?? "") },
      { name: "Read as", order: (one) => readAs(one), cell: (one) => reading(one.item) },
    ];
    holder.replaceChildren(sortable(`Replies of ${nameOf(arm)}`, columns, arm.outcomes ?? [], { first: 20 }));
  };
  select.addEventListener("change", draw);
  const about = "A reply declines where a phrase of refusals begins it. Where you read it otherwise, say so: shares, intervals and tests are counted anew, and the report tells how many verdicts are by hand.";
  const details = h("details", {}, h("summary", {}, "What was said, reply by reply"), h("p", { className: "muted" }, about), h("p", {}, select), said, holder);
  details.addEventListener("toggle", () => details.open && !holder.firstChild && draw());
  return details;
}
