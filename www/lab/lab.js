// The lab beside the chat: its parts, the way between them, and what they share.

import { byId, h } from "../dom.js";
import { errorPanel } from "../errors.js";
import { asEngineError } from "../line.js";
import { saveFile } from "../save.js";
import { DIRECTION } from "../settings.js";
import { CardView } from "./card-view.js";
import { FindView } from "./find-view.js";
import { openFiring } from "./firing.js";
import { chosen, reportOf } from "./found.js";
import { GateView } from "./gate-view.js";
import { readGate } from "./gates.js";
import { LessonView } from "./lesson.js";
import { MeasureView } from "./measure-view.js";
import { fromLink } from "./recipes.js";
import { hashFor, routeOf } from "./route.js";
import { Runner } from "./runner.js";
import { RunsView } from "./runs-view.js";
import { shippedFind } from "./shipped.js";
import { StrengthsView } from "./strengths.js";
import { TrainView } from "./train-view.js";

/** @import { Conversation } from "../conversation.js" */
/** @import { Engine } from "../engine-client.js" */
/** @import { Settings } from "../settings.js" */
/** @import { Entry, LabResult, Source } from "../types.d.ts" */
/** @import { Route, View } from "./route.js" */
/** @import { Shelf } from "./shelf.js" */

/**
 * What the lab needs of the page.
 * @typedef {object} LabPage
 * @property {Settings} settings
 * @property {() => Engine | null} engine
 * @property {<T>(work: (engine: Engine) => Promise<T>) => Promise<T>} borrow does something with the chat's lanes; messages wait meanwhile
 * @property {() => [string, string][]} places what a link says of the model and the dictionary
 * @property {() => string} sets the name of the prompts that belong to the model
 * @property {import("../trained.js").TrainedHere} trained what is done with a dictionary that was trained here
 * @property {Runner} runner
 * @property {(view: View | "chat", part?: number | null) => void} open
 * @property {(result: LabResult) => Promise<void>} use steers by what a search found, now and at the next visit
 * @property {(result: LabResult) => Promise<void>} know the same, without going to the chat
 * @property {(engine: Engine, lanes: number) => Promise<Engine>} fork an engine with lanes of its own, which knows the direction that was found
 * @property {() => string | null} direction the direction that steers, as a recipe says it
 * @property {() => Promise<void>} forget goes back to what came with the model
 * @property {(result: LabResult, name: string) => HTMLElement[]} tableButtons
 */

/** What the page gives, before the lab adds its own. */
/** @typedef {Omit<LabPage, "open" | "use" | "know" | "fork" | "forget" | "direction" | "tableButtons" | "runner"> & {shelf: Shelf}} Given */

/**
 * A part of the lab.
 * @typedef {object} Part
 * @property {HTMLElement} node
 * @property {string} title
 * @property {(part: number | null) => void} [visit] it is shown
 * @property {() => void} [changed] another engine is there, or none
 * @property {import("./form.js").RecipeForm} [form] takes the recipe of a link
 */

/** What the chat's tab is called. */
const CHAT_TITLE = globalThis.document?.title ?? "";

/** The style sheets of the lab, which the chat does without. */
const STYLES = ["lab.css", "lesson.css"].map((name) => new URL(`../styles/${name}`, import.meta.url).href);

