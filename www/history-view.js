// The list of kept conversations: open one, take it along as a file, delete it.

import { byId, h, icon } from "./dom.js";
import { MAX_KEPT } from "./history.js";
import { fileName, saveFile } from "./save.js";
import { shown } from "./store/shown.js";
import { toJson, toMarkdown } from "./transcript.js";

/** @import { Head, History } from "./history.js" */
/** @import { Keeper } from "./keeper.js" */
/** @import { Saved } from "./transcript.js" */

const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The dialog behind the button in the header. */
export class HistoryView {
  /**
   * @param {Keeper} keeper
   * @param {{open: (saved: Saved) => void, cleared: () => void}} actions
   */
  constructor(keeper, actions) {
    this.keeper = keeper;
    this.history = keeper.history;
    this.actions = actions;
    const button = byId("history", HTMLButtonElement);
    button.replaceChildren(icon("history"));
    button.addEventListener("click", () => this.show());
  }

  async show() {
    const close = () => dialog.close();
    const list = h("ul", { className: "entries kept" });
    const about = h("p", { className: "muted" });
    const all = h("button", { type: "button", className: "button" }, "Delete all");
    // The second press does it.
    all.addEventListener("click", async () => {
      if (all.dataset.sure) {
        await this.keeper.forget(null);
        this.actions.cleared();
        delete all.dataset.sure;
        await draw();
      } else all.dataset.sure = "yes";
      all.textContent = all.dataset.sure ? "Really delete all?" : "Delete all";
    });
    const dialog = h(
      "dialog",
      { className: "sheet", "aria-labelledby": "history-title" },
      h("header", {}, h("h2", { id: "history-title" }, "Conversations"), h("button", { type: "button", className: "button", onclick: close }, "Close")),
      about,
      list,
      h("div", { className: "actions" }, all),
    );
    const draw = async () => {
      const heads = await this.history.list().catch(() => []);
      about.textContent = this.history.lasting
        ? `They are kept in this browser and nowhere else, the last ${MAX_KEPT} of them.`
        : "This browser keeps nothing for this page: they last until it is closed.";
      if (!heads.length) about.textContent += " There is none yet.";
      all.hidden = !heads.length;
      list.replaceChildren(...heads.map((head) => this.row(head, close, draw)));
    };
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) close();
    });
    document.body.append(dialog);
    await draw();
    dialog.showModal();
  }

  /**
   * @param {Head} head
   * @param {() => void} close
   * @param {() => Promise<void>} draw
   */
  row(head, close, draw) {
    const here = head.id === this.keeper.id;
    /** @type {(use: (saved: Saved) => void) => Promise<void>} */
    const read = async (use) => {
      const saved = await this.history.read(head.id).catch(() => undefined);
      if (saved) use(saved);
      else await draw();
    };
    const name = fileName(head.title, "conversation");
    const remove = async () => {
      await this.keeper.forget(head.id);
      if (here) this.actions.cleared();
      await draw();
    };
    const press = (/** @type {string} */ label, /** @type {() => void} */ onclick) =>
      h("button", { type: "button", className: "quiet", "aria-label": `${label}: ${shown(head.title)}`, onclick }, label);
    return h(
      "li",
      { className: "entry" },
      h("div", {}, h("b", {}, shown(head.title)), h("p", { className: "muted" }, `${when.format(head.at)}, ${head.turns} turn${head.turns === 1 ? "" : "s"}, ${shown(head.model)}${here ? ", on the page now" : ""}`)),
      h(
        "div",
        { className: "actions" },
        here ? null : press("Open", () => read((saved) => (close(), this.actions.open(saved)))),
        press("Markdown", () => read((saved) => saveFile(`${name}.md`, "text/markdown", toMarkdown(saved)))),
        press("JSON", () => read((saved) => saveFile(`${name}.json`, "application/json", toJson(saved)))),
        press("Delete", remove),
      ),
    );
  }
}
