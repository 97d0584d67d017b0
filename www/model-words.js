// The line under the message field: which model answers, what it is and what it is not.

/** @import { Entry } from "./types.d.ts" */

/**
 * @param {Entry} model
 * @returns {string}
 */
export function modelWords({ name, caveat }) {
  return caveat ? `${name} is ${caveat}.` : `${name} is a model of your own choice: nothing is known here of how good its answers are.`;
}
