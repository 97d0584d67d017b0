// The dialog that loads another model and dictionary, from an address or from files.

import { byId } from "./dom.js";

/** @import { Source } from "./types.d.ts" */

/** Asks for a model and a dictionary. */
export class ModelDialog {
  /** @param {(model: Source | null, sae: Source | null, saeHook: string) => void} load null: the nano model, its own dictionary */
  constructor(load) {
    this.dialog = byId("model-dialog", HTMLDialogElement);
    this.message = byId("model-message", HTMLElement);
    const form = byId("model-form", HTMLFormElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const model = this.source("model");
      const sae = this.source("sae");
      if (model === undefined || sae === undefined) return;
      this.dialog.close();
      load(model, sae, byId("sae-hook", HTMLInputElement).value.trim());
    });
    byId("model-close", HTMLButtonElement).addEventListener("click", () => this.dialog.close());
    byId("model-nano", HTMLButtonElement).addEventListener("click", () => {
      this.dialog.close();
      form.reset();
      load(null, null, "");
    });
  }

  open() {
    this.message.textContent = "";
    this.dialog.showModal();
  }

  /**
   * @param {"model" | "sae"} name
   * @returns {Source | null | undefined} undefined when the address is none
   */
  source(name) {
    const files = byId(`${name}-files`, HTMLInputElement).files;
    // A message to the worker may lose the path inside the folder, but not the name.
    if (files?.length) return [...files].map((file) => new File([file], file.webkitRelativePath || file.name));
    const text = byId(`${name}-url`, HTMLInputElement).value.trim();
    if (!text) return null;
    try {
      return new URL(text.endsWith("/") ? text : `${text}/`, document.baseURI).href;
    } catch {
      this.message.textContent = `\u201c${text}\u201d is not an address.`;
      return undefined;
    }
  }
}
