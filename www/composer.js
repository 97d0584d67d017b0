// The message field, its send and stop button, and the suggested prompts.

import { byId, h, icon, number } from "./dom.js";
import { REAL_SUGGESTIONS, SUGGESTIONS } from "./prompts.js";

/**
 * @typedef {object} ComposerActions
 * @property {(turns: string[], anew?: boolean) => void} send anew: they begin a new chat
 * @property {() => void} stop ends the running turn and what is to follow it
 */

/** Milliseconds after a message was sent in which the same button does not stop it: the second half of a double click. */
const HESITATION = 500;

/** Takes messages from the visitor. */
export class Composer {
  /** @param {ComposerActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.form = byId("composer", HTMLFormElement);
    this.field = byId("message", HTMLTextAreaElement);
    this.button = byId("send", HTMLButtonElement);
    this.note = byId("composer-note", HTMLElement);
    this.running = false;
    this.open = false;
    this.sentAt = -Infinity;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.field.addEventListener("input", () => this.fit());
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!this.running) this.submit();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.running && !document.querySelector("dialog[open]")) this.actions.stop();
    });
    this.suggestions = byId("suggestions", HTMLElement);
    this.examples = byId("examples", HTMLDialogElement);
    /** Those that fit the model. @type {import("./prompts.js").Suggestion[]} */
    this.suggested = [];
    this.startExamples(this.examples);
    this.update();
  }

  /**
   * The same prompts in a dialog, for when the first screen is gone.
   * @param {HTMLDialogElement} examples
   */
  startExamples(examples) {
    const opener = byId("examples-open", HTMLButtonElement);
    opener.prepend(icon("examples"));
    opener.addEventListener("click", () => examples.showModal());
    byId("examples-close", HTMLButtonElement).addEventListener("click", () => examples.close());
    examples.addEventListener("click", (event) => {
      if (event.target === examples) examples.close();
    });
  }

  submit() {
    if (this.running) {
      if (performance.now() - this.sentAt > HESITATION) this.actions.stop();
      return;
    }
    const text = this.field.value.trim();
    if (!text || !this.open) return;
    this.setText("");
    this.send([text]);
  }

  /**
   * @param {string[]} turns
   * @param {boolean} [anew] whether they begin a new chat
   */
  send(turns, anew) {
    this.sentAt = performance.now();
    this.actions.send(turns, anew);
  }

  /** @param {string} text what is in the field from now on */
  setText(text) {
    this.field.value = text;
    this.fit();
  }

  /**
   * @param {{open: boolean, running: boolean, note?: string, toy?: boolean, promised?: number | null}} state open: a message
   *   is answered, now or when the model is there; toy: whether the model knows the nano model's world alone;
   *   promised: the strength for which it was tried what the suggestions do with this model, null for other models
   */
  setState(state) {
    this.suggest(state.toy ? SUGGESTIONS : REAL_SUGGESTIONS, state.promised ?? null);
    this.open = state.open;
    this.running = state.running;
    this.note.textContent = state.note ?? "";
    this.update();
  }

  update() {
    const label = this.running ? "Stop (Escape)" : "Send";
    this.button.replaceChildren(icon(this.running ? "stop" : "send"));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.disabled = !this.running && (!this.open || !this.field.value.trim());
    this.button.classList.toggle("stop", this.running);
    for (const card of document.querySelectorAll(".suggestion")) {
      if (!(card instanceof HTMLButtonElement)) continue;
      card.disabled = !this.open || this.running;
    }
  }

  /**
   * @param {import("./prompts.js").Suggestion[]} suggestions
   * @param {number | null} value
   */
  suggest(suggestions, value) {
    if (this.suggested !== suggestions) {
      this.suggested = suggestions;
      for (const list of [this.suggestions, byId("examples-list", HTMLElement)]) list.replaceChildren(...suggestions.map((suggestion) => this.card(suggestion)));
    }
    document.querySelectorAll(".suggestion-expect").forEach((node, index) => {
      const { expect, about } = suggestions[index % suggestions.length];
      node.textContent = value === null || !expect ? about : expect(number(value));
    });
  }

  /** Grows the field with its text, up to the height that the style sheet allows. */
  fit() {
    this.field.style.setProperty("height", "auto");
    this.field.style.setProperty("height", `${this.field.scrollHeight}px`);
    this.update();
  }

  /** @param {import("./prompts.js").Suggestion} suggestion */
  try(suggestion) {
    this.examples.close();
    this.send(suggestion.turns, true);
  }

  /** @param {import("./prompts.js").Suggestion} suggestion */
  card(suggestion) {
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", className: "suggestion", title: suggestion.turns.join("\n"), onclick: () => this.try(suggestion) },
        h("b", {}, suggestion.kind),
        h("span", { className: "suggestion-text" }, suggestion.turns.at(-1) ?? ""),
        h("span", { className: "suggestion-expect" }, suggestion.about),
      ),
    );
  }
}
