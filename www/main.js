// Starts the page: loads the engine, and connects the conversation, the panel and the views.

import { startAbout } from "./about.js";
import { missingWebGpu } from "./browser-help.js";
import { Catalogue } from "./catalogue.js";
import { ChatView } from "./chat-view.js";
import { hasReport, nanoChoice, ownDictionary, recall, remember, sourceOf } from "./choice.js";
import { Chooser } from "./chooser.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { DownloadStrip } from "./download-strip.js";
import { Downloads } from "./downloads.js";
import { startDrop } from "./drop.js";
import { Engine } from "./engine-client.js";
import { isFatal } from "./errors.js";
import { FitCheck, identity } from "./fit.js";
import { startFocus } from "./focus.js";
import { Follower } from "./follow.js";
import { Heartbeat } from "./heartbeat.js";
import { History } from "./history.js";
import { HistoryView } from "./history-view.js";
import { Keeper } from "./keeper.js";
import { LabDoor } from "./lab/door.js";
import { hashFor, routeOf, withoutView } from "./lab/route.js";
import { asEngineError, EngineError } from "./line.js";
import { Ladder } from "./ladder.js";
import { placesOf } from "./links.js";
import { modelWords } from "./model-words.js";
import { Notes } from "./notes.js";
import { keepOffline, startOffline } from "./offline.js";
import { Outbox } from "./outbox.js";
import { Recovery } from "./recovery.js";
import { readReport } from "./report.js";
import { Settings } from "./settings.js";
import { startShare } from "./share.js";
import { SpeedView } from "./speed-view.js";
import { StatusView } from "./status-view.js";
import { SteeringPanel } from "./steering-panel.js";
import { startTheme } from "./theme-button.js";
import { startTips } from "./token-tip.js";
import { TrainedHere } from "./trained.js";
import { unlessAborted } from "./unless-aborted.js";
import { waysOut } from "./ways-out.js";

/** @import { Choice } from "./choice.js" */
/** @import { Turn } from "./conversation.js" */

/** An engine that was stopped may take so many milliseconds for the step that it is at. */
const STEP = 60_000;

/** After so many milliseconds the visitor is told of it. */
const FREE = 3000;

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
/** The engine that still computes for a turn that the page has ended. */
let busy = /** @type {Engine | null} */ (null);
/** The engine while something beside the conversation has its lanes. */
let borrowed = /** @type {Engine | null} */ (null);
/** How many times another conversation is taking this one's place just now. */
let replacing = 0;
/** Scripted turns that are still to be sent. */
let script = /** @type {string[]} */ ([]);
let scriptLength = 0;

const composer = new Composer({ send, stop: () => stop() });
const outbox = new Outbox(composer.form, (messages) => {
  composer.setText([composer.field.value, ...messages].filter((text) => text.trim()).join("\n"));
  composer.field.focus();
  refresh();
});
const speed = new SpeedView({ engine: () => conversation.engine, name: () => choice.model.name });
const fitCheck = new FitCheck({ show: (fit) => status.showFit(fit), free: () => canRun() && outbox.messages.length === 0 && !speed.running && !door.lab?.runner.running });
const keepFocus = startFocus(() => (matchMedia("(pointer: coarse)").matches ? byId("scroller", HTMLElement) : composer.field));
const heartbeat = new Heartbeat({ silent: () => status.waits("silent", restart), standing: () => status.waits("standing", restart), back: () => status.clear() });
const panel = new SteeringPanel(settings);
const status = new StatusView(settings, { cancel: () => loading?.abort() });
const view = new ChatView(conversation, byId("turns", HTMLElement), byId("scroller", HTMLElement), announcer, {
  resend: (turn, prompt) => {
    if (!canRun()) return;
    conversation.truncateAt(turn);
    play([prompt]);
  },
  choose: (feature) => settings.set({ feature }),
  canRun,
  compare: (prompt) => door.open().then((lab) => lab.compare(prompt)),
});
const chooser = new Chooser(catalogue, downloads, (next) => switchTo(next));
const notes = new Notes(composer.form);
const follower = new Follower({ catalogue, downloads, settings, composer, chooser, notes });
const door = new LabDoor({
  given: () => ({
    settings,
    engine: () => conversation.engine,
    borrow,
    places: () => placesOf(choice),
    trained: new TrainedHere(catalogue, downloads, { choice: () => choice, load: (next) => switchTo(next) }),
    sets: () => (choice.model.builtIn ? "nano" : "real"),
  }),
  trouble: (error) => notes.add(`The lab could not be loaded: ${asEngineError(error).message}`),
});
const keeper = new Keeper(await History.open(), conversation, {
  places: () => placesOf(choice),
  trouble: (error) => notes.add(`This conversation cannot be kept: ${asEngineError(error).message}`),
});
new HistoryView(keeper, {
  open: async (saved) => {
    await replace(stop(), () => keeper.open(saved));
    heldElsewhere(conversation.turns);
    composer.field.focus();
  },
  cleared: newChat,
});
const strip = new DownloadStrip(downloads, {
  show: () => chooser.open(),
  load: (model) => switchTo(ladder.choice(model)),
  taken: (entry) => ladder.takes(entry),
});
const ladder = new Ladder(catalogue, downloads, {
  load: (next) => switchTo(next),
  show: (next) => chooser.open(next),
  free: () => conversation.turns.length === 0 && canRun(),
  offer: (model) => strip.offer(model),
});