/** Done when the lab's style sheets are there, or will not come. */
export const styled = () =>
  Promise.all(
    STYLES.map(
      (href) =>
        new Promise((resolve) => {
          const link = h("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve });
          document.head.append(link);
        }),
    ),
  );

/** Shows what the address says. */
export class Lab {
  /** @param {Given} given */
  constructor({ shelf, ...given }) {
    this.node = byId("lab", HTMLElement);
    this.link = byId("lab-link", HTMLElement);
    this.runner = new Runner(shelf);
    /** @type {LabPage} */
    this.page = {
      ...given,
      runner: this.runner,
      open: (view, part = null) => this.open(view, part),
      use: async (result) => {
        await this.know(result);
        this.open("chat");
      },
      know: (result) => this.know(result),
      forget: () => this.forget(),
      direction: () => this.direction?.text ?? null,
      fork: (engine, lanes) => this.fork(engine, lanes),
      tableButtons: (result, name) => this.tableButtons(result, name),
    };
    const { page } = this;
    /** @type {{hook: string, values: Float32Array, text: string} | null} the direction that was found, where it is what steers */
    this.direction = null;
    this.strengths = new StrengthsView(page);
    /** @type {Record<View, Part>} */
    this.parts = {
      find: new FindView(page),
      measure: new MeasureView(page),
      feature: new CardView(page),
      strengths: this.strengths,
      gate: new GateView(page),
      train: new TrainView(page),
      runs: new RunsView(page),
      lesson: new LessonView(page),
    };
    /** @type {LabResult | null} what came with the dictionary */
    this.shipped = null;
    this.runner.addEventListener("change", () => this.drawLink());
    this.tabs = h("nav", { className: "lab-tabs", "aria-label": "Parts of the lab" }, ...Object.entries(this.parts).filter(([view]) => view !== "lesson").map(([view, part]) => h("a", { href: `#lab=${view}`, "data-lab": view }, part.title)));
    this.holder = h("div", { className: "lab-holder" });
    this.node.replaceChildren(this.tabs, this.holder);
    /** @type {Route} */
    this.route = { view: "chat", part: null };
    addEventListener("hashchange", () => this.follow(true));
    this.follow(false);
  }

  /**
   * Tells which features fire at a token of the chat.
   * @param {Conversation} conversation
   * @param {import("./firing.js").Place} place
   */
  firing(conversation, place) {
    return openFiring(this.page, conversation, place);
  }

  /**
   * Answers a prompt at several strengths, side by side.
   * @param {string} prompt
   */
  compare(prompt) {
    this.open("strengths");
    this.strengths.ask(prompt);
  }

  /**
   * An engine is there.
   * @param {Engine} engine
   * @param {string} place a digest of its model and dictionary
   * @param {{model: string, dictionary: string}} names
   * @param {{source: Source | null, entry: Entry | null}} dictionary
   * @param {boolean} again whether it takes the place of one that was lost
   */
  async ready(engine, place, names, dictionary, again) {
    const { settings } = this.page;
    // What was searched here comes before what came with the dictionary.
    const searched = await this.runner.shelf.thing(`found/${place}`).catch(() => undefined);
    this.shipped = await shippedFind(dictionary.source, dictionary.entry, engine.info).catch((error) => (console.warn(`find.json is not used: ${error}`), null));
    const found = searched ?? this.shipped;
    const gate = await this.runner.shelf.thing(`gate/${place}`).catch(() => undefined);
    if (this.page.engine() !== engine) return;
    const shipped = settings.gate;
    // Another model's direction is none of this one's.
    this.direction = null;
    if (found) await this.adopt(found, engine, !again);
    // The one that was fitted here, else what was found has, else what came with the model.
    settings.setGate(readGate(gate) ?? settings.gate ?? shipped);
    const began = this.runner.ready(engine, place, names);
    this.tell();
    await began;
  }

  /** There is no engine any more. */
  gone() {
    this.runner.gone();
    this.tell();
  }

  tell() {
    for (const part of Object.values(this.parts)) part.changed?.();
  }

  /**
   * @param {LabResult} result of a search
   * @param {Engine} engine
   * @param {boolean} anew whether the choices follow it
   */
  async adopt(result, engine, anew) {
    const { settings } = this.page;
    const hook = engine.info.sae?.hook ?? "";
    const report = reportOf(result, hook);
    if (report.direction) {
      const values = floats(result.direction?.values);
      if (!values) return;
      await engine.addDirection(report.hook, DIRECTION, values);
      this.direction = { hook: report.hook, values, text: String(result.direction.values) };
    } else this.direction = null;
    if (anew) settings.start(report);
    else settings.know(report);
  }

  /**
   * Keeps what was found with the model and the dictionary; nothing, where nothing was.
   * @param {LabResult} result
   */
  async know(result) {
    const engine = this.page.engine();
    if (!engine || chosen(result).kind === "none") return;
    await this.adopt(result, engine, false);
    this.page.settings.reset();
    await this.runner.shelf.keep(`found/${this.runner.place}`, result).catch((error) => console.warn(`It is not kept: ${error}`));
  }

  /**
   * @param {Engine} engine
   * @param {number} lanes
   */
  async fork(engine, lanes) {
    const fork = await engine.fork(lanes);
    if (this.direction) await fork.addDirection(this.direction.hook, DIRECTION, this.direction.values);
    return fork;
  }

  /** Goes back to what came with the model. */
  async forget() {
    const { settings } = this.page;
    await this.runner.shelf.keep(`found/${this.runner.place}`, undefined).catch((error) => console.warn(`It is kept still: ${error}`));
    const gate = await this.runner.shelf.thing(`gate/${this.runner.place}`).catch(() => undefined);
    const engine = this.page.engine();
    settings.start(settings.shipped, settings.choices.hook);
    if (this.shipped && engine) await this.adopt(this.shipped, engine, true);
    settings.setGate(readGate(gate) ?? settings.gate);
    settings.reset();
  }

  /**
   * Buttons that save a result's table.
   * @param {LabResult} result
   * @param {string} name
   */
  tableButtons(result, name) {
    return /** @type {const} */ (["csv", "json"]).map((format) => {
      const button = h("button", { type: "button", className: "button" }, `Table as ${format.toUpperCase()}`);
      button.addEventListener("click", async () => {
        try {
          const text = await this.page.engine()?.labTable(result, format);
          if (text !== undefined) saveFile(`${name}.${format}`, format === "csv" ? "text/csv" : "application/json", text);
        } catch (error) {
          button.after(errorPanel(asEngineError(error), []));
        }
      });
      return button;
    });
  }

  /** The way to the lab says how far it is. */
  drawLink() {
    const progress = this.runner.work?.progress;
    const share = progress && progress.total > 0 ? ` ${Math.floor((100 * progress.done) / progress.total)}%` : "\u2026";
    this.link.textContent = this.runner.running ? `Lab${share}` : "Lab";
  }

  /** Takes the recipe that the address carries to where it runs. */
  takeRecipe() {
    const { view } = routeOf(location.hash);
    if (view === "chat") return;
    const { form, node } = this.parts[view];
    try {
      const recipe = fromLink(location.hash);
      if (!recipe || !form) return;
      form.take(recipe);
      form.node.setAttribute("open", "");
    } catch (error) {
      node.append(errorPanel(asEngineError(error), []));
    }
  }

  /**
   * @param {View | "chat"} view
   * @param {number | null} [part]
   */
  open(view, part = null) {
    const hash = hashFor(view, part, location.hash);
    if (hash !== location.hash.replace(/^#/, "")) location.hash = hash;
    else this.follow(true);
  }

  /**
   * Shows what the address says.
   * @param {boolean} focus whether the keyboard goes there
   */
  follow(focus) {
    const route = routeOf(location.hash);
    const known = route.view === "chat" ? null : this.parts[route.view];
    const moved = route.view !== this.route.view || route.part !== this.route.part;
    this.route = route;
    document.documentElement.dataset.view = known ? "lab" : "chat";
    document.title = known ? `${known.title} \u00b7 phi3-steer` : CHAT_TITLE;
    this.node.hidden = !known;
    for (const link of document.querySelectorAll(":is(.views, .lab-tabs) a")) {
      const target = routeOf(`#lab=${link.getAttribute("data-lab")}`);
      const top = link.closest(".views") !== null;
      const group = (/** @type {Route["view"]} */ view) => (top && view !== "chat" && view !== "lesson" ? "lab" : view);
      if (group(target.view) === group(route.view)) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const skip = document.querySelector(".skip");
    if (skip instanceof HTMLAnchorElement) {
      skip.href = known ? "#lab" : "#message";
      skip.textContent = known ? "Skip to the lab" : "Skip to the message field";
    }
    if (!known) return;
    this.tabs.hidden = route.view === "lesson";
    if (this.holder.firstChild !== known.node) this.holder.replaceChildren(known.node);
    known.visit?.(route.part);
    this.takeRecipe();
    if (!moved || !focus) return;
    this.node.scrollTop = 0;
    const head = known.node.querySelector("h2");
    if (head instanceof HTMLElement) head.focus({ preventScroll: true });
  }
}

/**
 * Numbers that are written as base 64 of f32, the lowest byte first.
 * @param {unknown} text
 * @returns {Float32Array | null}
 */
function floats(text) {
  if (typeof text !== "string") return null;
  try {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: Math.floor(bytes.length / 4) }, (_, index) => view.getFloat32(4 * index, true));
  } catch {
    return null;
  }
}
