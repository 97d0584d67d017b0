// What bytes are, whatever their name says: looked at before the rest of a file is fetched.

import { StoreError } from "./errors.js";
import { parse } from "./manifest.js";
import { shown } from "./shown.js";

/** Bytes at the front of a file that are looked at. */
export const HEAD = 1024;

/** Largest description that is taken, in bytes; weights are as large as their server says. */
const MOST_TEXT = 64 << 20;

/** Descriptions in text, which come before any weights. */
export const isText = (/** @type {string} */ path) => /\.(json|jinja|txt)$/i.test(path);

/** The most bytes that a file of this name may have. */
export const mostBytes = (/** @type {string} */ path) => (isText(path) ? MOST_TEXT : 2 ** 43);

/** What stands at the front of files that are there instead of others. */
const INSTEAD = [
  { begins: /^\uFEFF?\s*<(!doctype|html)/i, what: "a web page" },
  { begins: /^\uFEFF?\s*<(\?xml|error)/i, what: "an error message of the server (XML)" },
  { begins: /^version https:\/\/git-lfs/, what: "a pointer of Git LFS: the repository was copied without its large files" },
];

/**
 * Refuses a file whose first bytes are not those of its kind.
 * @param {string} path
 * @param {Uint8Array} head
 * @throws {StoreError}
 */
export function checkHead(path, head) {
  if (!/\.(json|jinja|safetensors|gguf|npz)$/i.test(path)) return;
  const text = new TextDecoder("latin1").decode(head);
  const utf8 = new TextDecoder().decode(head);
  const instead = INSTEAD.find(({ begins }) => begins.test(utf8));
  if (instead) throw new StoreError("not-found", `Instead of ${shown(path)} there is ${instead.what}.`);
  const wrong = (/** @type {string} */ what) => new StoreError("bad-answer", `${shown(path)} is no ${what}: it begins \u201c${shown(utf8.slice(0, 24))}\u201d.`);
  if (/\.json$/i.test(path) && !/^\uFEFF?\s*[[{]/.test(utf8) && head.length) throw wrong("JSON of a model");
  if (/\.safetensors$/i.test(path) && !isSafetensors(head)) throw wrong("safetensors file");
  if (/\.npz$/i.test(path) && !text.startsWith("PK")) throw wrong("npz file");
  if (!/\.gguf$/i.test(path)) return;
  if (!text.startsWith("GGUF")) throw wrong("GGUF file");
  const architecture = ggufArchitecture(head);
  if (architecture && !ARCHITECTURES.includes(architecture)) throw notThisOne(path, architecture);
}

/** @param {Uint8Array} head */
function isSafetensors(head) {
  if (head.length < 9) return false;
  const length = new DataView(head.buffer, head.byteOffset, 8).getBigUint64(0, true);
  return length >= 2n && length <= 100_000_000n && head[8] === 0x7b;
}

/**
 * The architecture of a GGUF file, which writers put first.
 * @param {Uint8Array} head
 * @returns {string | null} null where it does not stand first
 */
export function ggufArchitecture(head) {
  const KEY = "general.architecture";
  // Magic, version, two counts, then the first key: its length, itself, type 8 for a text, the text.
  const start = 24 + 8 + KEY.length + 4 + 8;
  if (head.length < start) return null;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const latin = new TextDecoder("latin1");
  if (view.getBigUint64(24, true) !== BigInt(KEY.length) || latin.decode(head.subarray(32, 32 + KEY.length)) !== KEY) return null;
  if (view.getUint32(32 + KEY.length, true) !== 8) return null;
  const length = Number(view.getBigUint64(36 + KEY.length, true));
  return length > 0 && length <= 64 && start + length <= head.length ? latin.decode(head.subarray(start, start + length)) : null;
}

/** What the engine runs, as config.json and GGUF name it. */
const ARCHITECTURES = ["phi3", "llama"];

/**
 * @param {string} path
 * @param {string} architecture
 */
const notThisOne = (path, architecture) =>
  new StoreError("bad-config", `${shown(path)} is of the architecture \u201c${shown(architecture)}\u201d, and this page runs ${ARCHITECTURES.join(", ")} (Phi-3, Phi-3.5, Phi-4 Mini; Llama, SmolLM2, TinyLlama). Its weights were not downloaded.`);

/**
 * Refuses a model's config.json that the engine would refuse after all weights have come.
 * @param {string} path
 * @param {string} json
 * @throws {StoreError}
 */
export function checkConfig(path, json) {
  const config = parse(json, path);
  const refuse = (/** @type {string} */ why) => new StoreError("bad-config", `${shown(path)}: ${why} Its weights were not downloaded.`);
  if (!config || typeof config !== "object" || Array.isArray(config)) throw refuse("it describes no model.");
  const kind = config.model_type;
  if (config.text_config && typeof config.text_config === "object") throw refuse(`this is a model of several kinds of input (${shown(kind ?? "no model_type")}, its text model inside text_config), which this page does not run. Take one for text alone.`);
  if (typeof kind === "string" && !ARCHITECTURES.includes(kind)) throw notThisOne(path, kind);
  const method = config.quantization_config?.quant_method ?? (config.quantization_config ? "a method that is not named" : null);
  if (method) throw refuse(`its weights were quantised with ${shown(method)}, which this page does not read. Take the original safetensors or a GGUF file.`);
  if (config.quantization?.bits) throw refuse("its weights were quantised for MLX, which this page does not read. Take the original safetensors or a GGUF file.");
}
