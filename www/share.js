// The button that makes a link to what is on the page.

import { linkTo, placesOf } from "./links.js";

/** @import { Choice } from "./choice.js" */
/** @import { Settings } from "./settings.js" */

/**
 * @param {HTMLButtonElement} button
 * @param {Settings} settings
 * @param {{choice: () => Choice, prompt: () => string}} page what runs, and the message that a visitor of the link should find
 */
export function startShare(button, settings, { choice, prompt }) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const link = linkTo([...placesOf(choice()), ...settings.pairs()], prompt());
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Link copied";
    } catch {
      button.textContent = "The link is in the address bar";
    }
    setTimeout(() => {
      button.textContent = label;
    }, 2000);
  });
}
