// Downloads under way, in a line above the message field: the chat goes on meanwhile.

import { byId, h } from "./dom.js";
import { describe } from "./downloads.js";

/** @import { Downloads } from "./downloads.js" */
/** @import { Entry } from "./types.d.ts" */

/** Shows the running download, or the last one that has ended. */
export class DownloadStrip {
  /**
   * @param {Downloads} downloads
   * @param {{show: () => void, load: (entry: Entry) => void, taken: (entry: Entry) => boolean}} actions taken: something
   *   else loads what has come
   */
  constructor(downloads, actions) {
    this.downloads = downloads;
    /** @type {Entry | null} downloaded while the dialog was closed */
    this.ready = null;
    this.node = byId("downloads", HTMLElement);
    this.text = h("span", {});
    this.bar = h("progress", { max: 1, "aria-label": "Download" });
    this.button = h("button", { type: "button", className: "quiet" });
    this.button.addEventListener("click", () => {
      const ready = this.ready;
      this.ready = null;
      this.draw();
      if (ready?.kind === "model") actions.load(ready);
      else actions.show();
    });
    this.node.append(this.text, this.bar, this.button);
    downloads.addEventListener("change", () => this.draw());
    downloads.addEventListener("whole", (event) => {
      const entry = /** @type {CustomEvent<Entry>} */ (event).detail;
      // The dialog itself loads what it waited for.
      if (!document.querySelector("dialog[open]") && !actions.taken(entry)) this.offer(entry);
    });
  }

  /** @param {Entry} entry that was downloaded and waits to be loaded */
  offer(entry) {
    this.ready = entry;
    this.draw();
  }

  draw() {
    const jobs = [...this.downloads.jobs.values()];
    const running = jobs.find((job) => job.running);
    const failed = jobs.find((job) => job.error && job.error.code !== "ambiguous");
    this.node.hidden = !running && !this.ready && !failed;
    this.bar.hidden = !running;
    if (running) {
      const total = running.progress?.total ?? running.entry.bytes;
      if (total && running.progress) this.bar.value = Math.min(1, running.progress.loaded / total);
      else this.bar.removeAttribute("value");
      this.text.textContent = `${running.entry.name}: ${describe(running, running.entry.bytes)}`;
      this.button.textContent = "Show";
    } else if (failed) {
      this.text.textContent = `${failed.entry.name}: ${failed.error?.message}`;
      this.button.textContent = "Show";
    } else if (this.ready) {
      this.text.textContent = `${this.ready.name} is on this disk.`;
      this.button.textContent = this.ready.kind === "model" ? "Load it" : "Show";
    }
  }
}
