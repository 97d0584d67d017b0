// A lesson in five steps: a guess before each result, words explained where they stand, and a link for
// each step.

import { h } from "../dom.js";
import { errorPanel } from "../errors.js";
import { linkTo } from "../links.js";
import { asEngineError } from "../line.js";
import { STEPS } from "./lesson-steps.js";
import { WorkCard } from "./work-card.js";

/** @import { LabPage } from "./lab.js" */

/** Words of the lesson, explained in a sentence or two. */
const WORDS = /** @type {Record<string, string>} */ ({
  token: "A piece of text, often a word or part of one. The model reads and writes one after the other.",
  block: "A stage of the model. Its blocks, one after the other, read a list of numbers for each token and add to it.",
  dictionary: "A small network beside the model, trained to write that list of numbers as a sum of a few directions out of many.",
  feature: "One direction of the dictionary. Its activation at a token says how much of it is there; at most tokens nothing. It has a number, and no name.",
  activation: "How much of a feature is there at a token: 0 is nothing.",
  clamp: "Holding a feature at a value, the strength, at every token, whatever its activation would have been.",
  jailbreak: "A harmful request with a trick around it that talks a model round.",
  candidate: "A feature that some score suggests. Only trying it out shows whether it does anything.",
  interval: "Of few prompts a share is uncertain: the interval says between which shares the true one lies, 95 times of 100.",
  control: "A second experiment in which the thing that one believes in is missing. If the effect is still there, it was not that thing.",
});

/**
 * A paragraph in which [word] is explained on a press.
 * @param {string} text with words in square brackets
 * @returns {HTMLElement}
 */
export function explained(text) {
  const note = h("p", { className: "word-note", hidden: true, role: "note" });
  const parts = text.split(/\[([^\]]+)\]/).map((part, index) => {
    if (index % 2 === 0) return part;
    const [shown, key = shown] = part.split("|");
    const button = h("button", { type: "button", className: "term", "aria-expanded": "false" }, shown);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      for (const other of holder.querySelectorAll(".term")) other.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-expanded", String(open));
      note.hidden = !open;
      note.replaceChildren(h("b", {}, key), `: ${WORDS[key] ?? ""}`);
    });
    return button;
  });
  const holder = h("div", { className: "explained" }, h("p", {}, ...parts), note);
  return holder;
}

/** The view. */
export class LessonView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Lesson";
    this.index = -1;
    /** @type {(string | null)[]} what was guessed, by step */
    this.guesses = STEPS.map(() => null);
    /** @type {(HTMLElement | null)[]} what was shown, by step */
    this.results = STEPS.map(() => null);
    this.busy = false;
    this.work = new WorkCard(page.runner, ["find", "measure"]);
    this.places = h("ol", { className: "lesson-places" });
    this.large = h("button", { type: "button", className: "button", "aria-pressed": "false" }, "Large type");
    this.large.addEventListener("click", () => {
      const on = this.node.classList.toggle("large");
      this.large.setAttribute("aria-pressed", String(on));
    });
    this.copy = h("button", { type: "button", className: "button" }, "Copy link");
    this.copy.addEventListener("click", async () => {
      const link = linkTo([...page.places(), ["lab", `lesson.${this.index + 1}`]], "");
      await navigator.clipboard.writeText(link).then(
        () => (this.copy.textContent = "Link copied"),
        () => (this.copy.textContent = "The link is in the address bar"),
      );
      setTimeout(() => (this.copy.textContent = "Copy link"), 2000);
    });
    this.step = h("div", { className: "lesson-step" });
    this.node = h("section", { className: "lab-section lesson" }, h("div", { className: "lesson-head" }, h("nav", { "aria-label": "Steps of the lesson" }, this.places), h("div", { className: "actions" }, this.large, this.copy)), this.step);
  }

  /** @param {number | null} part */
  visit(part) {
    const index = Math.min(STEPS.length, Math.max(1, part ?? 1)) - 1;
    if (index !== this.index) this.draw(index);
  }

  changed() {
    if (this.index >= 0 && !this.busy) this.draw(this.index);
  }

  /** @param {number} index */
  draw(index) {
    this.index = index;
    const step = STEPS[index];
    this.places.replaceChildren(
      ...STEPS.map((one, place) =>
        h("li", {}, h("a", { href: `#lab=lesson.${place + 1}`, "data-lab": `lesson.${place + 1}`, ...(place === index ? { "aria-current": "step" } : {}) }, h("span", { className: "number" }, String(place + 1)), h("span", { className: "name" }, one.title))),
      ),
    );
    const ready = this.page.engine()?.info.sae !== undefined;
    const answer = h("div", { className: "lesson-answer" });
    const trouble = h("div");
    const go = h("button", { type: "button", className: "button primary big", disabled: !ready || this.guesses[index] === null }, step.action);
    const hint = h("p", { className: "muted" }, !ready ? "The model is not there yet." : this.guesses[index] === null ? "Guess first." : "");
    const options = step.options.map(([key, label]) => {
      const radio = h("input", { type: "radio", name: `guess-${index}`, value: key, checked: this.guesses[index] === key });
      radio.addEventListener("change", () => {
        this.guesses[index] = key;
        go.disabled = !ready || this.busy;
        hint.textContent = "";
      });
      return h("label", { className: "guess" }, radio, h("span", {}, label));
    });
    const kept = this.results[index];
    if (kept) answer.append(kept);
    go.addEventListener("click", async () => {
      go.disabled = true;
      this.busy = true;
      trouble.replaceChildren();
      answer.replaceChildren(h("p", { className: "muted" }, "One moment\u2026"));
      const shown = h("div");
      try {
        const { truth, words, nodes } = await step.reveal(this.page, (early) => answer.replaceChildren(early));
        const guess = this.guesses[index];
        const label = step.options.find(([key]) => key === guess)?.[1] ?? "";
        const right = truth === null ? "" : truth === guess ? "You guessed it." : `You guessed \u201c${label}\u201d.`;
        shown.append(h("p", { className: "lesson-verdict", role: "status" }, right ? h("b", {}, `${right} `) : null, words), ...nodes);
        this.results[index] = shown;
        answer.replaceChildren(shown);
      } catch (error) {
        answer.replaceChildren();
        const failure = asEngineError(error);
        if (failure.code !== "cancelled") trouble.replaceChildren(errorPanel(failure, []));
      } finally {
        this.busy = false;
        go.disabled = !this.page.engine() || this.guesses[index] === null;
      }
    });
    const link = (/** @type {number} */ place, /** @type {string} */ label, /** @type {string} */ className) => h("a", { href: `#lab=lesson.${place + 1}`, "data-lab": `lesson.${place + 1}`, className }, label);
    this.step.replaceChildren(
      h("p", { className: "lesson-number" }, `Step ${index + 1} of ${STEPS.length}`),
      h("h2", { tabIndex: -1 }, step.title),
      ...step.text.map(explained),
      h("fieldset", { className: "guesses" }, h("legend", {}, step.question), ...options),
      h("div", { className: "actions" }, go, hint),
      trouble,
      this.work.node,
      answer,
      h("nav", { className: "lesson-on", "aria-label": "Before and after" }, index > 0 ? link(index - 1, "\u2190 Back", "button") : h("span"), index < STEPS.length - 1 ? link(index + 1, "Next step \u2192", "button") : h("a", { href: "#lab=find", "data-lab": "find", className: "button" }, "On to the lab \u2192")),
    );
  }
}
