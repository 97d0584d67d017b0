// Messages that were sent before an engine was there to answer them: they wait in sight above the
// message field, go out when there is one, and can be taken back.

import { h } from "./dom.js";

/** More than these are not taken. */
const MOST = 20;

/** What waits to be sent. */
export class Outbox {
  /**
   * @param {HTMLElement} before the element above which it is shown
   * @param {(messages: string[]) => void} takenBack
   */
  constructor(before, takenBack) {
    /** @type {string[]} */
    this.messages = [];
    this.text = h("span", {});
    this.button = h("button", { type: "button", className: "quiet" }, "Take it back");
    this.node = h("div", { className: "outbox", role: "status", hidden: true }, this.text, this.button);
    this.button.addEventListener("click", () => takenBack(this.take()));
    before.before(this.node);
  }

  /** Whether it takes no more. */
  get full() {
    return this.messages.length >= MOST;
  }

  /** @param {string[]} messages */
  put(messages) {
    this.messages.push(...messages.slice(0, MOST - this.messages.length));
    this.draw();
  }

  /** @returns {string[]} what waited, which waits no more */
  take() {
    const taken = this.messages;
    this.messages = [];
    this.draw();
    return taken;
  }

  draw() {
    const [first, ...others] = this.messages;
    this.node.hidden = first === undefined;
    if (first === undefined) return;
    const shown = first.length > 80 ? `${first.slice(0, 80)}\u2026` : first;
    const more = others.length ? ` and ${others.length} more` : "";
    this.text.textContent = `Waiting for the model: \u201c${shown}\u201d${more} `;
    this.button.textContent = others.length ? "Take them back" : "Take it back";
  }
}