/**
 * @param {Choice} next
 * @param {Record<string, unknown>} [linked] the setting that a link has for it
 */
async function switchTo(next, linked = follower.settingsFor(next)) {
  choice = next;
  settings.linked = linked;
  contextLength = undefined;
  remember(choice);
  // Loading ends the engine, whatever it is doing.
  script = [];
  await replace(conversation.stop(0), () => {
    beginAnew();
    load();
  });
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
  leave();
  status.loading(null, again);
  speed.clear();
  byId("which-model", HTMLElement).textContent = modelWords(choice.model);
  ladder.follow(choice.model, false);
  refresh();
  // Two models at once may be more than the GPU holds.
  await old?.dispose().catch(() => {});
  if (loading !== abort) return;
  try {
    if (!("gpu" in navigator)) throw new EngineError("no-webgpu", missingWebGpu());
    /** @type {<T>(work: Promise<T>) => Promise<T>} */
    const unless = (work) => unlessAborted(work, abort.signal);
    if (!downloads.listing && !choice.model.builtIn) await unless(downloads.refresh());
    const model = await unless(sourceOf(choice.model, choice.keep, downloads));
    const { report, note } = hasReport(model) ? await unless(readReport(model, abort.signal)) : { report: null, note: null };
    if (loading !== abort) return;
    if (note) notes.add(note);
    // The report is about the model's own dictionary, whatever else reads at the same place.
    if (!again) {
      settings.shipped = choice.sae === "auto" ? report : null;
      settings.start(settings.shipped);
    }
    const sae = typeof choice.sae === "object" ? await unless(sourceOf(choice.sae, choice.keep, downloads)) : choice.sae === "auto" ? ownDictionary(model, report) : null;
    const saeHook = choice.saeHook || (typeof choice.sae === "object" ? choice.sae.hook : "");
    const options = {
      model,
      ...(sae ? { sae } : {}),
      ...(sae && saeHook ? { saeHook } : {}),
      ...(contextLength ? { contextLength } : {}),
      quant: choice.precision ?? "auto",
      lanes: 2,
      onProgress: (/** @type {import("./types.d.ts").LoadProgress} */ progress) => {
        // What takes the longest is there.
        if (progress.stage === "warmup") door.open();
        if (loading !== abort) return;
        heartbeat.moved();
        status.loading(progress, again);
      },
    };
    const start = () => Engine.load(options, abort.signal, (worker) => loading === abort && heartbeat.watch(worker, true));
    const engine = await (again ? recovery.restart(start) : start());
    if (loading !== abort) {
      engine.terminate();
      return;
    }
    const hook = engine.info.sae?.hook ?? "";
    if (hook !== settings.choices.hook) settings.start(null, hook);
    panel.setLimits({ features: engine.info.sae?.features ?? 0, context: engine.info.model.context });
    settings.limit({ features: engine.info.sae?.features ?? null, context: engine.info.model.context });
    conversation.engine = engine;
    conversation.names = { model: choice.model.name, dictionary: engine.info.sae ? `${engine.info.sae.hook} of ${typeof choice.sae === "object" ? choice.sae.name : choice.model.name}` : null };
    heartbeat.watch(engine);
    engine.lost.then((error) => {
      // A running turn tells of it itself.
      if (conversation.engine === engine && !conversation.running) lose(error, null, null, 0);
    });
    status.ready(engine.info, choice.model.name, catalogue.fitting(choice.model).length);
    ladder.follow(choice.model, true);
    const { names } = conversation;
    Promise.all([door.open(), identity(engine, choice)])
      .then(([lab, place]) => lab.ready(engine, place, { model: names.model, dictionary: names.dictionary ?? "no dictionary" }, { source: sae, entry: typeof choice.sae === "object" ? choice.sae : null }, again))
      .catch((error) => console.error(error));
    fitCheck.watch(engine, choice, settings.report).catch((error) => console.error(error));
    announcer.textContent = "The model is ready.";
    if (!matchMedia("(pointer: coarse)").matches && document.activeElement === document.body) composer.field.focus();
    keepOffline();
  } catch (error) {
    if (loading !== abort) return;
    const failure = asEngineError(error);
    heartbeat.rest();
    ladder.follow(null, false);
    status.failed(failure, waysOf(failure.code, again));
  } finally {
    if (loading === abort) loading = null;
    refresh();
  }
  goOn();
}

