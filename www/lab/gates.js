// Gates from outside: from results, reports and the storage.

/** @import { Gate } from "../types.d.ts" */

/** Numbers of a probe at most. */
const WIDEST = 2 ** 20;

/**
 * A gate as the engine takes it; null where there is none.
 * @param {any} gate
 * @param {unknown} [hook] where it reads, if it does not say so itself
 * @returns {Gate | null}
 */
export function readGate(gate, hook) {
  const { threshold, weights, bias, feature } = gate ?? {};
  const place = gate?.hook ?? hook;
  if (!Number.isFinite(threshold) || typeof place !== "string" || !/^[\w.]{1,64}$/.test(place)) return null;
  if (Number.isInteger(feature) && feature >= 0) return { hook: place, threshold, feature };
  const probe = Array.isArray(weights) && weights.length > 0 && weights.length <= WIDEST && weights.every(Number.isFinite) && Number.isFinite(bias);
  return probe ? { hook: place, threshold, weights, bias } : null;
}
