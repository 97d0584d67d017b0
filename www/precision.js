// What weights in plain numbers (f32, f16, bf16) become while they are loaded, and what that costs. What a file
// has quantised is kept as it is.

import { number } from "./dom.js";

/** @typedef {"auto" | "q4" | "q8" | "none"} Precision */

/**
 * Bytes a weight, and what was lost on SmolLM2-135M-Instruct: nats a token against its unquantised distribution, and
 * the share of tokens whose likeliest one stays the same (BENCHMARKS.md).
 * @type {{name: Precision, label: string, bytes: number | null, nats: number | null, same: number | null}[]}
 */
export const PRECISIONS = [
  { name: "auto", label: "By the model\u2019s size", bytes: null, nats: null, same: null },
  { name: "q4", label: "4 bits", bytes: 0.5625, nats: 0.69, same: 0.59 },
  { name: "q8", label: "8 bits", bytes: 1.0625, nats: 0.0023, same: 0.98 },
  { name: "none", label: "Unquantised", bytes: 4, nats: 0, same: 1 },
];

/**
 * @param {unknown} name
 * @returns {name is Precision}
 */
export const isPrecision = (name) => PRECISIONS.some((one) => one.name === name);

/**
 * What a precision costs, in a sentence.
 * @param {Precision} name
 * @returns {string}
 */
export function precisionWords(name) {
  const { bytes, nats, same } = /** @type {typeof PRECISIONS[number]} */ (PRECISIONS.find((one) => one.name === name));
  if (bytes === null) return "Below a billion parameters 8 bits; above 4, with 8 for the embedding and the head; or what the model\u2019s own configuration says that it was measured at.";
  if (nats === 0) return `${number(bytes)} bytes a weight: nothing is lost.`;
  return `${number(bytes)} bytes a weight. On SmolLM2-135M it cost ${nats} nats a token (KL divergence from the unquantised model), and the likeliest token stayed the same at ${Math.round(100 * (same ?? 0))}% of 58 tokens.`;
}
