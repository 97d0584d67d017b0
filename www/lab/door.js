// The way into the lab, whose modules and style sheets are no part of the first load.

/** @import { Given, Lab } from "./lab.js" */

/** Fetches the lab when it is first asked for. */
export class LabDoor {
  /** @param {{given: () => Omit<Given, "shelf">, trouble: (error: unknown) => void}} page given: what the lab needs of it; trouble: tells that the lab did not come */
  constructor(page) {
    this.page = page;
    /** The lab, once it is there. */
    this.lab = /** @type {Lab | null} */ (null);
    /**
     * @type {Promise<Lab> | null}
     * @private
     */
    this.coming = null;
  }

  /** @returns {Promise<Lab>} the lab; what did not come may come later */
  open() {
    if (this.coming) return this.coming;
    const coming = this.fetch();
    this.coming = coming;
    coming.catch((error) => {
      this.coming = null;
      this.page.trouble(error);
    });
    return coming;
  }

  /** @private */
  async fetch() {
    const [{ Lab, styled }, { Shelf }] = await Promise.all([import("./lab.js"), import("./shelf.js")]);
    const [shelf] = await Promise.all([Shelf.open(), styled()]);
    this.lab = new Lab({ ...this.page.given(), shelf });
    return this.lab;
  }
}
