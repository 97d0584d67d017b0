// A feature's card: where it is active, what it writes, what is near it, what it is called.

import { h, number, svg } from "../dom.js";
import { errorPanel } from "../errors.js";
import { linkTo } from "../links.js";
import { asEngineError } from "../line.js";
import { saveFile } from "../save.js";
import { heat, visible } from "../token-tip.js";
import { allLabels, labelOf, setLabel } from "./labels.js";
import { SCHEMA } from "./recipes.js";
import { WorkCard } from "./work-card.js";

/** @import { LabResult } from "../types.d.ts" */
/** @import { Kept } from "./shelf.js" */
/** @import { LabPage } from "./lab.js" */
/** @import { Recipe } from "./recipes.js" */

/** The view. */
export class CardView {
  /** @param {LabPage} page */
  constructor(page) {
    this.page = page;
    this.title = "Feature";
    this.feature = /** @type {number | null} */ (null);
    this.field = h("input", { id: "card-feature", type: "number", min: 0, step: 1, required: true });
    this.search = h("input", { id: "card-search", type: "text", autocomplete: "off", placeholder: "your own labels" });
    this.hits = h("ul", { className: "label-hits" });
    this.text = h("textarea", { id: "card-text", rows: 2, placeholder: "a text of your own, to see where it is active in it" });
    this.go = h("button", { type: "submit", className: "button primary" }, "Open its card");
    this.work = new WorkCard(page.runner, ["card"]);
    this.trouble = h("div");
    this.card = h("div", { className: "feature-card" });
    const form = h(
      "form",
      { className: "card-form" },
      h("div", {}, h("label", { for: "card-feature" }, "Number"), this.field),
      h("div", { className: "grow" }, h("label", { for: "card-text" }, "Own text ", h("small", {}, "optional")), this.text),
      this.go,
      h("div", { className: "full" }, h("label", { for: "card-search" }, "Or find one by its label"), this.search, this.hits),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const feature = this.field.valueAsNumber;
      if (feature === this.feature) this.open(feature);
      else page.open("feature", feature);
    });
    this.search.addEventListener("input", () => this.find());
    this.node = h("section", { className: "lab-section" }, h("h2", { tabIndex: -1 }, "A feature\u2019s card"), h("p", {}, "A feature has a number and no name. Its card shows at which words it is most active, which words it would write, and which features are like it. What it stands for is for you to say."), form, this.trouble, this.work.node, this.card);
    this.draw();
    page.runner.addEventListener("change", () => this.draw());
  }

  /** @param {number | null} part */
  visit(part) {
    const feature = part ?? this.feature ?? this.page.settings.choices.feature;
    this.field.value = String(feature);
    this.find();
    if (part !== null && part !== this.feature) this.open(part);
  }

  changed() {
    const { feature } = this;
    this.feature = null;
    this.card.replaceChildren();
    this.field.max = String(Math.max(0, (this.page.engine()?.info.sae?.features ?? 1) - 1));
    if (feature === null) this.field.value = String(this.page.settings.choices.feature);
    this.draw();
    if (feature !== null && this.node.isConnected) this.open(feature);
  }

  draw() {
    this.go.disabled = !this.page.engine()?.info.sae;
  }

  /** Features whose label holds what is looked for. */
  async find() {
    const wanted = this.search.value.trim().toLowerCase();
    const labels = (await allLabels(this.page.runner)).filter(({ label }) => label.toLowerCase().includes(wanted)).slice(0, 20);
    this.hits.replaceChildren(...labels.map(({ feature, label }) => h("li", {}, h("a", { href: `#lab=feature.${feature}`, "data-lab": `feature.${feature}` }, `${feature}: ${label}`))));
  }

  /**
   * @param {number} feature
   * @returns {Recipe}
   */
  recipe(feature) {
    const hook = this.page.engine()?.info.sae?.hook;
    const own = this.text.value.trim();
    return { schema: SCHEMA, task: "card", ...(hook ? { hook } : {}), sets: { name: this.page.sets() }, feature, ...(own ? { texts: [own] } : {}), seed: 1 };
  }

  /** @param {number} feature */
  async open(feature) {
    const { page } = this;
    this.trouble.replaceChildren();
    if (!page.engine()?.info.sae) {
      this.feature = feature;
      return;
    }
    this.feature = feature;
    try {
      const kept = await page.runner.kept(this.recipe(feature));
      if (kept?.state !== "done" && page.runner.running) {
        this.note("The lab is at something else just now: open the card when it is done.");
        return;
      }
      const run = await page.runner.start(this.recipe(feature));
      if (run && this.feature === feature) await this.fill(run.result);
    } catch (error) {
      this.trouble.replaceChildren(errorPanel(asEngineError(error), []));
    }
  }

  /** @param {string} sentence */
  note(sentence) {
    this.trouble.replaceChildren(h("p", { className: "muted", role: "status" }, sentence));
  }

  /** @param {LabResult} result */
  async fill(result) {
    const { page } = this;
    const feature = Number(result.feature);
    const label = h("input", { id: "card-label", type: "text", autocomplete: "off", maxLength: 120, value: await labelOf(page.runner, feature) });
    label.addEventListener("change", () => setLabel(page.runner, feature, label.value).then(() => this.find()));
    const copy = h("button", { type: "button", className: "button" }, "Copy link");
    copy.addEventListener("click", async () => {
      const link = linkTo([...page.places(), ["lab", `feature.${feature}`]], "");
      await navigator.clipboard.writeText(link).then(
        () => (copy.textContent = "Link copied"),
        () => this.note(link),
      );
      setTimeout(() => (copy.textContent = "Copy link"), 2000);
    });
    const steer = () => {
      page.settings.set({ feature, steering: true, set: "", direction: false });
      page.open("chat");
    };
    const { logits, density, neighbours, strongest, histogram } = result;
    this.card.replaceChildren(
      h(
        "section",
        { className: "lab-hero", "aria-label": `Feature ${feature}` },
        h("h2", {}, `Feature ${feature}`),
        h("div", { className: "lab-form" }, h("label", { for: "card-label" }, "What you call it ", h("small", {}, "kept in this browser")), label),
        h("p", {}, densityWords(density)),
        effectWords(result),
        h(
          "div",
          { className: "actions" },
          h("button", { type: "button", className: "button primary", onclick: steer }, "Steer it in the chat"),
          copy,
          h("button", { type: "button", className: "button", onclick: () => saveFile(`feature-${feature}.json`, "application/json", `${JSON.stringify({ ...result, label: label.value }, null, 1)}\n`) }, "Save as JSON"),
        ),
      ),
      h("section", {}, h("h3", {}, "Where it is most active"), contexts(strongest ?? [])),
      ...publishedOf(result.published),
      h(
        "div",
        { className: "card-columns" },
        h("section", {}, h("h3", {}, "How strong it is, where it is active"), bars(histogram)),
        logits ? h("section", {}, h("h3", {}, "What it would write"), h("p", { className: "muted" }, `Its direction, read as words. ${lensWords(logits.how)}`), h("div", { className: "logit-columns" }, words("More likely", logits.top), words("Less likely", logits.bottom))) : null,
        neighbours?.length
          ? h(
              "section",
              {},
              h("h3", {}, "Features like it"),
              h("ul", { className: "neighbours" }, ...neighbours.slice(0, 12).map((/** @type {any} */ one) => h("li", {}, h("a", { href: `#lab=feature.${one.feature}`, "data-lab": `feature.${one.feature}` }, String(one.feature)), h("span", { className: "muted" }, ` cosine ${number(one.cosine)}`)))),
            )
          : null,
      ),
    );
    // The fields of the card are the lab's own form inside it.
    this.draw();
  }
}

