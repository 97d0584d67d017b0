// One file of the store: its bytes, and a record that says which of them are there and whether the
// whole is known to be right. Bytes are flushed before the record that counts them.

import { StoreError, diskError, patiently } from "./errors.js";
import { areRanges, covered, prefix } from "./ranges.js";
import { RecordFile, readRecord } from "./record.js";
import { Sha256 } from "./sha256.js";

/** @import { Progress, Target } from "./transfer.js" */

/**
 * @typedef {object} FileRecord
 * @property {"part" | "whole"} state "whole": all is there and was hashed
 * @property {number | null} total bytes
 * @property {string | null} etag
 * @property {import("./ranges.js").Range[]} done
 * @property {string | null} sha256 as computed from the stored bytes, also where it is not the promised one
 */

/** @returns {FileRecord} */
const nothing = () => ({ state: "part", total: null, etag: null, done: [], sha256: null });

/** Bytes that are hashed at a time, and between two pauses. */
const BLOCK = 1 << 20;
/** Bytes that are hashed with one save, so that the hash keeps up with the download. */
const FOLLOW = 32 << 20;

/**
 * @param {any} value
 * @returns {FileRecord} an empty one where the value is none
 */
function checked(value) {
  const total = value?.total ?? null;
  const good =
    ["part", "whole"].includes(value?.state) && (total === null || Number.isSafeInteger(total)) && areRanges(value.done, total ?? 0);
  return good ? value : nothing();
}

/**
 * What is known of a file, without opening it for writing.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 * @returns {Promise<FileRecord>}
 */
export async function readFileRecord(folder, name) {
  const record = checked(await readRecord(folder, name));
  if (record.total === null) return record;
  try {
    const { size } = await (await folder.getFileHandle(name)).getFile();
    if (size === record.total) return record;
  } catch {
    // The bytes are gone.
  }
  return nothing();
}

/**
 * A file open for writing: only one tab at a time can have it so.
 * @implements {Target}
 */
export class StoredFile {
  /**
   * @param {FileSystemDirectoryHandle} folder
   * @param {string} name
   * @param {string} label for messages
   */
  static async open(folder, name, label) {
    /** @type {FileSystemSyncAccessHandle | null} */
    let data = null;
    try {
      const file = await folder.getFileHandle(name, { create: true });
      data = await patiently(() => file.createSyncAccessHandle());
      return new StoredFile(data, await RecordFile.open(folder, name), label);
    } catch (error) {
      data?.close();
      throw diskError(error, label);
    }
  }

  /**
   * @param {FileSystemSyncAccessHandle} data
   * @param {RecordFile} record
   * @param {string} label
   */
  constructor(data, record, label) {
    this.data = data;
    this.record = record;
    this.label = label;
    /** @type {FileRecord} */
    this.state = checked(structuredClone(record.value));
    this.hash = new Sha256();
    /** Bytes written since it was opened. */
    this.fetched = 0;
    // A record without its bytes: the browser lost them.
    if (this.state.total !== null && data.getSize() !== this.state.total) this.clear();
  }

  /** @returns {Progress} */
  get progress() {
    return this.state;
  }

  get loaded() {
    return covered(this.state.done);
  }

  get complete() {
    return this.state.total !== null && this.loaded === this.state.total;
  }

  /** @param {number} total */
  reserve(total) {
    this.guarded(() => this.data.truncate(total));
  }

  /**
   * @param {number} at
   * @param {Uint8Array} bytes
   */
  write(at, bytes) {
    this.fetched += bytes.length;
    this.guarded(() => {
      if (this.data.write(bytes, { at }) !== bytes.length) {
        throw new StoreError("quota", `There is no room for ${this.label}: the browser's storage for this site is full.`);
      }
    });
  }

  save() {
    this.guarded(() => {
      this.data.flush();
      this.record.write(this.state);
    });
    this.follow(FOLLOW);
  }

  /** Forgets all bytes. */
  clear() {
    this.state = nothing();
    this.hash = new Sha256();
    this.guarded(() => {
      // The record first: it must never count bytes that are gone.
      this.record.write(this.state);
      this.data.truncate(0);
      this.data.flush();
    });
  }

  /**
   * Hashes on, up to the first gap.
   * @param {number} most bytes
   */
  follow(most) {
    const end = Math.min(prefix(this.state.done), this.hash.length + most);
    const block = new Uint8Array(Math.min(BLOCK, Math.max(0, end - this.hash.length)));
    while (this.hash.length < end) {
      const part = block.subarray(0, Math.min(block.length, end - this.hash.length));
      const read = this.data.read(part, { at: this.hash.length });
      if (read !== part.length) throw new StoreError("damaged", `${this.label} on disk is shorter than it was.`);
      this.hash.update(part);
    }
  }

  /**
   * The hash of the whole file, which must be complete; from what was hashed on the way, or anew.
   * @param {AbortSignal} signal
   * @param {(hashed: number) => void} tell
   * @param {boolean} [anew]
   */
  async sha256(signal, tell, anew = false) {
    if (anew) this.hash = new Sha256();
    while (this.hash.length < (this.state.total ?? 0)) {
      this.follow(8 * BLOCK);
      tell(this.hash.length);
      // Lets a message in: to pause, or to cancel.
      await new Promise((resolve) => setTimeout(resolve));
      signal.throwIfAborted();
    }
    const hex = this.hash.hex();
    this.hash = new Sha256();
    return hex;
  }

  /**
   * Notes the hash of bytes that are not those that were promised: another promise may be theirs.
   * @param {string} sha256
   */
  note(sha256) {
    this.state = { ...this.state, sha256 };
    this.save();
  }

  /** Forgets which version of the file the server called it. */
  anyVersion() {
    this.state = { ...this.state, etag: null };
    this.save();
  }

  /** All bytes, of files small enough to be in memory. */
  bytes() {
    const all = new Uint8Array(this.state.total ?? 0);
    this.data.read(all, { at: 0 });
    return all;
  }

  /** @param {string} sha256 */
  finish(sha256) {
    this.state = { ...this.state, state: "whole", sha256 };
    this.guarded(() => {
      this.data.flush();
      this.record.write(this.state);
    });
  }

  close() {
    this.data.close();
    this.record.close();
  }

  /** @param {() => void} action */
  guarded(action) {
    try {
      action();
    } catch (error) {
      throw diskError(error, this.label);
    }
  }
}
