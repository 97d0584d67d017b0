// Files and folders dropped anywhere on the page.

/**
 * All files in what was dropped, each named by its path.
 * @param {DataTransfer} data
 * @returns {Promise<File[]>}
 */
export async function droppedFiles(data) {
  // Both must be read before the first await: after the event they are empty.
  const plain = [...data.files];
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return plain;
  return (await Promise.all(entries.map((entry) => (entry ? filesOf(entry, "") : [])))).flat();
}

/**
 * @param {FileSystemEntry} entry
 * @param {string} above path of its folder, with a slash at the end
 * @returns {Promise<File[]>}
 */
async function filesOf(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) {
    /** @type {File} */
    const file = await new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject));
    return [new File([file], path)];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const inside = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map((one) => filesOf(one, `${path}/`)))).flat();
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
