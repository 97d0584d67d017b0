// Keeps the keyboard's place: when what had the focus is gone, hidden or disabled, the focus goes on
// to a place that makes sense instead of falling to the top of the page.

/** Where the focus was last. */
let last = /** @type {Element | null} */ (null);

/**
 * Remembers where the focus is; call it once.
 * @param {() => HTMLElement} fallback
 * @returns {() => void} to be called after every change of the page
 */
export function startFocus(fallback) {
  document.addEventListener("focusin", (event) => {
    if (event.target instanceof Element) last = event.target;
  });
  return () => {
    const here = document.activeElement;
    const usable = (/** @type {Element} */ node) => node.isConnected && node.checkVisibility() && !(/** @type {any} */ (node).disabled);
    if (here && here !== document.body && usable(here)) return;
    // Whoever clicked beside everything wanted the focus nowhere.
    if (!last || usable(last)) return;
    last = null;
    fallback().focus();
  };
}
