// Asks the browser to keep the page itself, so that it opens without a network.

import { byId, h } from "./dom.js";
import { scriptUrl } from "./line.js";

let started = false;

/** Installs the service worker, once the page has what it needs itself. */
export async function startOffline() {
  if (started || !("serviceWorker" in navigator)) return;
  started = true;
  try {
    const registration = await navigator.serviceWorker.register(scriptUrl("offline"), { updateViaCache: "none" });
    offer(registration);
    registration.addEventListener("updatefound", () => {
      const worker = registration.installing;
      worker?.addEventListener("statechange", () => offer(registration));
    });
  } catch (error) {
    // Private windows and some settings forbid it: the page then needs the network each time.
    console.info("The page is not kept for offline use:", error);
  }
}

/**
 * A new version waits until no page of the old one is open, or until the visitor wants it.
 * @param {ServiceWorkerRegistration} registration
 */
function offer(registration) {
  const { waiting } = registration;
  const note = byId("update", HTMLElement);
  if (!waiting || !navigator.serviceWorker.controller || !note.hidden) return;
  const button = h("button", { type: "button", className: "quiet" }, "Reload to use it");
  const text = h("span", {}, "A new version of this page is ready. ");
  button.addEventListener("click", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      text.textContent = "A new version of this page is ready. Close its other tabs first. ";
    };
    waiting.postMessage("take over", [port2]);
  });
  note.replaceChildren(text, button);
  note.hidden = false;
}
