// Files and folders dropped anywhere on the page.

import { MOST_CHOSEN } from "./catalogue.js";

/**
 * All files in what was dropped, each named by its path; a few more than are taken where there are many.
 * @param {DataTransfer} data
 * @returns {Promise<File[]>}
 */
export async function droppedFiles(data) {
  // Both must be read before the first await: after the event they are empty.
  const plain = [...data.files];
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return plain;
  /** @type {File[]} */
  const files = [];
  for (const entry of entries) if (entry) await gather(entry, "", files);
  return files;
}

/**
 * @param {FileSystemEntry} entry
 * @param {string} above path of its folder, with a slash at the end
 * @param {File[]} files to which those inside are added
 */
async function gather(entry, above, files) {
  const path = above + entry.name;
  if (entry.isFile) {
    /** @type {File} */
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    files.push(new File([file], path));
    return;
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  while (files.length <= MOST_CHOSEN) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await gather(one, `${path}/`, files);
  }
}

/**
 * Takes drops of files on the whole page.
 * @param {HTMLElement} veil shown while something is held over the page
 * @param {(files: File[]) => void} take
 */
export function startDrop(veil, take) {
  const holdsFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
  let depth = 0;
  const show = () => {
    veil.hidden = depth <= 0;
  };
  addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    depth += 1;
    show();
  });
  addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth -= 1;
    show();
  });
  addEventListener("dragover", (event) => {
    if (holdsFiles(event)) event.preventDefault();
  });
  addEventListener("drop", async (event) => {
    if (!holdsFiles(event) || !event.dataTransfer) return;
    event.preventDefault();
    depth = 0;
    show();
    const files = await droppedFiles(event.dataTransfer);
    if (files.length) take(files);
  });
}
