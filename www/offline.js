// Asks the browser to keep the page itself, so that it opens without a network.

import { byId, h } from "./dom.js";
import { scriptUrl } from "./line.js";

/** Milliseconds that a first visit waits for the service worker, which keeps what is then fetched. */
const START = 3000;

/** @type {(whole: boolean) => void} */
let tell;
/** Settles when all of the page is kept, or is known not to be. @type {Promise<boolean>} */
export const kept = new Promise((resolve) => {
  tell = resolve;
});

/** @type {Promise<ServiceWorkerRegistration | null> | null} */
let registered = null;

/**
 * Installs the service worker. On a first visit it is waited for, shortly, so that what is fetched from
 * then on passes through it and is fetched once.
 */
export async function startOffline() {
  if (!("serviceWorker" in navigator)) return;
  registered ??= register();
  const registration = await registered;
  if (!registration || registration.active || navigator.serviceWorker.controller) return;
  await new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    setTimeout(resolve, START);
  });
}

/** @returns {Promise<ServiceWorkerRegistration | null>} null where there is to be none */
async function register() {
  try {
    const registration = await navigator.serviceWorker.register(scriptUrl("offline"), { updateViaCache: "none" });
    offer(registration);
    registration.addEventListener("updatefound", () => {
      const worker = registration.installing;
      worker?.addEventListener("statechange", () => offer(registration));
    });
    return registration;
  } catch (error) {
    // Private windows and some settings forbid it: the page then needs the network each time.
    console.info("The page is not kept for offline use:", error);
    return null;
  }
}

let asked = false;

/** Has the rest of the page kept, once it has what it needs itself. */
export async function keepOffline() {
  const registration = await registered;
  if (asked || !registration) return;
  asked = true;
  let answer = await ask((await navigator.serviceWorker.ready).active);
  const { waiting } = registration;
  if (answer.left && waiting) {
    // The build of that worker is gone from the server, which this page comes from: the next one is of it.
    const changed = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
    waiting.postMessage("take over", [new MessageChannel().port2]);
    await changed;
    answer = await ask(navigator.serviceWorker.controller);
  }
  if (!answer.whole) console.info("The page is not kept for offline use:", answer.why ?? "the server has another build of it");
  tell(answer.whole);
}

/**
 * @param {ServiceWorker | null} worker
 * @returns {Promise<{whole: boolean, left?: boolean, why?: string}>}
 */
function ask(worker) {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    worker?.postMessage("keep", [port2]);
  });
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
