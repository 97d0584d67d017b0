// The browser's private file system and locks, as far as the store uses them, in memory.

class Missing extends Error {
  name = "NotFoundError";
}

class FileHandle {
  kind = "file";
  bytes = new Uint8Array(0);
  open = false;
  async getFile() {
    return new File([this.bytes], "x");
  }
  async createSyncAccessHandle() {
    if (this.open) throw Object.assign(new Error("held"), { name: "NoModificationAllowedError" });
    this.open = true;
    return {
      getSize: () => this.bytes.length,
      read: (into, { at }) => {
        const part = this.bytes.subarray(at, at + into.length);
        into.set(part);
        return part.length;
      },
      write: (piece, { at }) => {
        if (at + piece.length > this.bytes.length) this.resize(at + piece.length);
        this.bytes.set(piece, at);
        return piece.length;
      },
      truncate: (size) => this.resize(size),
      flush: () => {},
      close: () => {
        this.open = false;
      },
    };
  }
  resize(size) {
    const next = new Uint8Array(size);
    next.set(this.bytes.subarray(0, size));
    this.bytes = next;
  }
}

class DirectoryHandle {
  kind = "directory";
  inside = new Map();
  take(name, create, Kind) {
    if (!this.inside.has(name)) {
      if (!create) throw new Missing(name);
      this.inside.set(name, new Kind());
    }
    return this.inside.get(name);
  }
  async getDirectoryHandle(name, { create = false } = {}) {
    return this.take(name, create, DirectoryHandle);
  }
  async getFileHandle(name, { create = false } = {}) {
    return this.take(name, create, FileHandle);
  }
  async removeEntry(name) {
    if (!this.inside.delete(name)) throw new Missing(name);
  }
  async *keys() {
    yield* [...this.inside.keys()];
  }
  async *entries() {
    yield* [...this.inside.entries()];
  }
}

/** Puts an empty file system in place of the browser's. */
export function freshDisk() {
  const root = new DirectoryHandle();
  const held = new Set();
  const locks = {
    request: async (name, _how, action) => {
      if (held.has(name)) return action(null);
      held.add(name);
      try {
        return await action({ name });
      } finally {
        held.delete(name);
      }
    },
    query: async () => ({ held: [...held].map((name) => ({ name })) }),
  };
  Object.defineProperty(globalThis, "navigator", { value: { storage: { getDirectory: async () => root }, locks }, configurable: true });
  return root;
}
