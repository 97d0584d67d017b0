// Starts the page: loads the engine, and connects the conversation, the panel and the views.

import { ChatView } from "./chat-view.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, icon } from "./dom.js";
import { asEngineError, Engine, EngineError } from "./engine-client.js";
import { isFatal } from "./errors.js";
import { ModelDialog } from "./model-dialog.js";
import { readReport } from "./report.js";
import { Settings } from "./settings.js";
import { StatusView } from "./status-view.js";
import { SteeringPanel } from "./steering-panel.js";
import { startTips } from "./token-tip.js";

/** @import { Turn } from "./conversation.js" */
/** @import { Report, Source } from "./types.d.ts" */

/**
 * What to load.
 * @typedef {object} Choice
 * @property {Source} model
 * @property {Source | null} sae null: the one the report names, if there is one
 * @property {string} saeHook "" where the dictionary's folder says it
 */

const nano = new URL("models/nano/", document.baseURI).href;

const settings = new Settings();
const conversation = new Conversation(settings);
const announcer = byId("announcer", HTMLElement);

/** @type {Choice} */
let choice = { model: nano, sae: null, saeHook: "" };
/** @type {AbortController | null} */
let loading = null;
/** Scripted turns that are still to be sent. */
let script = /** @type {string[]} */ ([]);
let scriptLength = 0;

const composer = new Composer({ send: (turns) => play(turns), stop });
const panel = new SteeringPanel(settings);
const status = new StatusView(settings, { cancel: () => loading?.abort(), load });
const view = new ChatView(conversation, byId("turns", HTMLElement), byId("scroller", HTMLElement), announcer, {
  resend: (turn, prompt) => {
    if (conversation.running || !conversation.engine) return;
    conversation.truncateAt(turn);
    play([prompt]);
  },
  choose: (feature) => settings.set({ feature }),
  canRun: () => conversation.engine !== null && !conversation.running,
});
const dialog = new ModelDialog(async (model, sae, saeHook) => {
  choice = { model: model ?? nano, sae, saeHook };
  await stop();
  newChat();
  load();
});

/** Loads what is chosen, replacing the engine that runs. */
async function load() {
  loading?.abort();
  const abort = new AbortController();
  loading = abort;
  const old = conversation.engine;
  conversation.engine = null;
  status.loading(null);
  byId("toy", HTMLElement).hidden = choice.model !== nano;
  refresh();
  // Two models at once may be more than the GPU holds.
  await old?.dispose().catch(() => {});
  if (loading !== abort) return;
  try {
    if (!("gpu" in navigator)) throw new EngineError("no-webgpu", missingWebGpu());
    const report = await readReport(choice.model);
    if (loading !== abort) return;
    settings.start(report);
    const sae = choice.sae ?? dictionaryOf(report);
    const engine = await Engine.load(
      { model: choice.model, ...(sae ? { sae } : {}), ...(choice.saeHook ? { saeHook: choice.saeHook } : {}), lanes: 2, onProgress: (progress) => loading === abort && status.loading(progress) },
      abort.signal,
    );
    if (loading !== abort) return;
    const hook = engine.info.sae?.hook ?? "";
    if (hook !== settings.choices.hook) settings.start(null, hook);
    panel.setLimits({ features: engine.info.sae?.features ?? 0, context: engine.info.model.context });
    conversation.engine = engine;
    status.ready(engine.info, choice.model === nano ? "Nano Phi-3" : engine.info.model.name);
    announcer.textContent = "The model is ready.";
    if (!matchMedia("(pointer: coarse)").matches && document.activeElement === document.body) composer.field.focus();
  } catch (error) {
    if (loading !== abort) return;
    status.failed(asEngineError(error));
  } finally {
    if (loading === abort) loading = null;
    refresh();
  }
}

/** @param {Report | null} report */
const dictionaryOf = (report) =>
  report && typeof choice.model === "string" ? new URL(`sae/${encodeURIComponent(report.hook)}/`, choice.model).href : null;

function missingWebGpu() {
  return isSecureContext
    ? "The browser offers none to this page."
    : "Browsers offer it only to pages served over https or from localhost, and this page is neither.";
}

/**
 * Sends turns one after the other, each after the answer to the last.
 * @param {string[]} turns
 */
async function play(turns) {
  if (conversation.running || !conversation.engine) return;
  if (turns.length > 1) newChat();
  script = [...turns];
  scriptLength = turns.length;
  while (script.length) {
    const next = /** @type {string} */ (script.shift());
    const sent = conversation.send(next);
    refresh();
    const turn = await sent;
    if (!turn || turn.state === "failed" || conversation.stopping) script = [];
    if (turn?.error && isFatal(turn.error.code)) lose(turn.error);
  }
  scriptLength = 0;
  refresh();
}

/** @param {EngineError} error */
function lose(error) {
  const old = conversation.engine;
  conversation.engine = null;
  old?.dispose().catch(() => {});
  status.lost(error);
  refresh();
}

/** Ends the running turn and what was to follow it; done when the turn has ended. */
async function stop() {
  script = [];
  if (!conversation.running) return;
  const ended = new Promise((resolve) => conversation.addEventListener("end", resolve, { once: true }));
  await conversation.stop();
  await ended;
}

function newChat() {
  if (conversation.running) return;
  conversation.clear();
  refresh();
}

/** Brings the composer and the empty state up to date. */
function refresh() {
  const ready = conversation.engine !== null;
  const step = scriptLength - script.length;
  composer.setState({
    ready,
    running: conversation.running,
    note: conversation.running && scriptLength > 1 ? `Playing scripted turn ${step} of ${scriptLength}` : "",
  });
  view.refresh();
  const failed = !ready && loading === null;
  const empty = conversation.turns.length === 0;
  byId("welcome", HTMLElement).hidden = !empty;
  byId("suggestions", HTMLElement).hidden = !empty || failed;
  document.documentElement.classList.toggle("empty", empty);
  byId("new-chat", HTMLButtonElement).disabled = empty || conversation.running;
}

/** @param {HTMLButtonElement} button */
function startTheme(button) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const draw = () => {
    const label = isDark() ? "Light theme" : "Dark theme";
    button.replaceChildren(icon(isDark() ? "sun" : "moon"));
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("phi3-steer.theme", root.dataset.theme);
    } catch {
      // Storage is blocked: the theme lasts as long as the page.
    }
    draw();
  });
  system.addEventListener("change", draw);
  draw();
}

/** @param {HTMLButtonElement} button */
function startShare(button) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const link = settings.link();
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

startTips();
startTheme(byId("theme", HTMLButtonElement));
startShare(byId("share", HTMLButtonElement));
byId("new-chat", HTMLButtonElement).addEventListener("click", () => {
  newChat();
  composer.field.focus();
});
addEventListener("hashchange", () => settings.start(settings.report, settings.choices.hook));
byId("other-model", HTMLButtonElement).addEventListener("click", () => dialog.open());
load();
