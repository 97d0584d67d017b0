// A recipe by hand: a field for each thing that one changes often, and the recipe itself as text. Both are
// the same recipe.

import { h } from "../dom.js";
import { asEngineError } from "../line.js";
import { saveFile } from "../save.js";
import { linkTo } from "../links.js";
import { parseRecipe, toLink } from "./recipes.js";
import { numbersOf } from "./written.js";

/** @import { Recipe } from "./recipes.js" */

/**
 * @typedef {object} Field
 * @property {string} path "sets.limit"
 * @property {string} label
 * @property {"text" | "number" | "numbers" | "choice" | "choices" | "check"} kind
 * @property {string} [about]
 * @property {[string, string][]} [options] value and words
 * @property {(value: any) => string} [shown] the recipe's value as a text
 * @property {(text: string) => any} [read] a text as the recipe's value
 * @property {() => any} [on] of a check: the value that it puts in; undefined where there is none
 */

/**
 * @param {any} object
 * @param {string} path
 */
export const at = (object, path) => path.split(".").reduce((here, name) => here?.[name], object);

/**
 * The object with another value at a path; undefined takes it out.
 * @param {any} object
 * @param {string} path
 * @param {any} value
 */
export function withAt(object, path, value) {
  const [name, ...rest] = path.split(".");
  const copy = { ...object };
  if (rest.length) copy[name] = withAt(copy[name], rest.join("."), value);
  else if (value === undefined) delete copy[name];
  else copy[name] = value;
  return copy;
}

let forms = 0;

/** Edits one recipe. */
export class RecipeForm {
  /**
   * @param {() => Recipe} usual the recipe to begin with
   * @param {Field[]} fields
   * @param {() => [string, string][]} places what a link says of the model
   */
  constructor(usual, fields, places) {
    this.usual = usual;
    this.fields = fields;
    this.places = places;
    this.id = `recipe-${forms++}`;
    /** @type {string | undefined} the text of an own set file */
    this.sets = undefined;
    this.touched = false;
    /** @type {Recipe} */
    this.recipe = usual();
    this.trouble = h("p", { className: "field-note", role: "status" });
    this.text = h("textarea", { id: `${this.id}-text`, rows: 12, spellcheck: false, className: "recipe-text" });
    this.text.addEventListener("change", () => this.tryText(this.text.value));
    this.rows = fields.map((field, index) => this.row(field, `${this.id}-${index}`));
    const file = h("input", { type: "file", accept: ".json,application/json", className: "sr-only", id: `${this.id}-file`, tabIndex: -1, "aria-label": "The file of a recipe" });
    file.addEventListener("change", async () => {
      if (file.files?.[0]) this.tryText(await file.files[0].text());
      file.value = "";
    });
    const own = h("input", { type: "file", accept: ".json,.jsonl,.csv", id: `${this.id}-own` });
    own.addEventListener("change", async () => {
      this.sets = own.files?.[0] ? await own.files[0].text() : undefined;
      if (this.sets !== undefined) this.set("sets.name", "own");
    });
    const copy = h("button", { type: "button", className: "button" }, "Copy link");
    copy.addEventListener("click", async () => {
      const link = linkTo([...this.places(), ["lab", this.view()], ["recipe", toLink(this.recipe)]], "");
      await navigator.clipboard.writeText(link).then(
        () => (copy.textContent = "Link copied"),
        () => (this.trouble.textContent = link),
      );
      setTimeout(() => (copy.textContent = "Copy link"), 2000);
    });
    const press = (/** @type {string} */ label, /** @type {() => void} */ onclick) => h("button", { type: "button", className: "button", onclick }, label);
    this.node = h(
      "details",
      { className: "by-hand" },
      h("summary", {}, "By hand: every step of it"),
      h("div", { className: "recipe-fields" }, ...this.rows.map((row) => row.node), h("label", { className: "field" }, h("span", {}, "Own prompts ", h("small", {}, "a set file, CSV or JSONL; it stays on this machine")), own)),
      this.trouble,
      h("details", { className: "recipe-itself" }, h("summary", {}, "The recipe itself"), h("label", { className: "sr-only", for: `${this.id}-text` }, "The recipe as JSON"), this.text),
      h(
        "div",
        { className: "actions" },
        press("Save recipe", () => saveFile(`${this.recipe.task}-recipe.json`, "application/json", `${JSON.stringify(this.recipe, null, 2)}\n`)),
        copy,
        press("Open a recipe\u2026", () => file.click()),
        press("Back to the usual one", () => this.reset()),
        file,
      ),
    );
    this.draw();
  }

