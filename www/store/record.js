// A small JSON record on disk that survives a crash at any moment: it lies in two files that are
// written in turn, each with its number and a hash, so that one of them is always whole.

import { patiently } from "./errors.js";
import { sha256 } from "./sha256.js";

const encoder = new TextEncoder();

/**
 * @param {number} number counts the writes
 * @param {unknown} value
 * @returns {Uint8Array}
 */
export function encode(number, value) {
  const body = `${number}\n${JSON.stringify(value)}`;
  return encoder.encode(`${sha256(encoder.encode(body))}\n${body}`);
}

/**
 * @param {Uint8Array} bytes
 * @returns {{number: number, value: any} | null} null unless it is whole
 */
export function decode(bytes) {
  const text = new TextDecoder().decode(bytes);
  const [hash] = text.split("\n", 1);
  const body = text.slice(hash.length + 1);
  if (hash.length !== 64 || sha256(encoder.encode(body)) !== hash) return null;
  const [number] = body.split("\n", 1);
  try {
    return { number: Number(number), value: JSON.parse(body.slice(number.length + 1)) };
  } catch {
    return null;
  }
}

/**
 * @param {({number: number, value: any} | null)[]} slots
 * @returns {{slot: number, number: number, value: any} | null} the last that was written whole
 */
export function newest(slots) {
  let best = null;
  for (const [slot, record] of slots.entries()) {
    if (record && (!best || record.number > best.number)) best = { slot, ...record };
  }
  return best;
}

const SLOTS = ["a", "b"];

/**
 * Reads without a lock: a write under way elsewhere spoils at most the older slot.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 * @returns {Promise<any>} null when there is none
 */
export async function readRecord(folder, name) {
  const slots = await Promise.all(
    SLOTS.map(async (slot) => {
      try {
        const file = await (await folder.getFileHandle(`${name}.${slot}`)).getFile();
        return decode(new Uint8Array(await file.arrayBuffer()));
      } catch {
        return null;
      }
    }),
  );
  return newest(slots)?.value ?? null;
}

/** A record open for writing. */
export class RecordFile {
  /**
   * @param {FileSystemDirectoryHandle} folder
   * @param {string} name
   */
  static async open(folder, name) {
    /** @type {FileSystemSyncAccessHandle[]} */
    const handles = [];
    try {
      for (const slot of SLOTS) {
        const file = await folder.getFileHandle(`${name}.${slot}`, { create: true });
        handles.push(await patiently(() => file.createSyncAccessHandle()));
      }
    } catch (error) {
      for (const handle of handles) handle.close();
      throw error;
    }
    return new RecordFile(handles);
  }

  /** @param {FileSystemSyncAccessHandle[]} handles */
  constructor(handles) {
    this.handles = handles;
    const slots = handles.map((handle) => {
      const bytes = new Uint8Array(handle.getSize());
      handle.read(bytes, { at: 0 });
      return decode(bytes);
    });
    const last = newest(slots);
    this.number = last?.number ?? 0;
    this.slot = last?.slot ?? 1;
    /** What was last written, null at first. */
    this.value = last?.value ?? null;
  }

  /** @param {unknown} value */
  write(value) {
    const slot = 1 - this.slot;
    const bytes = encode(this.number + 1, value);
    const handle = this.handles[slot];
    handle.truncate(0);
    handle.write(bytes, { at: 0 });
    handle.flush();
    this.number += 1;
    this.slot = slot;
    this.value = value;
  }

  close() {
    for (const handle of this.handles) handle.close();
  }
}
