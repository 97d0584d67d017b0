// The steering switch, the strength slider and the advanced choices.

import { byId, number } from "./dom.js";
import { drawDose, nearest } from "./dose-chart.js";

/** @import { Settings } from "./settings.js" */
/** @import { Op, Positions, Report } from "./types.d.ts" */

/** Binds the panel of index.html to the settings. */
export class SteeringPanel {
  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
    this.panel = byId("panel", HTMLElement);
    this.more = byId("panel-more", HTMLButtonElement);
    this.switch = byId("steering", HTMLInputElement);
    this.slider = byId("strength", HTMLInputElement);
    this.value = byId("strength-value", HTMLOutputElement);
    this.label = byId("strength-label", HTMLElement);
    this.zone = byId("strength-zone", HTMLElement);
    this.useful = byId("useful-range", HTMLElement);
    this.chart = byId("dose", HTMLElement);
    this.tint = byId("tint", HTMLInputElement);
    this.top = byId("top", HTMLInputElement);
    this.negative = byId("negative", HTMLInputElement);
    this.op = byId("op", HTMLSelectElement);
    this.positions = byId("positions", HTMLSelectElement);
    this.feature = byId("feature", HTMLInputElement);
    this.active = byId("only-if-active", HTMLInputElement);
    this.bos = byId("include-bos", HTMLInputElement);
    this.temperature = byId("temperature", HTMLInputElement);
    this.seed = byId("seed", HTMLInputElement);
    this.length = byId("max-tokens", HTMLInputElement);

    const { switch: toggle, slider, tint, top, negative, op, positions, active, bos } = this;
    toggle.addEventListener("change", () => settings.set({ steering: toggle.checked }));
    slider.addEventListener("input", () => settings.set({ strength: slider.valueAsNumber, steering: true }));
    tint.addEventListener("change", () => settings.set({ tint: tint.checked }));
    top.addEventListener("change", () => settings.set({ top: top.checked }));
    active.addEventListener("change", () => settings.set({ onlyIfActive: active.checked }));
    bos.addEventListener("change", () => settings.set({ includeBos: bos.checked }));
    positions.addEventListener("change", () => settings.set({ positions: /** @type {Positions} */ (positions.value) }));
    negative.addEventListener("change", () =>
      settings.set({ negative: negative.checked, strength: negative.checked ? settings.choices.strength : Math.max(0, settings.choices.strength) }),
    );
    op.addEventListener("change", () => {
      const next = /** @type {Op} */ (op.value);
      // A multiplier of 8 is no counterpart of a clamp to 8: start each kind at a sensible place.
      const scales = (/** @type {Op} */ name) => name === "scale";
      const strength = scales(next) === scales(settings.choices.op) ? settings.choices.strength : scales(next) ? 2 : settings.defaults().strength;
      settings.set({ op: next, strength });
    });
    this.number(this.feature, (feature) => settings.set({ feature }));
    this.number(this.seed, (seed) => settings.set({ seed }));
    this.number(this.length, (maxTokens) => settings.set({ maxTokens }));
    this.number(this.temperature, (temperature) => settings.set({ temperature }));
    byId("reset", HTMLButtonElement).addEventListener("click", () => settings.reset());
    this.more.addEventListener("click", () => {
      const open = this.panel.classList.toggle("open");
      this.more.setAttribute("aria-expanded", String(open));
    });
    settings.addEventListener("change", () => this.update());
    this.update();
  }

  /**
   * @param {HTMLInputElement} field
   * @param {(value: number) => void} take
   */
  number(field, take) {
    field.addEventListener("change", () => {
      if (field.validity.valid && field.value !== "") take(field.valueAsNumber);
      else this.update();
    });
  }

  /** @param {{features: number, context: number}} limits what the loaded engine allows */
  setLimits(limits) {
    this.feature.max = String(Math.max(0, limits.features - 1));
    this.length.max = String(limits.context);
  }

  update() {
    const { settings } = this;
    const { choices, report } = settings;
    const available = choices.hook !== "";
    const max = settings.max();
    this.panel.classList.toggle("off", !choices.steering);
    this.panel.classList.toggle("unavailable", !available);
    this.switch.disabled = !available;
    this.switch.checked = available && choices.steering;

    const valued = choices.op !== "project_out";
    this.slider.disabled = !available || !valued;
    this.slider.min = String(choices.negative ? -max : 0);
    this.slider.max = String(max);
    this.slider.value = String(choices.strength);
    this.value.textContent = valued ? number(choices.strength) : "\u2013";
    this.label.textContent = choices.op === "scale" ? "Multiplier" : "Strength";
    const [low, high] = report?.value.useful ?? [0, 0];
    const marked = Boolean(report) && this.isMeasured();
    this.useful.hidden = !marked;
    this.useful.textContent = low < high ? `useful range ${number(low)} to ${number(high)}` : `measured best at ${number(low)}`;
    const from = choices.negative ? -max : 0;
    const share = (/** @type {number} */ value) => String((value - from) / (max - from));
    const track = /** @type {HTMLElement} */ (this.slider.parentElement);
    track.style.setProperty("--low", marked ? share(low) : "0");
    track.style.setProperty("--high", marked ? share(high) : "0");
    const zone = this.zoneText(marked, low, high);
    this.zone.textContent = zone;
    this.slider.setAttribute("aria-valuetext", `${number(choices.strength)}. ${zone}`);
    drawDose(this.chart, marked ? report : null, choices.steering ? choices.strength : 0, max);

    this.tint.checked = choices.tint;
    document.documentElement.classList.toggle("tint", choices.tint);
    this.top.checked = choices.top;
    this.negative.checked = choices.negative;
    this.op.value = choices.op;
    this.positions.value = choices.positions;
    this.feature.value = String(choices.feature);
    this.active.checked = choices.onlyIfActive;
    this.bos.checked = choices.includeBos;
    this.temperature.value = String(choices.temperature);
    this.seed.value = String(choices.seed);
    this.length.value = String(choices.maxTokens);
  }

  /** Whether the report's figures are about these choices. */
  isMeasured() {
    const { choices, report } = this.settings;
    return Boolean(report) && choices.feature === report?.feature && choices.op === "clamp" && choices.positions === "all" && !choices.onlyIfActive;
  }

  /**
   * @param {boolean} marked
   * @param {number} low
   * @param {number} high
   */
  zoneText(marked, low, high) {
    const { settings } = this;
    const { choices } = settings;
    if (!choices.hook) return "Steering needs a dictionary of the model.";
    if (!choices.steering) return "Off: both lanes compute the same.";
    if (choices.op === "project_out") return "The feature's direction is removed from the residual stream.";
    if (choices.strength < 0) return "Below zero the feature is pushed down: the model declines less.";
    if (!marked) return "Not measured for these choices.";
    const { base, curve } = /** @type {Report} */ (settings.report);
    if (choices.strength < low) {
      const weaker = base && curve.length && nearest(curve, choices.strength).jailbreak < base.jailbreak;
      return weaker
        ? "Low: the feature is held under its usual level, and the model declines less than the base."
        : "Gentle: some jailbreaks still get through.";
    }
    if (choices.strength <= high) return "Useful: more jailbreaks are declined, ordinary chat stays ordinary.";
    return "Strong: harmless requests may be declined too, and text may fall apart.";
  }
}
