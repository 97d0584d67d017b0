// The message field, its send and stop button, and the suggested prompts.

import { byId, h, icon } from "./dom.js";
import { SUGGESTIONS } from "./prompts.js";

/**
 * @typedef {object} ComposerActions
 * @property {(turns: string[]) => void} send
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
    this.suggestions.append(...SUGGESTIONS.map((suggestion) => this.card(suggestion)));
    this.update();
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

  /** @param {string[]} turns */
  send(turns) {
    this.sentAt = performance.now();
    this.actions.send(turns);
  }

  /** @param {string} text what is in the field from now on */
  setText(text) {
    this.field.value = text;
    this.fit();
  }

  /** @param {{open: boolean, running: boolean, note?: string}} state open: a message is answered, now or when the model is there */
  setState(state) {
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
    for (const card of this.suggestions.querySelectorAll("button")) {
      card.disabled = !this.open || this.running;
    }
  }

  /** Grows the field with its text, up to the height that the style sheet allows. */
  fit() {
    this.field.style.setProperty("height", "auto");
    this.field.style.setProperty("height", `${this.field.scrollHeight}px`);
    this.update();
  }

  /** @param {import("./prompts.js").Suggestion} suggestion */
  card(suggestion) {
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", className: "suggestion", title: suggestion.turns.join("\n"), onclick: () => this.send(suggestion.turns) },
        h("b", {}, suggestion.kind),
        h("span", { className: "suggestion-text" }, suggestion.turns.at(-1) ?? ""),
        h("span", { className: "suggestion-expect" }, suggestion.expect),
      ),
    );
  }
}
