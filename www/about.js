// "What all this is": the dialog that explains the page, and the words in the page that lead to its entries.

import { byId, icon } from "./dom.js";

/** Connects the dialog, its button and every element with a data-term; call it once. */
export function startAbout() {
  const dialog = byId("about", HTMLDialogElement);
  const opener = byId("about-open", HTMLButtonElement);
  opener.append(icon("help"));
  opener.addEventListener("click", () => openAbout(dialog, "top"));
  byId("about-close", HTMLButtonElement).addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.addEventListener("click", (event) => {
    const term = event.target instanceof Element ? event.target.closest("[data-term]") : null;
    if (term instanceof HTMLElement) openAbout(dialog, term.dataset.term ?? "top");
  });
}

/**
 * Opens the dialog at an entry, or at its top where it has no such entry.
 * @param {HTMLDialogElement} dialog
 * @param {string} name
 */
function openAbout(dialog, name) {
  if (!dialog.open) dialog.showModal();
  for (const entry of dialog.querySelectorAll("[data-entry]")) entry.classList.remove("asked");
  const entry = dialog.querySelector(`[data-entry="${CSS.escape(name)}"]`) ?? dialog.querySelector("[data-entry]");
  if (!(entry instanceof HTMLElement)) return;
  entry.classList.toggle("asked", name !== "top");
  entry.scrollIntoView({ block: name === "top" ? "end" : "start" });
  entry.focus({ preventScroll: true });
}
