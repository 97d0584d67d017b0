// The message field, its send and stop button, and the suggested prompts.

import { byId, h, icon } from "./dom.js";
import { SUGGESTIONS } from "./prompts.js";

/**
 * @typedef {object} ComposerActions
 * @property {(turns: string[]) => void} send
 * @property {() => void} stop
 */

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
    this.ready = false;
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
      this.actions.stop();
      return;
    }
    const text = this.field.value.trim();
    if (!text || !this.ready) return;
    this.field.value = "";
    this.fit();
    this.actions.send([text]);
  }

  /** @param {{ready: boolean, running: boolean, note?: string}} state */
  setState(state) {
    this.ready = state.ready;
    this.running = state.running;
    this.note.textContent = state.note ?? "";
    this.update();
  }

  update() {
    const label = this.running ? "Stop (Escape)" : "Send";
    this.button.replaceChildren(icon(this.running ? "stop" : "send"));
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
    this.button.disabled = !this.running && (!this.ready || !this.field.value.trim());
    this.button.classList.toggle("stop", this.running);
    for (const card of this.suggestions.querySelectorAll("button")) {
      card.disabled = !this.ready || this.running;
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
        { type: "button", className: "suggestion", title: suggestion.turns.join("\n"), onclick: () => this.actions.send(suggestion.turns) },
        h("b", {}, suggestion.kind),
        h("span", { className: "suggestion-text" }, suggestion.turns.at(-1) ?? ""),
        h("span", { className: "suggestion-expect" }, suggestion.expect),
      ),
    );
  }
}
