// Dictionaries that were trained in the page: kept on the disk under an address of the page's own, and loaded.

import { TRAINED_HERE } from "./catalogue.js";
import { EngineError } from "./line.js";
import { fileName } from "./save.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Choice } from "./choice.js" */
/** @import { Downloads } from "./downloads.js" */
/** @import { Entry, TrainedDictionary } from "./types.d.ts" */

/** What is done with them. */
export class TrainedHere {
  /**
   * @param {Catalogue} catalogue
   * @param {Downloads} downloads
   * @param {{choice: () => Choice, load: (choice: Choice) => Promise<void>}} page
   */
  constructor(catalogue, downloads, page) {
    this.catalogue = catalogue;
    this.downloads = downloads;
    this.page = page;
  }

  /** The model's name. */
  model() {
    return this.page.choice().model.name;
  }

  /**
   * Keeps a dictionary on the disk, where the chooser lists it from then on.
   * @param {TrainedDictionary} trained
   * @param {string} name
   * @returns {Promise<Entry>}
   */
  async keep({ hook, files }, name) {
    const url = new URL(`${TRAINED_HERE}${encodeURIComponent(fileName(name, "dictionary"))}/${hook}/`, document.baseURI).href;
    if (!this.downloads.listing) await this.downloads.refresh();
    const taken = this.downloads.listing?.items.some((item) => item.kind === "dictionary" && item.url === url);
    if (taken) throw new EngineError("bad-request", `A dictionary called \u201c${name}\u201d is kept already: give this one another name.`);
    const entry = this.catalogue.addUrl("dictionary", url);
    try {
      await this.downloads.put(
        entry,
        files.map(({ name: path, bytes }) => ({ path, bytes })),
      );
    } catch (error) {
      this.catalogue.forget(entry);
      throw error;
    }
    return entry;
  }

  /**
   * Loads the model that runs with the dictionary, which lies on the disk if `entry` says where.
   * @param {TrainedDictionary} trained
   * @param {string} name
   * @param {Entry | null} entry
   */
  load({ hook, files }, name, entry) {
    const given = () => files.map((file) => new File([/** @type {BlobPart} */ (file.bytes)], `${name}/${hook}/${file.name}`));
    return this.page.load({ ...this.page.choice(), sae: entry ?? this.catalogue.addFiles("dictionary", given()), saeHook: hook });
  }
}
