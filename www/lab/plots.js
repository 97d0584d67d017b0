// Plots: texts of SVG from the engine, put into the page as nodes (the page takes no markup as text), and
// saved as SVG or PNG in the colours that they have on the page.

import { h, svg } from "../dom.js";
import { fileName, saveFile } from "../save.js";

/** @import { LabPlot } from "../types.d.ts" */

/** What a plot may consist of. */
const ELEMENTS = new Set("svg g path line polyline polygon rect circle ellipse text tspan title desc defs clipPath".split(" "));

/** Attributes that could lead out of the picture. */
const OUTSIDE = /^(on|href$|xlink:|style$|xmlns)/i;

const ENTITIES = /** @type {Record<string, string>} */ ({ lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" });

/** @param {string} text */
const plain = (text) =>
  text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|(\w+));/gi, (whole, hex, digits, name) => {
    if (name) return ENTITIES[name] ?? whole;
    const code = hex ? parseInt(hex, 16) : Number(digits);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });

/**
 * @typedef {object} Tag
 * @property {string} name
 * @property {Record<string, string>} attributes
 * @property {(Tag | string)[]} children
 */

/**
 * Reads a text of SVG: elements, attributes and text; of all else, nothing.
 * @param {string} text
 * @returns {Tag | null} null if it is none
 */
export function parseSvg(text) {
  /** @type {Tag} */
  const root = { name: "", attributes: {}, children: [] };
  const open = [root];
  const parts = /<!--[\s\S]*?-->|<\?[\s\S]*?\?>|<![^>]*>|<(\/?)([\w:-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>|([^<]+)/g;
  for (const [, end, name, attributes, alone, words] of text.matchAll(parts)) {
    const here = open[open.length - 1];
    if (words !== undefined) here.children.push(plain(words));
    else if (name && end) {
      const at = open.findLastIndex((tag) => tag.name === name);
      if (at > 0) open.length = at;
    } else if (name) {
      /** @type {Tag} */
      const tag = { name, attributes: {}, children: [] };
      for (const [, key, double, single] of (attributes ?? "").matchAll(/([\w:.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g)) tag.attributes[key] = plain(double ?? single ?? "");
      here.children.push(tag);
      if (!alone) open.push(tag);
    }
  }
  const found = root.children.find((child) => typeof child === "object" && child.name === "svg");
  return typeof found === "object" ? found : null;
}

/**
 * @param {Tag} tag
 * @returns {SVGElement}
 */
function build({ name, attributes, children }) {
  const kept = Object.fromEntries(Object.entries(attributes).filter(([key]) => !OUTSIDE.test(key)));
  return svg(name, kept, ...children.filter((child) => typeof child === "string" || ELEMENTS.has(child.name)).map((child) => (typeof child === "string" ? child : build(child))));
}

/**
 * A plot with its title, and the buttons that save it.
 * @param {LabPlot} plot
 * @returns {HTMLElement}
 */
export function plotFigure({ name, title, svg: text }) {
  const tag = parseSvg(text);
  if (!tag) return h("p", { className: "muted" }, `The plot \u201c${title}\u201d cannot be shown.`);
  const picture = build(tag);
  picture.classList.add("plot");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", title);
  const save = (/** @type {"svg" | "png"} */ kind) => h("button", { type: "button", className: "quiet", "aria-label": `Save \u201c${title}\u201d as ${kind.toUpperCase()}`, onclick: () => savePlot(picture, name, kind) }, kind.toUpperCase());
  return h("figure", { className: "plot-figure" }, h("figcaption", {}, h("span", {}, title), h("span", { className: "plot-saves" }, save("svg"), save("png"))), h("div", { className: "plot-scroll" }, picture));
}

/**
 * Draws the plots of results into a holder, in the place of what it holds.
 * @param {HTMLElement} holder
 * @param {import("../engine-client.js").Engine | null} engine
 * @param {import("../types.d.ts").LabResult[]} results
 */
export async function drawPlots(holder, engine, results) {
  try {
    const plots = (await engine?.labPlots(results, { theme: "css" })) ?? [];
    if (plots.length) holder.replaceChildren(...plots.map(plotFigure));
  } catch (error) {
    console.warn(`The plots were not drawn: ${error}`);
  }
}

/** What of an element's style a picture needs of its own, away from the page. */
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "fill-opacity", "stroke-opacity", "opacity", "font-size", "font-weight", "font-family", "text-anchor", "dominant-baseline"];

/**
 * A picture as a file's text, in the colours that it has on the page.
 * @param {SVGElement} picture
 * @returns {string}
 */
function standalone(picture) {
  const copy = /** @type {SVGElement} */ (picture.cloneNode(true));
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, index) => {
    const style = getComputedStyle(originals[index]);
    for (const name of STYLES) {
      const value = style.getPropertyValue(name);
      if (value) node.setAttribute(name, value);
    }
    node.removeAttribute("class");
  });
  const { width, height } = box(picture);
  const background = getComputedStyle(document.documentElement).getPropertyValue("--surface").trim();
  copy.setAttribute("width", String(width));
  copy.setAttribute("height", String(height));
  const under = svg("rect", { x: 0, y: 0, width, height });
  under.setAttribute("fill", colour(background));
  copy.prepend(under);
  return new XMLSerializer().serializeToString(copy);
}

/**
 * A colour of the style sheets as any program reads it.
 * @param {string} value
 */
function colour(value) {
  const probe = h("i", {});
  probe.style.setProperty("color", value);
  document.body.append(probe);
  const plainColour = getComputedStyle(probe).color;
  probe.remove();
  return plainColour;
}

/** @param {SVGElement} picture */
function box(picture) {
  const [, , width, height] = (picture.getAttribute("viewBox") ?? "0 0 640 360").split(/[\s,]+/).map(Number);
  return { width, height };
}

/**
 * @param {SVGElement} picture
 * @param {string} name
 * @param {"svg" | "png"} kind
 */
async function savePlot(picture, name, kind) {
  const text = standalone(picture);
  const file = fileName(name, "plot");
  if (kind === "svg") {
    saveFile(`${file}.svg`, "image/svg+xml", `<?xml version="1.0" encoding="UTF-8"?>\n${text}\n`);
    return;
  }
  const { width, height } = box(picture);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = h("canvas", { width: 2 * width, height: 2 * height });
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => blob && saveFile(`${file}.png`, "image/png", blob), "image/png");
}