  /** The part of the lab that takes this recipe. */
  view() {
    return this.recipe.task === "sweep" ? "measure" : this.recipe.task === "card" ? "feature" : this.recipe.task;
  }

  /** Begins again with the usual recipe. */
  reset() {
    this.touched = false;
    this.sets = undefined;
    this.recipe = this.usual();
    this.trouble.textContent = "";
    this.draw();
  }

  /** What the usual recipe depends on has changed: unless the visitor has changed it, it follows. */
  refresh() {
    if (!this.touched) this.reset();
  }

  /**
   * @param {string} text
   * @returns {boolean} whether it is a recipe
   */
  tryText(text) {
    try {
      this.take(parseRecipe(text));
      return true;
    } catch (error) {
      this.trouble.textContent = asEngineError(error).message;
      return false;
    }
  }

  /** @param {Recipe} recipe */
  take(recipe) {
    this.recipe = recipe;
    this.touched = true;
    this.trouble.textContent = "";
    this.draw();
  }

  /**
   * @param {string} path
   * @param {any} value
   */
  set(path, value) {
    this.take(withAt(this.recipe, path, value));
  }

  draw() {
    this.text.value = JSON.stringify(this.recipe, null, 2);
    for (const row of this.rows) row.draw();
  }

  /**
   * @param {Field} field
   * @param {string} id
   * @returns {{node: HTMLElement, draw: () => void}}
   */
  row(field, id) {
    const { path, label, kind, about, options = [] } = field;
    const name = [label, about ? " " : null, about ? h("small", {}, about) : null];
    const value = () => at(this.recipe, path);
    if (kind === "choices") {
      const boxes = options.map(([one, words]) => {
        const box = h("input", { type: "checkbox", value: one });
        box.addEventListener("change", () => this.set(path, boxes.filter(({ box }) => box.checked).map(({ one }) => one)));
        return { one, box, node: h("label", { className: "check-row" }, box, h("span", {}, words)) };
      });
      const node = h("fieldset", { className: "choices" }, h("legend", {}, ...name), ...boxes.map(({ node }) => node));
      return { node, draw: () => boxes.forEach(({ one, box }) => (box.checked = (value() ?? []).includes(one))) };
    }
    if (kind === "check") {
      const box = h("input", { type: "checkbox", id });
      box.addEventListener("change", () => this.set(path, box.checked ? field.on?.() : undefined));
      return {
        node: h("label", { className: "check-row" }, box, h("span", {}, ...name)),
        draw: () => {
          box.checked = value() !== undefined;
          box.disabled = !box.checked && field.on?.() === undefined;
        },
      };
    }
    if (kind === "choice") {
      const select = h("select", { id }, ...options.map(([one, words]) => h("option", { value: one }, words)));
      select.addEventListener("change", () => this.set(path, select.value === "" ? undefined : select.value));
      return { node: h("label", { className: "field" }, h("span", {}, ...name), select), draw: () => void (select.value = value() ?? "") };
    }
    const input = h("input", { id, type: kind === "number" ? "number" : "text", autocomplete: "off", spellcheck: false });
    input.addEventListener("change", () => {
      try {
        this.set(path, input.value.trim() === "" ? undefined : field.read ? field.read(input.value) : kind === "number" ? input.valueAsNumber : kind === "numbers" ? numbersOf(input.value) : input.value.trim());
      } catch (error) {
        this.trouble.textContent = `${label}: ${asEngineError(error).message}`;
      }
    });
    const shown = field.shown ?? ((/** @type {any} */ one) => (Array.isArray(one) ? one.join(", ") : String(one)));
    return { node: h("label", { className: "field" }, h("span", {}, ...name), input), draw: () => void (input.value = value() === undefined || value() === null ? "" : shown(value())) };
  }
}
