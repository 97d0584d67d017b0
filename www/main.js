// Starts the page: loads the engine, and connects the conversation, the panel and the views.

import { startAbout } from "./about.js";
import { Catalogue } from "./catalogue.js";
import { ChatView } from "./chat-view.js";
import { hasReport, nanoChoice, ownDictionary, recall, remember, sourceOf } from "./choice.js";
import { Chooser } from "./chooser.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, icon } from "./dom.js";
import { DownloadStrip } from "./download-strip.js";
import { Downloads } from "./downloads.js";
import { startDrop } from "./drop.js";
import { Engine } from "./engine-client.js";
import { asEngineError, EngineError } from "./line.js";
import { canReload, isFatal } from "./errors.js";
import { startOffline } from "./offline.js";
import { Recovery } from "./recovery.js";
import { readReport } from "./report.js";
import { Settings } from "./settings.js";
import { StatusView } from "./status-view.js";
import { SteeringPanel } from "./steering-panel.js";
import { startTips } from "./token-tip.js";

/** @import { Choice } from "./choice.js" */
/** @import { Turn } from "./conversation.js" */

const settings = new Settings();
const conversation = new Conversation(settings);
const announcer = byId("announcer", HTMLElement);

const catalogue = new Catalogue();
const downloads = new Downloads();
const recovery = new Recovery();

let choice = nanoChoice(catalogue);
/** Tokens of context to load with, where the model's own would not fit. */
let contextLength = /** @type {number | undefined} */ (undefined);
/** @type {AbortController | null} */
let loading = null;
/** Scripted turns that are still to be sent. */
let script = /** @type {string[]} */ ([]);
let scriptLength = 0;

const composer = new Composer({ send: (turns) => play(turns), stop });
const panel = new SteeringPanel(settings);
const status = new StatusView(settings, { cancel: () => loading?.abort() });
const view = new ChatView(conversation, byId("turns", HTMLElement), byId("scroller", HTMLElement), announcer, {
  resend: (turn, prompt) => {
    if (conversation.running || !conversation.engine) return;
    conversation.truncateAt(turn);
    play([prompt]);
  },
  choose: (feature) => settings.set({ feature }),
  canRun: () => conversation.engine !== null && !conversation.running,
});
const chooser = new Chooser(catalogue, downloads, (next) => switchTo(next));
new DownloadStrip(downloads, {
  show: () => chooser.open(),
  load: (model) => switchTo({ model, sae: "auto", saeHook: "", keep: true }),
});

/** @param {Choice} next */
async function switchTo(next) {
  choice = next;
  contextLength = undefined;
  remember(choice);
  await stop();
  newChat();
  load();
}

/**
 * Loads what is chosen, replacing the engine that runs.
 * @param {boolean} [again] the same model once more: the visitor's choices stay as they are
 */
async function load(again = false) {
  loading?.abort();
  const abort = new AbortController();
  loading = abort;
  const old = conversation.engine;
  conversation.engine = null;
  status.loading(null, again);
  byId("toy", HTMLElement).hidden = !choice.model.builtIn;
  refresh();
  // Two models at once may be more than the GPU holds.
  await old?.dispose().catch(() => {});
  if (loading !== abort) return;
  try {
    if (!("gpu" in navigator)) throw new EngineError("no-webgpu", missingWebGpu());
    if (!downloads.listing && !choice.model.builtIn) await downloads.refresh();
    const model = await sourceOf(choice.model, choice.keep, downloads);
    const report = hasReport(model) ? await readReport(model) : null;
    if (loading !== abort) return;
    // The report is about the model's own dictionary, whatever else reads at the same place.
    if (!again) settings.start(choice.sae === "auto" ? report : null);
    const sae = typeof choice.sae === "object" ? await sourceOf(choice.sae, choice.keep, downloads) : choice.sae === "auto" ? ownDictionary(model, report) : null;
    const saeHook = choice.saeHook || (typeof choice.sae === "object" ? choice.sae.hook : "");
    const options = {
      model,
      ...(sae ? { sae } : {}),
      ...(sae && saeHook ? { saeHook } : {}),
      ...(contextLength ? { contextLength } : {}),
      lanes: 2,
      onProgress: (/** @type {import("./types.d.ts").LoadProgress} */ progress) => loading === abort && status.loading(progress, again),
    };
    const engine = await (again ? recovery.restart(() => Engine.load(options, abort.signal)) : Engine.load(options, abort.signal));
    if (loading !== abort) return;
    const hook = engine.info.sae?.hook ?? "";
    if (hook !== settings.choices.hook) settings.start(null, hook);
    panel.setLimits({ features: engine.info.sae?.features ?? 0, context: engine.info.model.context });
    conversation.engine = engine;
    conversation.names = { model: choice.model.name, dictionary: engine.info.sae ? `${engine.info.sae.hook} of ${typeof choice.sae === "object" ? choice.sae.name : choice.model.name}` : null };
    status.ready(engine.info, choice.model.name);
    announcer.textContent = "The model is ready.";
    if (!matchMedia("(pointer: coarse)").matches && document.activeElement === document.body) composer.field.focus();
    startOffline();
  } catch (error) {
    if (loading !== abort) return;
    const failure = asEngineError(error);
    status.failed(failure, waysOut(failure.code, again));
  } finally {
    if (loading === abort) loading = null;
    refresh();
  }
  if (conversation.engine) goOn();
}

