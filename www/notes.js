// Short sentences about what the page did not do as it was told, above the message field until they
// are read.

import { h, iconButton } from "./dom.js";

/** More are not shown at once. */
const MOST = 4;

/** The list of notes. */
export class Notes {
  /** @param {HTMLElement} before the element above which it is shown */
  constructor(before) {
    this.list = h("ul", { className: "notes", hidden: true });
    before.before(h("div", { role: "status" }, this.list));
  }

  /**
   * @param {string} sentence said only once at a time
   * @param {{label: string, run: () => void}[]} [ways] what can be done about it
   */
  add(sentence, ways = []) {
    const said = [...this.list.children].some((item) => item.firstChild?.textContent === sentence);
    if (said || this.list.childElementCount >= MOST) return;
    const close = () => {
      item.remove();
      this.list.hidden = !this.list.firstChild;
    };
    const buttons = ways.map(({ label, run }) =>
      h("button", { type: "button", className: "quiet", onclick: () => (close(), run()) }, label),
    );
    const item = h("li", {}, h("span", {}, sentence), ...buttons, iconButton("close", "Close this note", close));
    this.list.append(item);
    this.list.hidden = false;
  }
}
