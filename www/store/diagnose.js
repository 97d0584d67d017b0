// Browsers do not tell a page why another site's answer cannot be read. This finds out what can be.

import { StoreError } from "./errors.js";
import { shownUrl } from "./shown.js";

/**
 * @param {string} url that could not be fetched
 * @param {string} page the page's address
 * @param {boolean} online
 * @param {typeof fetch} [get]
 * @returns {Promise<StoreError | null>} null where it may pass by itself
 */
export async function diagnose(url, page, online, get = (input, init) => fetch(input, init)) {
  if (!online || new URL(url).origin === new URL(page).origin) return null;
  const ask = (/** @type {RequestInit} */ how) => get(url, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(10_000), ...how });
  try {
    // An answer that may not be read shows that the server is there.
    await ask({ mode: "no-cors" });
  } catch {
    return null;
  }
  const { host } = new URL(url);
  let direct;
  try {
    direct = await ask({ mode: "cors", redirect: "manual" });
  } catch {
    return new StoreError("cors", `${host} answers, but does not allow other sites to read its files (no Access-Control-Allow-Origin header): ${shownUrl(url)}`);
  }
  // It may be read after all: what failed before was the connection.
  if (direct.type !== "opaqueredirect") return null;
  return new StoreError("cors", `${host} allows reading but sends on to another server, which does not allow other sites to read its files (no Access-Control-Allow-Origin header there): ${shownUrl(url)}`);
}
