// Above the button that loads: whether the marked model can be steered, and the dictionaries that fit it.

import { bytes, h } from "./dom.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Entry } from "./types.d.ts" */

/** Says what becomes of steering with what is marked, before anything is downloaded for it. */
export class SteeringNote {
  /**
   * @param {Catalogue} catalogue
   * @param {(id: string) => void} choose a dictionary, or "none"
   */
  constructor(catalogue, choose) {
    this.catalogue = catalogue;
    this.text = h("p", { role: "status" });
    this.select = h("select", { id: "sae-quick", "aria-label": "Dictionary for this model" });
    this.select.addEventListener("change", () => choose(this.select.value));
    this.node = h("div", { className: "steering-note", hidden: true }, this.text, this.select);
    /** What the options were made for. */
    this.drawn = "";
  }

  /**
   * @param {Entry | undefined} model
   * @param {string} dictionary the marked one's id, "auto" or "none"
   */
  draw(model, dictionary) {
    const fitting = model ? this.catalogue.fitting(model) : [];
    const text = model ? sentence(model, dictionary, fitting.length) : "";
    this.node.hidden = !text;
    if (this.text.textContent !== text) this.text.textContent = text;
    this.select.hidden = dictionary === "auto" || !fitting.length;
    const drawn = JSON.stringify(fitting.map(({ id }) => id));
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.select.replaceChildren(h("option", { value: "none" }, "None: no steering"), ...fitting.map((entry) => h("option", { value: entry.id }, label(entry))));
    }
    this.select.value = dictionary;
  }
}

/** @param {Entry} entry */
const label = (entry) => [entry.name, entry.bytes ? bytes(entry.bytes) : ""].filter(Boolean).join(", ");

/**
 * @param {Entry} model
 * @param {string} dictionary
 * @param {number} fitting public dictionaries that are known for it
 * @returns {string} "" where there is nothing to say
 */
export function sentence(model, dictionary, fitting) {
  if (dictionary === "auto") return model.builtIn ? "" : "It is steered if a dictionary of its own lies with it; without one it only chats.";
  if (dictionary !== "none") return fitting ? "This model comes without a dictionary. It is steered with:" : "";
  if (fitting) return "Without a dictionary there is no steering: this model only chats. Public dictionaries for it:";
  return "Without a dictionary there is no steering: this model only chats. No public dictionary for it is known; once it runs, the lab can train one.";
}
