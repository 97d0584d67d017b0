// A worker's side of line.js: it holds a lock as long as it lives, so that the page learns of its death.

/**
 * @param {string} name of the worker
 * @returns {Promise<string | undefined>} the lock's name; undefined where there are no locks
 */
export function holdLock(name) {
  return new Promise((resolve) => {
    const none = () => resolve(undefined);
    if (!name || !("locks" in navigator)) none();
    else {
      navigator.locks
        .request(name, () => {
          resolve(name);
          // Held until the worker is gone.
          return new Promise(() => {});
        })
        .catch(none);
    }
  });
}