/**
 * What can be done about a model that does not run.
 * @param {string} code
 * @param {boolean} again
 */
function waysOf(code, again) {
  return waysOut(code, again, choice, contextLength ?? 4096, {
    load,
    show: () => chooser.open(choice),
    switchTo,
    nano: () => switchTo(nanoChoice(catalogue)),
    shorten: (context) => {
      contextLength = context;
      load(again);
    },
  });
}

/** Whether there is an engine that can answer now. */
function canRun() {
  return conversation.engine !== null && !conversation.running && busy === null && borrowed === null && replacing === 0;
}

/**
 * Does something else with the lanes that the conversation has; messages wait meanwhile.
 * @template T
 * @param {(engine: Engine) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function borrow(work) {
  const { engine } = conversation;
  if (!engine) throw new EngineError("not-loaded", "No model is loaded.");
  if (!canRun()) throw new EngineError("busy", "The chat is answering: wait for it, or stop it.");
  borrowed = engine;
  refresh();
  try {
    await conversation.ungate(engine);
    return await work(engine);
  } finally {
    if (borrowed === engine) borrowed = null;
    refresh();
    goOn();
  }
}

/**
 * Takes messages of the visitor: they are answered at once, or as soon as an engine is there.
 * @param {string[]} turns
 * @param {boolean} [anew] whether they begin a new chat, as a script always does
 */
async function send(turns, anew = turns.length > 1) {
  if (anew) await newChat();
  if (canRun()) play(turns);
  else {
    outbox.put(turns);
    refresh();
  }
}

/**
 * Sends turns one after the other, each after the answer to the last.
 * @param {string[]} turns
 * @param {number} [length] of the script that they are the rest of
 */
async function play(turns, length = turns.length) {
  if (!canRun()) return;
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
      lose(turn.error, turn, rest, length);
    } else if (!turn || turn.state === "failed" || conversation.stopping) script = [];
  }
  scriptLength = 0;
  refresh();
  goOn();
}

/** The page goes on without the engine that it had. */
function leave() {
  conversation.engine = null;
  busy = null;
  borrowed = null;
  door.lab?.gone();
  heartbeat.rest();
  fitCheck.rest();
}

/**
 * The engine died: the conversation stays, and goes on with a new engine, by itself where that is safe.
 * @param {EngineError} error
 * @param {Turn | null} turn in whose middle it died
 * @param {string[] | null} rest the turn's message and those after it, null when nothing is to be repeated
 * @param {number} length of their script
 */
function lose(error, turn, rest, length) {
  const old = conversation.engine;
  leave();
  old?.dispose().catch(() => {});
  if (recovery.note(error.code, turn, rest, length, Date.now())) load(true);
  else status.lost(error, waysOf(error.code, true));
  refresh();
}

/** Ends the engine, whatever it is doing, and starts another with the same model. */
function restart() {
  const { engine } = conversation;
  script = [];
  leave();
  engine?.terminate();
  conversation.stop(0).then(() => load(true));
}

/** Repeats the turn in which the last engine died, if there is one, and sends what waits, if it can be answered now. */
function goOn() {
  if (!canRun()) return;
  const interrupted = recovery.take();
  const repeat = interrupted?.turn && conversation.turns.includes(interrupted.turn) ? interrupted.rest : null;
  if (interrupted?.turn && repeat) conversation.truncateAt(interrupted.turn);
  const waiting = outbox.take();
  const turns = [...(repeat ?? []), ...waiting];
  if (turns.length) play(turns, repeat && interrupted ? interrupted.length + waiting.length : turns.length);
}

/** Ends the running turn and what was to follow it, in two seconds at most, whatever the engine does. */
async function stop() {
  script = [];
  const { engine } = conversation;
  const done = await conversation.stop(heartbeat.silent ? 0 : undefined);
  if (!done && engine && engine === conversation.engine) await release(engine);
}

/**
 * An engine that did not let go of a stopped turn finishes the step that it is at, or hangs: then
 * another takes its place.
 * @param {Engine} engine
 */