/** @param {unknown} density */
function densityWords(density) {
  if (typeof density !== "number") return "";
  if (density === 0) return "It is active at none of the tokens that were read: a dead feature, as far as these prompts can tell.";
  return `It is active at ${percent(density)} of the tokens that were read.`;
}

/** @param {LabResult} result */
function effectWords({ effect }) {
  if (!effect || typeof effect !== "object") return null;
  if (typeof effect.delta !== "number") return null;
  return h("p", {}, `Held at ${number(effect.at)}, its largest activation here, it moves the log-odds of a refusal by ${number(effect.delta)}: ${Math.abs(effect.delta) < 0.1 ? "next to nothing" : effect.delta > 0 ? "towards refusing" : "away from refusing"}.`);
}

/** @param {unknown} how */
const lensWords = (how) => (typeof how === "string" ? `${how[0]?.toUpperCase()}${how.slice(1)}.` : "");

/**
 * What was published with the dictionary of this feature.
 * @param {any} published
 */
function publishedOf(published) {
  if (!published) return [];
  const title = h("h3", {}, "Published with the dictionary");
  if (published.trouble) return [h("section", {}, title, h("p", { className: "muted" }, `Its examples are left out: ${published.trouble}`))];
  const { strongest = [], top = [], bottom = [] } = published;
  const section = h(
    "section",
    {},
    title,
    h("p", { className: "muted" }, `Measured by those who made it, on their text: where it is most active${typeof published.frequency === "number" ? `, and that it is active at ${percent(published.frequency)} of the tokens` : ""}.`),
    contexts(strongest),
    top.length || bottom.length ? h("div", { className: "logit-columns" }, words("More likely", top), words("Less likely", bottom)) : null,
  );
  return [section];
}

