// The forms in which models and dictionaries come: which files of a list are one, and what a list
// without any is instead.

import { StoreError } from "./errors.js";
import { MOST_FILES } from "./manifest.js";
import { shown } from "./shown.js";

/** @typedef {"model" | "dictionary"} Kind */

/**
 * A model or dictionary found in a list.
 * @typedef {object} Form
 * @property {string} at folder within the list, "" or with a slash at its end
 * @property {string[]} files paths, those that are read where they are there among them
 * @property {string[]} missing paths that it cannot do without
 * @property {string} [index] path of the list of its shards, which are still to be added
 */

export const INDEX = "model.safetensors.index.json";

/** sparsify's files, which a model's own dictionary has. */
export const SPARSIFY = { weights: "sae.safetensors", needs: ["cfg.json"] };

/** Weights of a dictionary, each with the description that it cannot do without: as src/sae/formats/names.rs has them. */
export const DICTIONARIES = [
  SPARSIFY,
  { weights: "sae_weights.safetensors", needs: ["cfg.json"] },
  { weights: "params.npz", needs: [] },
  { weights: "params.safetensors", needs: [] },
  { weights: "checkpoints/final.safetensors", needs: ["hyperparams.json"] },
];

/** Read where they are there, and what must be there. */
const BESIDE = {
  model: ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "report.json"],
  dictionary: [...new Set(DICTIONARIES.flatMap(({ needs }) => needs)), "config.json", "find.json"],
};
const NEEDED = ["config.json", "tokenizer.json"];

/** Every name that may lie at the top of a model or dictionary. */
export const NAMES = {
  model: [...BESIDE.model, INDEX, "model.safetensors"],
  dictionary: [...BESIDE.dictionary, ...DICTIONARIES.map(({ weights }) => weights)],
};

/** Names at the top of a dictionary that no model has. */
const OWN_NAMES = new Set(DICTIONARIES.flatMap(({ weights, needs }) => [weights, ...needs]).filter((name) => !name.includes("/")));

/**
 * Whether a file is one that only a dictionary has.
 * @param {string} path
 */
export const isOfDictionary = (path) => OWN_NAMES.has((path.split("/").at(-1) ?? "").toLowerCase()) || /\.npz$/i.test(path);

/**
 * The forms that begin in one folder of a list.
 * @param {Set<string>} paths
 * @param {Kind} kind
 * @param {string} at
 * @returns {Form | null}
 */
export function formAt(paths, kind, at) {
  const there = (/** @type {string[]} */ names) => names.map((name) => at + name).filter((path) => paths.has(path));
  const lacking = (/** @type {string[]} */ names) => names.map((name) => at + name).filter((path) => !paths.has(path));
  if (kind === "model") {
    const single = there(["model.safetensors"]);
    const index = single.length ? [] : there([INDEX]);
    if (!single.length && !index.length) return null;
    return { at, files: [...there(BESIDE.model), ...index, ...single], missing: lacking(NEEDED), ...(index.length ? { index: index[0] } : {}) };
  }
  const found = DICTIONARIES.filter(({ weights }) => paths.has(at + weights));
  if (!found.length) return null;
  const { weights, needs } = found.find((one) => !lacking(one.needs).length) ?? found[0];
  return { at, files: [...there(BESIDE.dictionary), at + weights], missing: lacking(needs) };
}

/**
 * The folders of a list in which a model or dictionary lies, its top aside.
 * @param {Set<string>} paths
 * @param {Kind} kind
 * @returns {Form[]} those that are whole, or if there are none those that are not
 */
export function formsBelow(paths, kind) {
  const ends = kind === "model" ? [INDEX, "model.safetensors"] : DICTIONARIES.map(({ weights }) => weights);
  const folders = new Set();
  for (const path of paths) {
    const end = ends.find((name) => path.endsWith(`/${name}`));
    if (end) folders.add(path.slice(0, -end.length));
  }
  const forms = [...folders].flatMap((at) => formAt(paths, kind, at) ?? []);
  const whole = forms.filter((form) => !form.missing.length);
  return whole.length ? whole : forms;
}

/** A file that is one part of a GGUF file. */
const PART = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;

