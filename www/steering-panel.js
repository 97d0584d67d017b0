// The steering switch, the strength slider and the advanced choices.

import { byId, h, number } from "./dom.js";
import { behind, isMeasured, isReported, rangeName, zone } from "./dose.js";
import { drawDose } from "./dose-chart.js";
import { ranges, wrong } from "./limits.js";
import { readTargets } from "./lab/written.js";
import { CHOICES, setText, takesValue } from "./settings.js";

/** @import { Settings } from "./settings.js" */
/** @import { Op, Positions, Report } from "./types.d.ts" */

/** Binds the panel of index.html to the settings. */
export class SteeringPanel {
  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
    this.panel = byId("panel", HTMLElement);
    this.more = byId("panel-more", HTMLButtonElement);
    this.name = byId("steering-name", HTMLElement);
    this.tintName = byId("tint-name", HTMLElement);
    this.switch = byId("steering", HTMLFieldSetElement);
    this.states = { off: byId("steer-off", HTMLInputElement), always: byId("steer-always", HTMLInputElement), gated: byId("steer-gated", HTMLInputElement) };
    this.gateNote = byId("gate-note", HTMLElement);
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
    this.set = byId("feature-set", HTMLInputElement);
    this.active = byId("only-if-active", HTMLInputElement);
    this.bos = byId("include-bos", HTMLInputElement);
    this.temperature = byId("temperature", HTMLInputElement);
    this.seed = byId("seed", HTMLInputElement);
    this.length = byId("max-tokens", HTMLInputElement);

