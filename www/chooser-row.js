// One model or dictionary in the chooser: what it is, what of it is on disk, what can be done.

import { isTrainedHere } from "./catalogue.js";
import { describe } from "./downloads.js";
import { bytes, h, number } from "./dom.js";
import { adviceOn } from "./errors.js";
import { decoded } from "./store/address.js";
import { shown } from "./store/shown.js";

/** @import { Downloads } from "./downloads.js" */
/** @import { Entry } from "./types.d.ts" */

/**
 * @typedef {object} RowActions
 * @property {(entry: Entry) => void} download
 * @property {(entry: Entry) => void} pause
 * @property {(entry: Entry) => void} remove
 * @property {(entry: Entry) => void} verify
 * @property {(entry: Entry) => void} forget
 * @property {(entry: Entry) => void} stream loads without storing
 * @property {(entry: Entry, url: string) => void} pick one of several that the address holds
 */

/**
 * A row with a radio button; it keeps its nodes, so that focus stays where it is.
 */
export class ChooserRow {
  /**
   * @param {Entry} entry
   * @param {Downloads} downloads
   * @param {RowActions} actions
   */
  constructor(entry, downloads, actions) {
    this.entry = entry;
    this.downloads = downloads;
    this.actions = actions;
    const group = entry.kind === "model" ? "model" : "sae";
    this.radio = h("input", { type: "radio", name: `choose-${group}`, value: entry.id, disabled: Boolean(entry.unusable) });
    this.state = h("span", { className: "entry-state" });
    this.bar = h("progress", { max: 1, hidden: true, "aria-label": `Download of ${entry.name}` });
    this.trouble = h("div", { className: "entry-trouble", role: "alert" });
    this.buttons = h("div", { className: "entry-buttons" });
    const lines = [entry.about, facts(entry)].filter(Boolean).map((text) => h("small", {}, /** @type {string} */ (text)));
    if (entry.warning) lines.push(h("small", { className: "entry-warning" }, entry.warning));
    if (entry.unusable) lines.push(h("small", { className: "entry-warning" }, entry.unusable));
    this.node = h(
      "li",
      { className: "entry" },
      h("label", {}, this.radio, h("span", { className: "entry-text" }, h("b", {}, entry.name), ...lines, this.state)),
      this.bar,
      this.trouble,
      this.buttons,
    );
    /** What the buttons and the error were made for. */
    this.drawn = "";
    this.update();
  }

