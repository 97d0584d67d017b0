// The small card that says what the tracked feature did at a token: on hover, on focus, on touch.
// Inside an answer the arrow keys walk from token to token.

import { h, number } from "./dom.js";

/** @import { TokenRecord } from "./types.d.ts" */

/**
 * @typedef {object} Description
 * @property {TokenRecord} token
 * @property {number} feature whose activation the token carries
 * @property {string[]} notes
 * @property {import("./lab/firing.js").Place} [place] where it is in the chat
 */

/** @type {WeakMap<Element, Description>} */
const described = new WeakMap();

/** @type {HTMLElement} made by startTips */
let tip;
/** @type {HTMLElement | null} */
let current = null;

/**
 * @param {Element} node
 * @param {Description} description
 */
export function describeToken(node, description) {
  described.set(node, description);
}

/** @param {EventTarget | null} target */
const tokenOf = (target) =>
  target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest(".token")) : null;

/**
 * Listens for the whole page; call it once.
 * @param {(place: import("./lab/firing.js").Place) => void} open a token of the chat was pressed
 */
export function startTips(open) {
  tip = h("div", { id: "token-tip", className: "token-tip", role: "tooltip", hidden: true });
  (document.querySelector("main.chat") ?? document.body).append(tip);
  document.addEventListener("pointerover", (event) => {
    const node = tokenOf(event.target);
    if (node) show(node);
    else if (current && current !== document.activeElement) hide();
  });
  document.addEventListener("focusin", (event) => {
    const node = tokenOf(event.target);
    if (node) show(node);
    else hide();
  });
  document.addEventListener("scroll", () => current && place(current), { capture: true, passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    else if (event.key === "Enter") press(event.target);
  });
  document.addEventListener("click", (event) => {
    // Whoever marks text wants no dialog.
    if (getSelection()?.isCollapsed ?? true) press(event.target);
  });
  const press = (/** @type {EventTarget | null} */ target) => {
    const node = tokenOf(target);
    const place = node ? described.get(node)?.place : undefined;
    if (place && place.turn.state !== "running") open(place);
  };
}

/** @param {HTMLElement} node */
function show(node) {
  const entry = described.get(node);
  if (!entry) return;
  hide();
  current = node;
  const { token, feature, notes } = entry;
  tip.replaceChildren(
    h("code", {}, visible(token.text)),
    h("span", { className: "tip-value" }, `feature ${feature}: ${number(token.activation ?? 0)} before the edit`),
    ...notes.map((note) => h("span", { className: "tip-note" }, note)),
  );
  if (token.top?.length) {
    tip.append(
      h("span", { className: "tip-note" }, "strongest features"),
      h("ol", {}, ...token.top.map(([other, value]) => h("li", {}, h("b", {}, String(other)), ` ${number(value)}`))),
    );
  }
  if (entry.place) tip.append(h("span", { className: "tip-note" }, "press: which features fire here"));
  tip.hidden = false;
  node.setAttribute("aria-describedby", tip.id);
  place(node);
}

/** @param {HTMLElement} node */
function place(node) {
  const box = node.getClientRects()[0] ?? node.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2), innerWidth - size.width - 8);
  const above = box.top - size.height - 8;
  // The head of an answer says what it is worth: it stays in sight.
  const head = node.closest(".answer")?.querySelector("header")?.getBoundingClientRect();
  const most = head && head.bottom > 0 ? head.bottom : 0;
  const below = box.bottom + 8;
  const fits = below + size.height < innerHeight - 8;
  tip.style.setProperty("left", `${left}px`);
  tip.style.setProperty("top", `${above > Math.max(8, most) || !fits ? Math.max(8, above) : below}px`);
}

function hide() {
  current?.removeAttribute("aria-describedby");
  current = null;
  tip.hidden = true;
}

/**
 * 0 to 1 for a tint.
 * @param {number} activation
 * @param {number} scale the activation of the full tint
 */
export const heat = (activation, scale) => Math.min(1, Math.max(0, activation / scale)).toFixed(3);

/** A token's text with its white space made visible. */
export const visible = (/** @type {string} */ text) => text.replaceAll("\n", "\u21b5").replaceAll(" ", "\u00b7") || "\u2205";

/**
 * One tab stop for all tokens of a container; arrows, Home and End move inside.
 * @param {HTMLElement} container
 */
export function keyWalk(container) {
  container.addEventListener("keydown", (event) => {
    const here = tokenOf(event.target);
    if (!here || event.altKey || event.ctrlKey || event.metaKey) return;
    const tokens = /** @type {HTMLElement[]} */ ([...container.querySelectorAll(".token")]);
    const index = tokens.indexOf(here);
    /** @type {Record<string, number>} */
    const moves = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tokens.length - 1 };
    const next = tokens[moves[event.key] ?? -1];
    if (!(event.key in moves)) return;
    event.preventDefault();
    if (!next) return;
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