/** @param {number} share */
const percent = (share) => (share >= 0.01 ? `${number(Math.round(1000 * share) / 10)}%` : `${number(Math.round(100_000 * share) / 1000)}%`);

/** @param {any[]} strongest */
function contexts(strongest) {
  if (!strongest.length) return h("p", { className: "muted" }, "It was active at no token.");
  const scale = Math.max(1e-6, ...strongest.flatMap((one) => one.tokens.map((/** @type {any} */ token) => token.activation ?? 0)));
  return h(
    "ol",
    { className: "contexts tint-always" },
    ...strongest.slice(0, 20).map((one) => {
      const most = Math.max(...one.tokens.map((/** @type {any} */ token) => token.activation ?? 0));
      return h(
        "li",
        {},
        h("span", { className: "figure muted" }, number(most)),
        h(
          "p",
          {},
          ...one.tokens.map((/** @type {any} */ token, /** @type {number} */ index) => {
            const span = h("span", { className: `token${index === one.peak ? " peak" : ""}`, title: token.activation === undefined ? "" : number(token.activation) }, token.text.replaceAll("\n", "\u21b5") || "\u2205");
            span.style.setProperty("--heat", heat(token.activation ?? 0, scale));
            return span;
          }),
        ),
      );
    }),
  );
}

/**
 * @param {string} title
 * @param {any[]} list
 */
function words(title, list) {
  const rows = /** @type {{text: string, value: number}[]} */ (list ?? []).slice(0, 10);
  return h("div", {}, h("h4", {}, title), h("ol", {}, ...rows.map(({ text, value }) => h("li", {}, h("code", {}, visible(String(text))), h("span", { className: "muted" }, ` ${number(value)}`)))));
}

/** @param {{edges: number[], counts: number[]} | undefined} histogram */
function bars(histogram) {
  const counts = histogram?.counts ?? [];
  if (!counts.length || !counts.some(Boolean)) return h("p", { className: "muted" }, "Nowhere.");
  const low = histogram?.edges[0] ?? 0;
  const high = histogram?.edges.at(-1);
  const most = Math.max(...counts);
  const width = 320 / counts.length;
  const height = (/** @type {number} */ count) => (count ? 4 + (96 * Math.log1p(count)) / Math.log1p(most) : 0);
  const total = counts.reduce((sum, count) => sum + count, 0);
  return h(
    "div",
    { className: "histogram" },
    svg(
      "svg",
      { viewBox: "0 0 320 122", role: "img", "aria-label": `Histogram of ${total} activations` },
      ...counts.map((count, index) => svg("rect", { x: index * width + 0.5, y: 104 - height(count), width: Math.max(0.5, width - 1), height: height(count) }, svg("title", {}, `${number(count)} tokens`))),
      svg("text", { x: 0, y: 119 }, number(low)),
      ...(typeof high === "number" ? [svg("text", { x: 320, y: 119, "text-anchor": "end" }, number(high))] : []),
    ),
    h("p", { className: "muted" }, `${number(total)} tokens; the height is logarithmic.`),
  );
}
