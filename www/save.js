// Hands the visitor a file.

import { h } from "./dom.js";

/**
 * @param {string} name
 * @param {string} type
 * @param {string | Blob} data
 */
export function saveFile(name, type, data) {
  const url = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Text as the name of a file.
 * @param {string} text
 * @param {string} fallback
 */
export const fileName = (text, fallback) => text.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "") || fallback;