  update() {
    const { entry, downloads, actions } = this;
    const job = downloads.job(entry);
    const item = downloads.item(entry);
    const running = job?.running ?? false;
    this.state.textContent = this.stateText();
    this.state.classList.toggle("good", item?.state === "whole" && !running);
    this.bar.hidden = !running;
    const total = job?.progress?.total ?? entry.bytes;
    if (running && total && job?.progress) this.bar.value = Math.min(1, job.progress.loaded / total);
    else this.bar.removeAttribute("value");

    const drawn = JSON.stringify([running, item?.state, item?.elsewhere, job?.error?.code, job?.error?.message, downloads.listing !== null]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const button = (/** @type {string} */ label, /** @type {(entry: Entry) => void} */ run) =>
      h("button", { type: "button", className: "quiet", "aria-label": `${label}: ${entry.name}`, onclick: () => run(entry) }, label);
    const buttons = [];
    // Nobody else has what was trained here.
    const lost = this.lost();
    this.radio.disabled = lost || Boolean(entry.unusable);
    // What another tab works on is stopped there.
    if (entry.url && !entry.unusable && (running || !item?.elsewhere)) {
      if (running) buttons.push(button("Pause", actions.pause), button("Cancel", actions.remove));
      else if (item?.state === "whole") buttons.push(button("Check", actions.verify), button("Delete", actions.remove));
      else if (item) buttons.push(button("Resume", actions.download), button("Delete", actions.remove));
      else if (!lost) buttons.push(button("Download", actions.download));
    }
    if (entry.own && !running) buttons.push(button("Take off the list", actions.forget));
    const focused = this.buttons.contains(document.activeElement);
    this.buttons.replaceChildren(...buttons);
    if (focused) (buttons[0] ?? this.radio).focus();
    this.trouble.replaceChildren(...(job?.error ? this.errorNodes(job.error) : []));
  }

  /** Whether it was trained here and is not on this disk any more. */
  lost() {
    const { entry, downloads } = this;
    return downloads.listing !== null && !downloads.item(entry) && isTrainedHere(entry.url ?? "");
  }

  stateText() {
    const { entry, downloads } = this;
    const job = downloads.job(entry);
    if (job?.running) return describe(job, entry.bytes);
    const item = downloads.item(entry);
    if (!entry.url) return "";
    if (this.lost()) return "No longer on this disk: the browser cleared it. There is no other copy; it can be trained again.";
    if (!item) return "";
    const total = item.total ?? entry.bytes;
    if (item.elsewhere) return `Another tab is working on it: ${bytes(item.loaded)}${total ? ` of ${bytes(total)}` : ""} on this disk`;
    if (item.state === "part") {
      return `Paused: ${bytes(item.loaded)}${total ? ` of ${bytes(total)}` : ""} on this disk`;
    }
    // The manifest itself is what the others are compared with.
    if (entry.sha256 && item.files.some((file) => file.sha256 === entry.sha256)) return `On this disk: ${bytes(item.loaded)}, the file that was tested here`;
    if (isTrainedHere(entry.url)) return `On this disk: ${bytes(item.loaded)}`;
    const proven = item.files.every((file) => file.proof !== null || file.path === "manifest.json");
    return `On this disk: ${bytes(item.loaded)}, ${proven ? "hash verified" : "hash taken at the download, no published one to compare with"}`;
  }

  /** @param {import("./line.js").EngineError} error */
  errorNodes(error) {
    const { entry, actions } = this;
    const choices = error.choices ?? [];
    const nodes = [h("p", {}, h("b", {}, adviceOn(error).title), ` ${error.message}`), ...adviceOn(error).steps.map((step) => h("p", {}, step))];
    if (choices.length) {
      const names = labels(choices);
      const select = h("select", { "aria-label": `Which of ${entry.name}` }, ...choices.map((url, index) => h("option", { value: url }, names[index])));
      nodes.push(h("p", { className: "entry-choice" }, select, h("button", { type: "button", className: "button", onclick: () => actions.pick(entry, select.value) }, "Take this one")));
    }
    if (["quota", "no-storage"].includes(error.code)) {
      nodes.push(h("p", {}, h("button", { type: "button", className: "button", onclick: () => actions.stream(entry) }, "Load without keeping it")));
    }
    return nodes;
  }
}

/** @param {Entry} entry */
function facts(entry) {
  const parts = [];
  const exact = entry.builtIn || entry.files || entry.beside || entry.sha256;
  if (entry.bytes) parts.push(exact ? bytes(entry.bytes) : `about ${bytes(entry.bytes)}, unverified`);
  else if (!entry.files && !entry.own) parts.push("size not known");
  if (entry.layer) parts.push(`layer ${entry.layer}`);
  if (entry.width) parts.push(`${number(entry.width)} features`);
  if (entry.licence !== undefined) parts.push(entry.licence ? `licence ${entry.licence}` : "licence not stated");
  if (entry.beside) parts.push("served with this page");
  return parts.join(" \u00b7 ");
}

/**
 * What tells addresses apart: their paths without the folders that all of them share.
 * @param {string[]} urls
 * @returns {string[]}
 */
export function labels(urls) {
  const paths = urls.map((url) => new URL(url).pathname.split("/").filter(Boolean).map(decoded));
  let shared = 0;
  while (paths.every((path) => path.length > shared + 1 && path[shared] === paths[0][shared])) shared += 1;
  return paths.map((path) => shown(path.slice(shared).join("/")));
}