/**
 * All parts of the GGUF file that a path is a part of.
 * @param {string} path
 * @returns {string[] | null} null for a file that is whole by itself
 */
export function ggufParts(path) {
  const match = PART.exec(path);
  if (!match) return null;
  const count = Number(match[3]);
  if (count < 1 || count > MOST_FILES || Number(match[2]) > count) return null;
  return Array.from({ length: count }, (_, index) => `${match[1]}-${String(index + 1).padStart(5, "0")}-of-${match[3]}${path.slice(-5)}`);
}

/**
 * The models or dictionaries of a list that are one file each: GGUF, in parts or not, and npz.
 * @param {Set<string>} paths
 * @param {Kind} kind
 * @returns {Form[]} those that are whole, or if there are none those that are not
 */
export function singles(paths, kind) {
  const end = kind === "model" ? /\.gguf$/i : /\.npz$/i;
  /** @type {Map<string, Form>} */
  const forms = new Map();
  for (const path of paths) {
    if (!end.test(path)) continue;
    const files = ggufParts(path) ?? [path];
    forms.set(files[0], { at: "", files: files.filter((part) => paths.has(part)), missing: files.filter((part) => !paths.has(part)) });
  }
  const all = [...forms.values()];
  const whole = all.filter((form) => !form.missing.length);
  return whole.length ? whole : all;
}

/** What a list is that holds no known form, by the file that says so. The first that fits is meant. */
const MARKS = [
  { mark: /(^|\/)adapter_(config\.json|model\.(safetensors|bin))$/, what: "an adapter (LoRA): only changes to another model. Merge it into that model and save the result as safetensors" },
  { mark: /(^|\/)(mlc-chat-config\.json|ndarray-cache\.json|params_shard_\d+\.bin)$/, what: "a model compiled for MLC / WebLLM, whose weights only that program reads: take the original safetensors or a GGUF file" },
  { mark: /\.onnx(\.data|_data)?$/, what: "an ONNX model, whose weights are part of a program: take the original safetensors or a GGUF file" },
  { mark: /\.(pt|pth|bin|ckpt|pkl)$/, what: "pickle only (.pt or .bin), which can run programs and is never read in the browser: convert it to safetensors first" },
  { mark: /\.(h5|msgpack|tflite|pb)$/, what: "a TensorFlow or Flax checkpoint: convert it to safetensors first" },
  { mark: /(\.mlpackage\/|\.mlmodelc?(\/|$))/, what: "a Core ML model: take the original safetensors or a GGUF file" },
  { mark: /(^|\/)openvino_model\.(xml|bin)$/, what: "an OpenVINO model: take the original safetensors or a GGUF file" },
  { mark: /\.(llamafile|ggml|task|litertlm)$/, what: "a form that other programs read: take the original safetensors or a GGUF file" },
];

/** Marks that are asked for where a server lists nothing. */
export const MARK_NAMES = ["adapter_config.json", "mlc-chat-config.json", "onnx/model.onnx", "pytorch_model.bin"];

/**
 * What a list of files is instead of a model or dictionary.
 * @param {Iterable<string>} paths
 * @returns {string | null} to be read after "This is"; null where nothing says it
 */
export function otherForm(paths) {
  const list = [...paths];
  return MARKS.find(({ mark }) => list.some((path) => mark.test(path)))?.what ?? null;
}

/**
 * @param {Set<string>} paths
 * @param {Kind} kind
 * @param {string} where
 */
export function nothing(paths, kind, where) {
  const other = otherForm(paths);
  if (other) return new StoreError("not-found", `${where} holds ${other}.`);
  const wanted = kind === "model" ? "no model.safetensors and no .gguf file" : "no dictionary that is known here";
  const single = kind === "model" ? " For a GGUF file, give the address of the file itself." : "";
  return new StoreError("not-found", `${where} holds ${wanted}.${single}`);
}

/**
 * @param {string} where
 * @param {string[]} missing
 */
export function lacks(where, missing) {
  const named = missing.slice(0, 3).map((path) => shown(path)).join(", ");
  const more = missing.length > 3 ? ` and ${missing.length - 3} files more` : "";
  return new StoreError("not-found", `${where} lacks ${named}${more}, without which it cannot run. Nothing was downloaded.`);
}
