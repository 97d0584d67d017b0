// Notices when the engine's worker no longer answers, and when loading does not get on. It counts its
// own beats and not the time, so that a machine that slept or a tab in the background raises no alarm.

/** Milliseconds between two beats. */
const BEAT = 1500;

/** Beats without a word from the worker that make it silent. */
const SILENT = 4;

/** Beats without progress after which a load that still answers stands: compiling takes a while on slow GPUs. */
const STANDING = 30;

/**
 * What it listens to: see the engine of engine-client.js.
 * @typedef {{heard: number, ping: () => Promise<void>}} Patient
 */

/** Asks the engine for a sign of life, again and again. */
export class Heartbeat {
  /** @param {{silent: () => void, standing: () => void, back: () => void}} actions */
  constructor(actions) {
    this.actions = actions;
    /** Whether the worker answers no more. */
    this.silent = false;
    /** Beats since a load last got on, null when nothing is loaded. */
    this.stood = /** @type {number | null} */ (null);
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {Patient} engine
   * @param {boolean} [loading] whether it loads, and `moved` is called whenever that gets on
   */
  watch(engine, loading = false) {
    this.rest();
    this.stood = loading ? 0 : null;
    let heard = engine.heard;
    let missed = 0;
    let asking = false;
    this.timer = setInterval(() => {
      if (this.stood !== null && ++this.stood === STANDING && !this.silent) this.actions.standing();
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

  /** Loading got on. */
  moved() {
    if (this.stood === null) return;
    if (this.stood >= STANDING && !this.silent) this.actions.back();
    this.stood = 0;
  }

  /** Listens no more. */
  rest() {
    clearInterval(this.timer);
    this.silent = false;
    this.stood = null;
  }
}
