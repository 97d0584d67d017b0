/** Of workers only, and so not in the types of pages. */

interface FileSystemSyncAccessHandle {
  read(buffer: Uint8Array, options?: { at?: number }): number;
  write(buffer: Uint8Array, options?: { at?: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface FileSystemFileHandle {
  createSyncAccessHandle(): Promise<FileSystemSyncAccessHandle>;
}

interface FileSystemDirectoryHandle {
  entries(): AsyncIterableIterator<[string, FileSystemHandle]>;
}

/** A hash of the whole build, in front of offline-worker.js. */
declare const BUILD: string;
/** Every file of the build that is kept, and those that are not, in front of offline-worker.js. */
declare const FILES: [path: string, hash: string, bytes: number][];
declare const ASIDE: string[];
