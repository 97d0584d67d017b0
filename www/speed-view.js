// The button that measures how fast the model runs here, and its report.

import { byId, h } from "./dom.js";

/** @import { Engine } from "./engine-client.js" */
/** @import { SpeedFigure } from "./types.d.ts" */

/** What the report begins with. */
const ABOUT = "phi3-steer, measured in this page";

export class SpeedView {
  /** @param {{engine: () => Engine | null, name: () => string}} page what runs, and what people call it */
  constructor({ engine, name }) {
    this.engine = engine;
    this.name = name;
    this.button = byId("speed", HTMLButtonElement);
    this.place = byId("speed-report", HTMLElement);
    this.label = this.button.textContent ?? "";
    this.button.addEventListener("click", () => (this.running ? this.stop() : this.run()));
    /** @type {Engine | null} what is measured just now */
    this.running = null;
  }

  async stop() {
    await this.running?.cancel().catch(() => {});
  }

  /** Another model has come, or none: what was measured is not of it. */
  clear() {
    this.place.replaceChildren();
    this.place.hidden = true;
  }

  async run() {
    const engine = this.engine();
    if (!engine) return;
    /** @type {SpeedFigure[]} */
    const figures = [];
    const lines = h("pre", { className: "report", tabIndex: 0, "aria-label": "Figures" });
    const state = h("p", { className: "muted", role: "status" }, "Measuring: a minute or two; an answer that is asked for comes first and ends it.");
    this.place.hidden = false;
    this.place.replaceChildren(state, lines);
    this.running = engine;
    this.button.textContent = "Stop measuring";
    let end = "";
    try {
      await engine.measureSpeed({
        onFigure: (figure) => {
          figures.push(figure);
          lines.textContent += `${figure.text}\n`;
        },
      });
    } catch (error) {
      const { code, message } = /** @type {{code?: string, message?: string}} */ (error);
      end = code === "cancelled" ? "Stopped before all was measured." : code === "busy" ? "The model is at work: measure when it is done." : `It could not be measured: ${message}`;
    } finally {
      this.running = null;
      this.button.textContent = this.label;
    }
    if (this.engine() !== engine) return this.clear();
    state.textContent = end;
    state.hidden = !end;
    if (figures.length) this.place.append(this.copy(figures));
  }

  /** @param {SpeedFigure[]} figures */
  copy(figures) {
    const text = () => [`${ABOUT}: ${this.name()}`, navigator.userAgent, ...figures.map((figure) => figure.text), JSON.stringify(figures), ""].join("\n");
    const button = h("button", { type: "button", className: "button" }, "Copy the report");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
        button.textContent = "Report copied";
      } catch {
        button.textContent = "The browser does not let it be copied: select the text";
      }
      setTimeout(() => (button.textContent = "Copy the report"), 2000);
    });
    return h("div", { className: "actions" }, button);
  }
}
