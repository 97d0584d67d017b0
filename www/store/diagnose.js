// Browsers do not tell a page why another site's answer cannot be read. This finds out what can be.

import { StoreError } from "./errors.js";

/**
 * @param {string} url that could not be fetched
 * @param {string} page the page's address
 * @param {boolean} online
 * @param {typeof fetch} [get]
 * @returns {Promise<StoreError | null>} null where it may pass by itself
 */
export async function diagnose(url, page, online, get = (input, init) => fetch(input, init)) {
  if (!online || new URL(url).origin === new URL(page).origin) return null;
  try {
    // An answer that may not be read shows that the server is there.
    await get(url, { method: "HEAD", mode: "no-cors", cache: "no-store", signal: AbortSignal.timeout(10_000) });
  } catch {
    return null;
  }
  return new StoreError("cors", `${new URL(url).host} answers, but does not allow other sites to read its files (no Access-Control-Allow-Origin header): ${url}`);
}