async function release(engine) {
  busy = engine;
  refresh();
  if (heartbeat.silent || !(await engine.answers(1000))) {
    if (busy === engine) restart();
    return;
  }
  const patience = setTimeout(() => {
    if (busy !== engine) return;
    status.waits("not-free", restart);
  }, FREE);
  // The rest takes as long as it takes: nobody waits for it here.
  const late = new Promise((resolve) => setTimeout(() => resolve("late"), STEP));
  Promise.race([engine.settled(), late]).then((how) => {
    clearTimeout(patience);
    if (busy !== engine) return;
    status.clear();
    busy = null;
    if (how === "late") restart();
    else {
      refresh();
      goOn();
    }
  });
}

/** Begins a new conversation; one that runs is stopped. */
async function newChat() {
  await replace(stop(), beginAnew);
}

/** Forgets the turns there are, which are kept in the history. */
function beginAnew() {
  conversation.clear();
  keeper.begin();
}

/**
 * Puts something in the place of a conversation that is being ended; what is sent meanwhile waits, and
 * is part of what comes.
 * @param {Promise<unknown>} ended
 * @param {() => void} change
 */
async function replace(ended, change) {
  replacing++;
  try {
    await ended;
    change();
  } finally {
    replacing--;
    refresh();
    goOn();
  }
}

/** Brings the composer and the empty state up to date. */
function refresh() {
  const ready = conversation.engine !== null;
  const step = scriptLength - script.length;
  const failed = !ready && loading === null;
  composer.setState({
    open: !failed && !outbox.full,
    running: conversation.running,
    note: conversation.running && scriptLength > 1 ? `Playing scripted turn ${step} of ${scriptLength}` : busy ? "The engine finishes the step that it is at." : borrowed ? "The lab has the model just now: messages wait." : "",
    toy: choice.model.builtIn === true,
    promised: choice.model.builtIn ? settings.report?.value.default : null,
  });
  view.refresh();
  const empty = conversation.turns.length === 0;
  byId("welcome", HTMLElement).hidden = !empty;
  byId("suggestions", HTMLElement).hidden = !empty || failed;
  ladder.node.classList.toggle("away", !empty);
  document.documentElement.classList.toggle("empty", empty);
  byId("new-chat", HTMLButtonElement).disabled = empty;
  speed.button.disabled = !ready;
  keepFocus();
}

/**
 * Says so if a conversation was held with another model than the one that is chosen.
 * @param {Turn[]} turns
 */
function heldElsewhere(turns) {
  const name = turns.at(-1)?.model;
  if (name && name !== choice.model.name) notes.add(`This conversation was held with ${name}. It goes on with ${choice.model.name}.`);
}

startTips((place) => door.open().then((lab) => lab.firing(conversation, place)));
startAbout();
startTheme(byId("theme", HTMLButtonElement));
startShare(byId("share", HTMLButtonElement), settings, {
  choice: () => choice,
  prompt: () => composer.field.value.trim() || (conversation.turns.at(-1)?.prompt ?? ""),
});
byId("new-chat", HTMLButtonElement).addEventListener("click", async () => {
  await newChat();
  composer.field.focus();
});
let followed = withoutView(location.hash);
document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-lab]") : null;
  if (!(link instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  // What else the address says stays.
  const { view, part } = routeOf(`#lab=${link.dataset.lab}`);
  location.hash = hashFor(view, part, location.hash);
});
addEventListener("hashchange", async () => {
  if (routeOf(location.hash).view !== "chat") door.open();
  // Another part of the page is shown: nothing of what runs has changed.
  if (withoutView(location.hash) === followed) return;
  followed = withoutView(location.hash);
  const next = await follower.follow(location.hash, choice);
  if (next) switchTo(next, settings.linked);
  else if (conversation.engine) settings.start(settings.report, settings.choices.hook);
});
settings.addEventListener("note", (event) => notes.add(/** @type {CustomEvent<string>} */ (event).detail));
conversation.addEventListener("refused", (event) => notes.add(/** @type {CustomEvent<EngineError>} */ (event).detail.message));
byId("other-model", HTMLButtonElement).addEventListener("click", () => chooser.open(choice));
startDrop(byId("veil", HTMLElement), (files) => chooser.addFiles(files));
await catalogue.load().catch((error) => console.error(error));
choice = recall(catalogue);
const resumed = await keeper.resume().catch(() => undefined);
choice = (await follower.follow(location.hash, choice)) ?? choice;
if (resumed) heldElsewhere(conversation.turns);
if (routeOf(location.hash).view !== "chat") await door.open().catch(() => {});
await startOffline();
load();