/**
 * What can be done about a model that does not run.
 * @param {string} code
 * @param {boolean} again
 * @returns {{label: string, run: () => void}[]}
 */
function waysOut(code, again) {
  const ways = [];
  const stored = ["not-stored", "incomplete", "damaged"].includes(code);
  if (stored) ways.push({ label: "Show what is on this disk", run: () => chooser.open(choice) });
  else if (canReload(code)) ways.push({ label: code === "cancelled" ? "Load the model" : again ? "Reload the engine" : "Try again", run: () => load(again) });
  if (stored && choice.model.url) ways.push({ label: "Load without keeping it", run: () => switchTo({ ...choice, keep: false }) });
  if (code === "out-of-memory") {
    const shorter = Math.max(256, Math.round((contextLength ?? 4096) / 2));
    ways.push({
      label: `Reload with a context of ${shorter} tokens`,
      run: () => {
        contextLength = shorter;
        load(again);
      },
    });
  }
  if (!choice.model.builtIn) {
    if (!stored) ways.push({ label: "Choose another model", run: () => chooser.open(choice) });
    ways.push({ label: "Back to the nano model", run: () => switchTo(nanoChoice(catalogue)) });
  }
  return ways;
}

function missingWebGpu() {
  return isSecureContext
    ? "The browser offers none to this page."
    : "Browsers offer it only to pages served over https or from localhost, and this page is neither.";
}

/**
 * Sends turns one after the other, each after the answer to the last.
 * @param {string[]} turns
 * @param {number} [length] of the script that they are the rest of
 */
async function play(turns, length = turns.length) {
  if (conversation.running || !conversation.engine) return;
  if (length > 1 && turns.length === length) newChat();
  script = [...turns];
  scriptLength = length;
  /** @type {Turn | null} */
  let turn = null;
  while (script.length) {
    const next = /** @type {string} */ (script.shift());
    const sent = conversation.send(next);
    refresh();
    turn = await sent;
    if (turn?.error && isFatal(turn.error.code)) {
      const rest = conversation.stopping ? null : [turn.prompt, ...script];
      script = [];
      lose(turn, rest, length);
    } else if (!turn || turn.state === "failed" || conversation.stopping) script = [];
  }
  scriptLength = 0;
  refresh();
}

/**
 * The engine died in the middle of a turn: the conversation stays, and goes on with a new engine, by
 * itself where that is safe.
 * @param {Turn} turn
 * @param {string[] | null} rest the turn's message and those after it, null when they were stopped
 * @param {number} length of their script
 */
function lose(turn, rest, length) {
  const error = asEngineError(turn.error);
  const old = conversation.engine;
  conversation.engine = null;
  old?.dispose().catch(() => {});
  if (recovery.note(error.code, turn, rest, length, Date.now())) load(true);
  else status.lost(error, waysOut(error.code, true));
  refresh();
}

/** Repeats the turn in which the last engine died, if there is one. */
function goOn() {
  const interrupted = recovery.take();
  if (!interrupted || !conversation.turns.includes(interrupted.turn)) return;
  conversation.truncateAt(interrupted.turn);
  if (interrupted.rest) play(interrupted.rest, interrupted.length);
}

/** Ends the running turn and what was to follow it; done when the turn has ended. */
async function stop() {
  script = [];
  await conversation.stop();
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
startAbout();
startTheme(byId("theme", HTMLButtonElement));
startShare(byId("share", HTMLButtonElement));
byId("new-chat", HTMLButtonElement).addEventListener("click", () => {
  newChat();
  composer.field.focus();
});
addEventListener("hashchange", () => settings.start(settings.report, settings.choices.hook));
byId("other-model", HTMLButtonElement).addEventListener("click", () => chooser.open(choice));
startDrop(byId("veil", HTMLElement), (files) => chooser.addFiles(files));
await catalogue.load().catch((error) => console.error(error));
choice = recall(catalogue);
load();
