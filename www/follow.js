// Follows a share link: its setting and its prompt at once; its model only when the visitor asks for
// it, unless it is here already.

import { bytes } from "./dom.js";
import { asEngineError } from "./line.js";
import { linkedChoice, parseLink, sameChoice } from "./links.js";

/** @import { Catalogue } from "./catalogue.js" */
/** @import { Choice } from "./choice.js" */
/** @import { Chooser } from "./chooser.js" */
/** @import { Composer } from "./composer.js" */
/** @import { Downloads } from "./downloads.js" */
/** @import { Notes } from "./notes.js" */
/** @import { Settings } from "./settings.js" */

/** What a link may change. */
export class Follower {
  /** @param {{catalogue: Catalogue, downloads: Downloads, settings: Settings, composer: Composer, chooser: Chooser, notes: Notes}} page */
  constructor(page) {
    this.page = page;
    /** What a link asks for that is not here. */
    this.wanted = /** @type {{choice: Choice, settings: Record<string, unknown>} | null} */ (null);
  }

  /**
   * @param {string} hash of the address
   * @param {Choice} choice what runs now
   * @returns {Promise<Choice | null>} what is to be loaded in its place
   */
  async follow(hash, choice) {
    const { catalogue, downloads, settings, composer, notes } = this.page;
    const link = parseLink(hash);
    link.notes.forEach((note) => notes.add(note));
    settings.linked = link.settings;
    if (link.prompt) composer.setText(link.prompt);
    try {
      const next = linkedChoice(link, catalogue);
      if (!next || sameChoice(next, choice)) return null;
      const away = [next.model, next.sae].flatMap((entry) => (typeof entry === "object" && entry.url && !entry.beside ? [entry] : []));
      if (away.length) await downloads.refresh().catch(() => {});
      if (away.every((entry) => downloads.item(entry)?.state === "whole")) return next;
      this.ask(next, link.settings);
    } catch (error) {
      settings.linked = {};
      notes.add(`The link's model cannot be loaded: ${asEngineError(error).message}`);
    }
    return null;
  }

  /**
   * @param {Choice} next
   * @param {Record<string, unknown>} setting
   * @private
   */
  ask(next, setting) {
    const { catalogue, settings, chooser, notes } = this.page;
    // The setting is about the model that is not here.
    this.wanted = { choice: next, settings: setting };
    settings.linked = {};
    const size = next.model.bytes ? `, ${bytes(next.model.bytes)} to download` : "";
    const show = () => {
      next.model = catalogue.adopt(next.model);
      if (typeof next.sae === "object") next.sae = catalogue.adopt(next.sae);
      chooser.open(next);
    };
    notes.add(`The link is about another model: ${next.model.name}${size}.`, [{ label: "Show it", run: show }]);
  }

  /**
   * The setting that the link has for what it asked for.
   * @param {Choice} choice
   * @returns {Record<string, unknown>}
   */
  settingsFor(choice) {
    return this.wanted && sameChoice(this.wanted.choice, choice) ? this.wanted.settings : {};
  }
}