    const capital = (/** @type {string} */ text) => text.charAt(0).toUpperCase() + text.slice(1);
    this.op.append(...CHOICES.map(({ name, label, words }) => h("option", { value: name, title: words }, capital(label))));
    const { states, slider, tint, top, negative, op, positions, active, bos } = this;
    states.off.addEventListener("change", () => settings.set({ steering: false }));
    states.always.addEventListener("change", () => settings.set({ steering: true, gated: false }));
    states.gated.addEventListener("change", () => settings.set({ steering: true, gated: true }));
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
    this.set.addEventListener("change", () => this.takeSet());
    this.number(this.feature, "feature");
    this.number(this.seed, "seed");
    this.number(this.length, "maxTokens");
    this.number(this.temperature, "temperature");
    byId("reset", HTMLButtonElement).addEventListener("click", () => settings.reset());
    this.more.addEventListener("click", () => {
      const open = this.panel.classList.toggle("open");
      this.more.setAttribute("aria-expanded", String(open));
      this.more.textContent = open ? "Less" : "More";
    });
    settings.addEventListener("change", () => this.update());
    this.update();
  }

  /**
   * A number field: what it cannot be is said under it, and the number that holds comes back.
   * @param {HTMLInputElement} field
   * @param {"feature" | "seed" | "maxTokens" | "temperature"} name
   */
  number(field, name) {
    const note = h("p", { className: "field-note", id: `${field.id}-note`, role: "status" });
    field.closest(".field")?.after(note);
    field.addEventListener("change", () => {
      const refused = wrong(field.valueAsNumber, ranges(this.settings.known)[name]);
      if (refused) this.update();
      else this.settings.set({ [name]: field.valueAsNumber });
      // What no number can be made of, the browser does not tell.
      note.textContent = refused ? `It ${refused.replace(/, and not NaN$/, "")}. It stays at ${field.value}.` : "";
      if (refused) field.setAttribute("aria-describedby", note.id);
      else field.removeAttribute("aria-describedby");
    });
  }

  /** Several features as somebody wrote them. */
  takeSet() {
    const note = byId("feature-set-note", HTMLElement);
    note.textContent = "";
    try {
      const set = readTargets(this.set.value.replaceAll(/[,;\s]+/g, "+").replace(/^\++|\++$/g, ""))[0]?.features.map(({ feature, max = 1 }) => ({ feature, max }));
      const features = this.settings.known.features ?? Infinity;
      const beyond = set?.find(({ feature, max }) => feature >= features || !(max > 0));
      if (beyond) throw new TypeError(`${beyond.feature}:${beyond.max} is none: there are ${number(features)} features, and the factor is above 0.`);
      const several = set && (set.length > 1 || set[0].max !== 1);
      this.settings.set(set ? { feature: set[0].feature, set: several ? setText(set) : "", direction: false } : { set: "" });
    } catch (error) {
      note.textContent = /** @type {Error} */ (error).message;
    }
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
    const state = !available || !choices.steering ? "off" : choices.gated && settings.gate ? "gated" : "always";
    this.states[state].checked = true;
    this.states.gated.disabled = settings.gate === null;
    this.gateNote.hidden = !available || settings.gate !== null;

    const valued = takesValue(choices.op);
    this.slider.disabled = !available || !valued;
    this.slider.min = String(choices.negative ? -max : 0);
    this.slider.max = String(max);
    this.slider.step = max > 8 ? "0.5" : max > 2 ? "0.1" : "0.05";
    this.slider.value = String(choices.strength);
    this.value.textContent = valued ? number(choices.strength) : "\u2013";
    this.label.textContent = choices.op === "scale" ? "Multiplier" : "Strength";
    const found = report !== null && isReported(choices, report);
    this.name.textContent = found ? "Refusal steering" : "Steering";
    this.tintName.textContent = !available ? "Tint tokens" : found && !report.direction ? `Tint tokens by the refusal feature, ${choices.feature}` : `Tint tokens by feature ${choices.feature}`;
    const told = isMeasured(choices, report) ? report : null;
    const gated = told && state === "gated" ? behind(told, settings.gate) : told;
    const measured = gated?.curve.length || state !== "gated" ? gated : null;
    const [low, high] = measured?.value.useful ?? [0, 0];
    this.useful.hidden = !measured;
    this.useful.textContent = measured ? rangeName(measured) : "";
    const from = choices.negative ? -max : 0;
    const share = (/** @type {number} */ value) => String((value - from) / (max - from));
    const track = /** @type {HTMLElement} */ (this.slider.parentElement);
    track.style.setProperty("--low", share(measured ? low : from));
    track.style.setProperty("--high", share(measured ? high : from));
    const said = this.zoneText(measured);
    this.zone.textContent = said;
    this.slider.setAttribute("aria-valuetext", `${number(choices.strength)}. ${said}`);
    drawDose(this.chart, measured, choices.steering ? choices.strength : null, from, max);

    this.tint.checked = choices.tint;
    document.documentElement.classList.toggle("tint", choices.tint);
    this.top.checked = choices.top;
    this.negative.checked = choices.negative;
    this.op.value = choices.op;
    this.positions.value = choices.positions;
    this.feature.value = String(choices.feature);
    this.set.value = choices.set.replaceAll(",", ", ");
    this.active.checked = choices.onlyIfActive;
    this.bos.checked = choices.includeBos;
    this.temperature.value = String(choices.temperature);
    this.seed.value = String(choices.seed);
    this.length.value = String(choices.maxTokens);
  }

  /**
   * What the strength does, as far as it is known.
   * @param {Report | null} measured the report, where it is about these choices
   */
  zoneText(measured) {
    const { choices, report } = this.settings;
    if (!choices.hook) return "Steering needs a dictionary of the model.";
    if (!choices.steering) return "Off: both answers are the same model's.";
    if (measured) return choices.temperature > 0 ? `${zone(measured, choices.strength)} Measured at temperature 0.` : zone(measured, choices.strength);
    if (!report) return "Nobody has measured what this feature does: try it.";
    if (isMeasured(choices, report)) return "Not measured behind this gate.";
    return isReported(choices, report) ? "Not measured for this operator and these positions." : "Not measured for what is steered here: try it.";
  }
}
