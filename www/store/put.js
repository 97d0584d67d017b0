// What was made in the page itself, kept like what was downloaded.

import { planned, within } from "./manifest.js";
import { sha256 } from "./sha256.js";
import { shown } from "./shown.js";
import { dataName, describeItem, exclusively, makeItem } from "./store.js";
import { StoredFile } from "./stored-file.js";

/** @import { Kind } from "./forms.js" */
/** @import { Item } from "./store.js" */

/**
 * Keeps files under an address, from which nobody can fetch them again.
 * @param {{key: string, kind: Kind, url: string, name: string}} what
 * @param {{path: string, bytes: Uint8Array}[]} files
 * @returns {Promise<Item>}
 */
export function put({ key, ...what }, files) {
  return exclusively(key, async () => {
    const plan = { ...what, files: files.map(({ path, bytes }) => planned(path, within(what.url, path), { bytes: bytes.length, sha256: sha256(bytes) })) };
    const made = await makeItem(key, plan);
    for (const [index, { path, bytes }] of files.entries()) {
      const file = await StoredFile.open(made.folder, dataName(made.plan.files[index], index), shown(path));
      try {
        file.clear();
        file.reserve(bytes.length);
        file.write(0, bytes);
        file.state = { ...file.state, total: bytes.length, done: bytes.length ? [[0, bytes.length]] : [] };
        file.save();
        file.finish(/** @type {string} */ (plan.files[index].sha256));
      } finally {
        file.close();
      }
    }
    return /** @type {Item} */ (await describeItem(key));
  });
}
