// Small files read into memory while a download is planned, and questions about files: all bounded in
// bytes and in time.

import { Connection, contentLength, contentRange, header, isEncoded, version } from "./connection.js";
import { StoreError } from "./errors.js";
import { beforeNextTry } from "./retry.js";
import { shownUrl } from "./shown.js";

/** @import { Net } from "./retry.js" */

/** Largest list of files that is read, in bytes. */
export const MOST_LIST = 16 << 20;
/** Milliseconds that its reading may take in all: a server that sends a byte now and then is never silent. */
const LONGEST = 120_000;

/**
 * A net that notes the addresses that a server did not hand out while it was asked for what may be missing.
 * @typedef {Net & {page: string, refused: string[]}} Asking with the page's address
 */

/**
 * The bytes of a small file.
 * @param {string} url
 * @param {Asking} net
 * @param {{optional?: boolean}} [how] optional: what is not handed out counts as not there, and is noted
 * @returns {Promise<{bytes: Uint8Array, text: string, response: Response} | null>} null when there is no such file
 */
export async function read(url, net, how = {}) {
  return present(url, net, how, async () => {
    const connection = new Connection(url, net);
    await connection.open();
    const { response } = connection;
    // Nothing but the whole was asked for.
    if (response.status !== 200) {
      connection.close();
      throw new StoreError("bad-answer", `The whole file was asked for, and status ${response.status} came: ${shownUrl(url)}`);
    }
    const bytes = await all(connection, net.longest ?? LONGEST);
    return { bytes, text: new TextDecoder().decode(bytes), response };
  });
}

/**
 * @param {Connection} connection
 * @param {number} longest
 */
async function all(connection, longest) {
  /** @type {Uint8Array[]} */
  const pieces = [];
  let length = 0;
  let late = false;
  const clock = setTimeout(() => {
    late = true;
    connection.own.abort();
  }, longest);
  const address = shownUrl(connection.url);
  try {
    const more = await connection.read(MOST_LIST, (piece) => {
      pieces.push(piece);
      length += piece.length;
    }, true);
    if (more) throw new StoreError("too-large", `This list is too large to be one (more than ${MOST_LIST >> 20} MiB): ${address}`);
  } catch (error) {
    if (late) throw new StoreError("bad-answer", `The server took longer than ${Math.round(longest / 1000)} seconds over a small list: ${address}`);
    throw error;
  } finally {
    clearTimeout(clock);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * What can be known of a file without fetching it.
 * @param {string} url
 * @param {Asking} net
 * @returns {Promise<{bytes: number | null, etag: string | null} | null>} null when there is no such file
 */
export async function probe(url, net) {
  return present(url, net, { optional: true }, async (failures) => {
    if (failures === 0) {
      const found = await head(url, net);
      if (found) return found;
    }
    // A server that knows no HEAD, says no to it, or compresses what is no range: the first byte tells as much, and where there is no
    // answer to that either, the head of the whole.
    const connection = new Connection(url, net);
    await connection.open({ range: failures % 2 ? null : "bytes=0-0" });
    connection.close();
    const { response } = connection;
    const range = response.status === 206 ? contentRange(header(response, "Content-Range") ?? "") : null;
    const length = response.status === 200 ? contentLength(response) : null;
    return isEncoded(response) ? { bytes: null, etag: null } : { bytes: range?.total ?? length, etag: version(response) };
  });
}

/**
 * @param {string} url
 * @param {Asking} net
 * @returns {Promise<{bytes: number | null, etag: string | null} | null>} null where the answer says nothing
 */
async function head(url, net) {
  const connection = new Connection(url, net);
  try {
    await connection.open({ method: "HEAD" });
    const { response } = connection;
    // Of a compressed answer neither is the file's own; whether a page is one, its body says.
    return connection.isPage || isEncoded(response) ? null : { bytes: contentLength(response), etag: version(response) };
  } catch (error) {
    net.signal.throwIfAborted();
    if (error instanceof StoreError && error.code === "not-found") throw error;
    return null;
  } finally {
    connection.close();
  }
}

/**
 * Tries an action as often as it fails in passing.
 * @template T
 * @param {string} url
 * @param {Asking} net
 * @param {{optional?: boolean}} how
 * @param {(failures: number) => Promise<T>} action
 * @returns {Promise<T | null>} null where there is no such file
 */
async function present(url, net, { optional = false }, action) {
  for (let failures = 0; ; ) {
    try {
      return await action(failures);
    } catch (error) {
      net.signal.throwIfAborted();
      if (error instanceof StoreError) {
        if (error.code === "not-found") return null;
        if (error.code === "forbidden" && optional) {
          net.refused.push(url);
          return null;
        }
      }
      failures += 1;
      await beforeNextTry(error, failures, net);
    }
  }
}
