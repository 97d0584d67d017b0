// Which part of the page is shown, as the address's fragment says it: "lab=find", "lab=lesson.3",
// "lab=feature.329", beside what a share link says. Without it the chat is shown.

/** The parts of the page beside the chat, as links name them. */
export const VIEWS = /** @type {const} */ (["find", "measure", "feature", "strengths", "gate", "train", "runs", "lesson"]);

/** @typedef {typeof VIEWS[number]} View */

/**
 * @typedef {object} Route
 * @property {View | "chat"} view
 * @property {number | null} part the lesson's step, the feature's number
 */

/**
 * @param {string} hash of the address
 * @returns {Route} the chat's where it names nothing that is here
 */
export function routeOf(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, "")).get("lab") ?? "";
  const [, name, part] = /^([a-z]+)(?:\.(\d{1,9}))?$/.exec(said) ?? [];
  const view = VIEWS.find((one) => one === name);
  return view ? { view, part: part === undefined ? null : Number(part) } : { view: "chat", part: null };
}

/**
 * A fragment that shows a part of the page, with all else that the given one says.
 * @param {View | "chat"} view
 * @param {number | null} [part]
 * @param {string} [hash]
 * @returns {string} without "#"
 */
export function hashFor(view, part = null, hash = "") {
  const pairs = [...new URLSearchParams(hash.replace(/^#/, ""))].filter(([name]) => name !== "lab" && name !== "recipe");
  if (view !== "chat") pairs.push(["lab", part === null ? view : `${view}.${part}`]);
  return new URLSearchParams(pairs).toString();
}

/**
 * What of a fragment says which part of the page is shown, with its "#"; "" for the chat.
 * @param {string} hash
 */
export function onlyView(hash) {
  const { view, part } = routeOf(hash);
  return view === "chat" ? "" : `#${hashFor(view, part)}`;
}

/**
 * What of a fragment says what runs and how: all but the view.
 * @param {string} hash
 */
export const withoutView = (hash) => hashFor("chat", null, hash);
