// The dialog in which models and dictionaries are chosen, downloaded, kept and deleted.

import { MOST_CHOSEN, mayBring, sort } from "./catalogue.js";
import { forgetAddress } from "./choice.js";
import { ChooserRow } from "./chooser-row.js";
import { SteeringNote } from "./chooser-steering.js";
import { byId, bytes, h, number } from "./dom.js";
import { PRECISIONS, precisionWords } from "./precision.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Choice } from "./choice.js" */
/** @import { Downloads } from "./downloads.js" */
/** @import { Entry } from "./types.d.ts" */

/** Asks for a model and a dictionary. */
export class Chooser {
  /**
   * @param {Catalogue} catalogue
   * @param {Downloads} downloads
   * @param {(choice: Choice) => void} load
   */
  constructor(catalogue, downloads, load) {
    this.catalogue = catalogue;
    this.downloads = downloads;
    this.onLoad = load;
    this.dialog = byId("model-dialog", HTMLDialogElement);
    this.message = byId("model-message", HTMLElement);
    this.submit = byId("model-load", HTMLButtonElement);
    this.keep = byId("keep", HTMLInputElement);
    this.hook = byId("sae-hook", HTMLInputElement);
    this.precision = byId("precision", HTMLSelectElement);
    this.precision.append(...PRECISIONS.map(({ name, label }) => h("option", { value: name }, label)));
    const price = byId("precision-price", HTMLElement);
    this.precision.addEventListener("change", () => this.drawPrecision(price));
    this.storage = byId("storage", HTMLElement);
    this.lists = { model: byId("model-list", HTMLElement), dictionary: byId("sae-list", HTMLElement) };
    /** @type {Map<Entry, ChooserRow>} */
    this.rows = new Map();
    /** What is marked: an entry's id; of the dictionary also "auto" and "none". */
    this.marked = { model: "nano", dictionary: "auto" };
    this.steering = new SteeringNote(catalogue, (id) => {
      this.marked.dictionary = id;
      this.draw();
    });
    this.message.after(this.steering.node);
    /** Set while the dialog waits for downloads to load them. */
    this.waiting = false;

    byId("model-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    byId("model-close", HTMLButtonElement).addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => {
      this.waiting = false;
    });
    for (const kind of /** @type {const} */ (["model", "dictionary"])) {
      const name = kind === "model" ? "model" : "sae";
      this.lists[kind].addEventListener("change", (event) => {
        const { target } = event;
        if (!(target instanceof HTMLInputElement) || target.type !== "radio") return;
        this.marked[kind] = target.value;
        if (kind === "model") this.fitDictionary();
        this.draw();
      });
      const field = byId(`${name}-url`, HTMLInputElement);
      const add = () => this.addUrl(kind, field);
      byId(`${name}-add`, HTMLButtonElement).addEventListener("click", add);
      field.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        add();
      });
      for (const id of [`${name}-files`, `${name}-folder`]) {
        const picker = byId(id, HTMLInputElement);
        picker.addEventListener("change", () => {
          // A message to the worker may lose the path inside the folder, but not the name.
          const files = [...(picker.files ?? [])].map((file) => new File([file], file.webkitRelativePath || file.name));
          picker.value = "";
          if (files.length) this.addFiles(files, kind);
        });
      }
    }
    this.drawPrecision(price);
    this.keep.addEventListener("change", () => this.draw());
    downloads.addEventListener("change", () => {
      if (this.dialog.open) this.draw();
    });
    // Here or in another tab: what is deleted is to leave no trace. What the browser cleared by itself stays listed.
    downloads.addEventListener("removed", (event) => {
      const { kind, url } = /** @type {CustomEvent<import("./downloads.js").Removed>} */ (event).detail;
      catalogue.drop(kind, url);
      forgetAddress(kind, url);
    });
  }

  /** @param {Choice} [choice] what to mark */
  open(choice) {
    if (choice) {
      this.marked = { model: choice.model.id, dictionary: typeof choice.sae === "string" ? choice.sae : choice.sae.id };
      this.hook.value = choice.saeHook;
      this.keep.checked = choice.keep;
      this.precision.value = choice.precision ?? "auto";
      this.precision.dispatchEvent(new Event("change"));
    }
    if (this.marked.dictionary === "auto") this.fitDictionary();
    this.message.textContent = "";
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.row("model")?.radio.focus();
    this.downloads.refresh();
  }

  /**
   * Files of this machine, dropped or picked.
   * @param {File[]} files
   * @param {Entry["kind"]} [kind] what they were picked as
   */
  addFiles(files, kind) {
    if (files.length > MOST_CHOSEN) {
      this.openWith(`More than ${number(MOST_CHOSEN)} files were chosen: choose the folder of the model or dictionary itself.`);
      return;
    }
    const sorted = sort(files);
    const found = kind ? { model: kind === "model" ? files : null, dictionary: kind === "dictionary" ? files : null } : sorted;
    if (!sorted.model && !sorted.dictionary) {
      this.openWith(
        sorted.other
          ? `What was chosen is ${sorted.other}.`
          : "There is no model and no dictionary in what was chosen: a model is a .gguf file, or a folder with config.json, tokenizer.json and model.safetensors; a dictionary is a folder with cfg.json and its safetensors, or an .npz file.",
      );
      return;
    }
    for (const one of /** @type {const} */ (["model", "dictionary"])) {
      const some = found[one];
      if (!some) continue;
      this.marked[one] = this.catalogue.addFiles(one, some).id;
      if (one === "model" && !found.dictionary) this.marked.dictionary = "auto";
    }
    this.openWith("");
    this.submit.focus();
  }

  /** @param {string} message */
  openWith(message) {
    if (!this.dialog.open) this.open();
    this.message.textContent = message;
    this.draw();
  }

  /**
   * @param {Entry["kind"]} kind
   * @param {HTMLInputElement} field
   */
  addUrl(kind, field) {
    if (!field.value.trim()) return;
    try {
      this.marked[kind] = this.catalogue.addUrl(kind, field.value).id;
      field.value = "";
      this.message.textContent = "";
    } catch (error) {
      this.message.textContent = error instanceof Error ? error.message : String(error);
    }
    if (kind === "model") this.fitDictionary();
    this.draw();
    this.row(kind)?.node.scrollIntoView({ block: "nearest" });
  }

  /** A dictionary of another model is no choice, and neither is one that does not exist. */
  fitDictionary() {
    const { marked, catalogue } = this;
    const model = catalogue.find(marked.model);
    const fits = catalogue.list("dictionary", model).some((entry) => entry.id === marked.dictionary);
    if (!fits && (marked.dictionary !== "none" || mayBring(model))) marked.dictionary = mayBring(model) ? "auto" : "none";
  }

  /** @param {Entry["kind"]} kind */
  row(kind) {
    const entry = this.catalogue.find(this.marked[kind]);
    return entry && this.rows.get(entry);
  }

  /** Entries that are marked: the model, and the dictionary if one of the list. */
  chosen() {
    return [this.marked.model, this.marked.dictionary].flatMap((id) => this.catalogue.find(id) ?? []);
  }

  /** What of the marked is still to be downloaded. */
  missing() {
    return this.keep.checked ? this.chosen().filter((entry) => entry.url && this.downloads.item(entry)?.state !== "whole") : [];
  }

  /** Downloads what is missing, then loads. */
  async go() {
    this.message.textContent = "";
    if (this.waiting) return;
    this.waiting = true;
    this.draw();
    for (const entry of this.missing()) {
      this.rows.get(entry)?.node.scrollIntoView({ block: "nearest" });
      const running = this.downloads.job(entry)?.running;
      const whole = running ? await this.ended(entry) : await this.downloads.run(entry);
      if (!whole || !this.waiting) {
        this.waiting = false;
        this.draw();
        return;
      }
    }
    this.waiting = false;
    this.load();
  }

  /**
   * The end of a download that began before.
   * @param {Entry} entry
   * @returns {Promise<boolean>}
   */
  ended(entry) {
    return new Promise((resolve) => {
      const look = () => {
        if (this.downloads.job(entry)?.running) return;
        this.downloads.removeEventListener("change", look);
        resolve(this.downloads.item(entry)?.state === "whole");
      };
      this.downloads.addEventListener("change", look);
    });
  }

  /** @param {boolean} [keep] */
  load(keep = this.keep.checked) {
    const model = this.catalogue.find(this.marked.model);
    if (!model) return;
    const { dictionary } = this.marked;
    const sae = dictionary === "auto" || dictionary === "none" ? dictionary : (this.catalogue.find(dictionary) ?? "none");
    this.dialog.close();
    const precision = /** @type {import("./precision.js").Precision} */ (this.precision.value);
    this.onLoad({ model, sae, saeHook: this.hook.value.trim(), keep, precision });
  }

  /** @param {HTMLElement} price beside the choice of a precision */
  drawPrecision(price) {
    price.textContent = precisionWords(/** @type {import("./precision.js").Precision} */ (this.precision.value));
  }

  draw() {
    const { catalogue, downloads } = this;
    const model = catalogue.find(this.marked.model);
    this.fill("model", [], catalogue.list("model"));
    const own = mayBring(model) ? [this.simple("auto", model?.builtIn ? "The model\u2019s own" : "The model\u2019s own, if it came with one")] : [];
    const simple = [...own, this.simple("none", "None: chat without steering")];
    this.steering.draw(model, this.marked.dictionary);
    this.fill("dictionary", simple, catalogue.list("dictionary", model));
    for (const row of this.rows.values()) row.radio.checked = row.entry.id === this.marked[row.entry.kind];

    const missing = this.missing();
    const known = missing.reduce((sum, entry) => sum + Math.max(0, (downloads.item(entry)?.total ?? entry.bytes ?? 0) - (downloads.item(entry)?.loaded ?? 0)), 0);
    const remote = this.chosen().some((entry) => entry.url && downloads.item(entry)?.state !== "whole");
    this.keep.disabled = !remote;
    this.submit.textContent = this.waiting ? "Downloading\u2026" : missing.length ? `Download${known ? ` ${bytes(known)}` : ""} and load` : "Load";
    this.submit.disabled = this.waiting;
    this.drawStorage();
  }

  drawStorage() {
    const { listing, unusable } = this.downloads;
    if (!listing) this.storage.textContent = "Looking at what is on this disk\u2026";
    else if (unusable) this.storage.textContent = `${unusable.message} Models load straight from their address.`;
    else {
      const stored = listing.items.reduce((sum, item) => sum + item.loaded, 0);
      const room = listing.quota === null ? "" : ` ${bytes(Math.max(0, listing.quota - (listing.usage ?? 0)))} more would fit.`;
      const kept = listing.persisted ? " The browser keeps them until you delete them." : " The browser may clear them when the disk runs full.";
      this.storage.textContent = stored ? `${bytes(stored)} of models on this disk.${room}${kept}` : `Nothing is on this disk yet.${room}`;
      // What is stored and no longer listed can still be deleted.
      for (const item of listing.items) if (!this.catalogue.at(item.kind, item.url)) this.catalogue.addUrl(item.kind, item.url);
    }
  }

  /**
   * Brings a list's rows in line with the entries, keeping the rows that stay.
   * @param {Entry["kind"]} kind
   * @param {Node[]} first
   * @param {Entry[]} entries
   */
  fill(kind, first, entries) {
    const rows = entries.map((entry) => {
      let row = this.rows.get(entry);
      if (!row) this.rows.set(entry, (row = new ChooserRow(entry, this.downloads, this.actions())));
      row.update();
      return row.node;
    });
    for (const [entry] of this.rows) if (!this.catalogue.entries.includes(entry)) this.rows.delete(entry);
    const wanted = [...first, ...rows];
    const list = this.lists[kind];
    if (wanted.length !== list.childElementCount || wanted.some((node, index) => list.children[index] !== node)) list.replaceChildren(...wanted);
  }

  /**
   * A row of the dictionary list that is no dictionary.
   * @param {"auto" | "none"} id
   * @param {string} text
   */
  simple(id, text) {
    const known = this.lists.dictionary.querySelector(`li[data-id="${id}"]`);
    const node = known ?? h("li", { className: "entry", "data-id": id }, h("label", {}, h("input", { type: "radio", name: "choose-sae", value: id }), h("span", { className: "entry-text" }, text)));
    /** @type {HTMLInputElement} */ (node.querySelector("input")).checked = this.marked.dictionary === id;
    return node;
  }

  /** @returns {import("./chooser-row.js").RowActions} */
  actions() {
    const { downloads, catalogue } = this;
    return {
      download: (entry) => downloads.run(entry),
      pause: (entry) => downloads.pause(entry),
      verify: (entry) => downloads.run(entry, "verify"),
      remove: (entry) => downloads.remove(entry),
      forget: async (entry) => {
        if (downloads.item(entry)) await downloads.remove(entry);
        if (this.marked[entry.kind] === entry.id) this.marked[entry.kind] = entry.kind === "model" ? "nano" : "none";
        catalogue.forget(entry);
        if (entry.url) forgetAddress(entry.kind, entry.url);
        this.fitDictionary();
        this.draw();
        this.row(entry.kind)?.radio.focus();
      },
      stream: (entry) => {
        this.marked[entry.kind] = entry.id;
        this.load(false);
      },
      pick: (entry, url) => {
        downloads.jobs.delete(downloads.key(entry));
        const one = catalogue.addUrl(entry.kind, url);
        one.families ??= entry.families;
        one.warning ??= entry.warning;
        this.marked[entry.kind] = one.id;
        this.draw();
        this.row(entry.kind)?.radio.focus();
      },
    };
  }
}
