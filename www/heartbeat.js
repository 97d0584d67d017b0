// Notices when the engine's worker no longer answers. It counts its own beats and not the time, so
// that a machine that slept or a tab in the background raises no alarm.

/** Milliseconds between two beats. */
const BEAT = 1500;

/** Beats without a word from the worker that make it silent. */
const SILENT = 4;

/**
 * What it listens to: see the engine of engine-client.js.
 * @typedef {{heard: number, ping: () => Promise<void>}} Patient
 */

/** Asks the engine for a sign of life, again and again. */
export class Heartbeat {
  /** @param {{silent: () => void, back: () => void}} actions */
  constructor(actions) {
    this.actions = actions;
    /** Whether the worker answers no more. */
    this.silent = false;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  /** @param {Patient} engine */
  watch(engine) {
    this.rest();
    let heard = engine.heard;
    let missed = 0;
    let asking = false;
    this.timer = setInterval(() => {
      if (engine.heard !== heard) {
        heard = engine.heard;
        missed = 0;
        if (this.silent) {
          this.silent = false;
          this.actions.back();
        }
      } else if (asking) {
        missed++;
        if (missed === SILENT) {
          this.silent = true;
          this.actions.silent();
        }
      }
      if (asking) return;
      asking = true;
      // A dead engine tells of its death itself.
      const done = () => (asking = false);
      engine.ping().then(done, done);
    }, BEAT);
  }

  /** Listens no more. */
  rest() {
    clearInterval(this.timer);
    this.silent = false;
  }
}
