// What to tell a visitor when something fails: a title, a sentence, and what to do about it.

import { h } from "./dom.js";
import { browserHelp } from "./browser-help.js";
import { toldCode } from "./store/errors.js";

/** @import { EngineError } from "./line.js" */

/**
 * @typedef {object} Advice
 * @property {string} title
 * @property {string[]} steps
 * @property {boolean} reload whether a new engine can help
 */

/** @type {Record<string, Advice>} */
const ADVICE = {
  "no-adapter": {
    title: "No graphics adapter for WebGPU",
    steps: [
      "The browser knows WebGPU, but has no graphics card to offer to it. If it had one before, restart the browser: after several failures it hands out none.",
      "Check that hardware acceleration is on in the browser's settings, then restart the browser.",
      "Update the graphics driver, or try another browser.",
      "In a virtual machine or over remote desktop there may be no adapter at all: open the page on the machine itself.",
    ],
    reload: true,
  },
  "device-lost": {
    title: "The graphics device was lost",
    steps: [
      "This happens when the machine sleeps, the driver restarts or the GPU is asked for too much. Reload the engine: the conversation stays.",
    ],
    reload: true,
  },
  "out-of-memory": {
    title: "The GPU ran out of memory",
    steps: ["Close other tabs and programs that use the GPU, then reload the engine.", "A smaller model or a shorter context needs less."],
    reload: true,
  },
  network: {
    title: "The download broke off",
    steps: ["Check the connection and try again."],
    reload: true,
  },
  offline: {
    title: "There is no network",
    steps: ["Connect and try again. What is on this disk opens without one: the nano model after a first visit, other models once they were downloaded."],
    reload: true,
  },
  "not-found": {
    title: "A file of the model is missing",
    steps: ["Check the address: a model is a .gguf file, or a folder with config.json, tokenizer.json and model.safetensors.", "A dictionary folder needs its configuration (cfg.json) and its weights."],
    reload: true,
  },
  "bad-config": { title: "This model cannot run here", steps: ["Use a checkpoint of Phi-3 or Llama, as it is published, with its own config.json."], reload: true },
  "gpu-error": { title: "The GPU refused a command", steps: ["Update the graphics driver or the browser, then reload the engine."], reload: true },
  "wrong-results": {
    title: "This graphics adapter computes wrong results",
    steps: ["Update the graphics driver or the browser, or try another browser on this machine.", "Where there is a second graphics card, the operating system's settings say which one the browser gets."],
    reload: true,
  },
  "bad-checkpoint": { title: "The model's file is damaged", steps: ["Fetch the file again: it is cut short or was changed on the way."], reload: true },
  "missing-tensor": { title: "The model's file lacks a tensor", steps: ["Use a checkpoint in the Hugging Face layout of its model."], reload: true },
  "wrong-shape": { title: "The model's file and its config do not agree", steps: ["Use config.json and model.safetensors of the same model."], reload: true },
  "not-finite": { title: "The model's file holds a number that is not finite", steps: ["Fetch the file again, or use another checkpoint."], reload: true },
  "bad-hook": {
    title: "This hook point cannot be used",
    steps: [
      "A hook point is the output of a block: layers.0 is that of the first. Change it under \u201cAnother dictionary, another hook point\u2026\u201d, or leave it empty to take what the dictionary's files say.",
    ],
    reload: true,
  },
  "no-hook": {
    title: "It is not said where this dictionary reads",
    steps: ["Give its hook point, such as layers.3, under \u201cAnother dictionary, another hook point\u2026\u201d."],
    reload: true,
  },
  "bad-dictionary": {
    title: "This dictionary cannot be read",
    steps: ["Use an autoencoder of the residual stream in one of the formats that the README lists."],
    reload: true,
  },
  "wrong-dictionary": {
    title: "This dictionary is not of this model",
    steps: ["Use a dictionary that was trained on this model's residual stream; its width must be the model's."],
    reload: true,
  },
  "bad-tokenizer": { title: "The tokenizer could not be read", steps: ["Use the tokenizer.json that came with the model."], reload: true },
  "bad-request": { title: "The engine does not take this", steps: ["Check the numbers under Advanced."], reload: false },
  "not-loaded": { title: "No model is loaded", steps: ["Load it again: the conversation stays."], reload: true },
  "bad-steering": { title: "This steering cannot be applied", steps: ["Check the feature number and the strength under Advanced."], reload: false },
  "empty-prompt": { title: "There is nothing to answer", steps: ["Write a message first."], reload: false },
  context: { title: "There is no room for this message", steps: ["Start a new chat, or make the message shorter: the conversation stays."], reload: false },
  overflow: { title: "The model's output is no longer a number", steps: ["Turn the strength of the steering down.", "If it happens without steering, the model's files are damaged: fetch them again."], reload: false },
  "bad-recipe": { title: "The lab does not take this recipe", steps: ["Mend what is named, or go back to the usual recipe."], reload: false },
  "bad-result": { title: "The result cannot be read", steps: ["Measure again: the file or the kept result is damaged, or from another version."], reload: false },
  "bad-sets": { title: "The prompts cannot be used", steps: ["Check the file: the line that is named is the one to mend."], reload: false },
  "bad-journal": { title: "This run cannot be taken up again", steps: ["The model, the dictionary or the prompts have changed since it began. Begin it anew."], reload: false },
  "too-short": { title: "There is too little text to train on", steps: ["Choose more prompts to reply to, or more text of your own, or fewer vectors of a step."], reload: false },
  diverged: { title: "The training went astray", steps: ["Train again with a lower rate, or on other text."], reload: false },
  elsewhere: { title: "This run is about something else", steps: ["Load the model and the dictionary that it is about."], reload: false },
  "context-full": { title: "The conversation no longer fits", steps: ["Start a new chat, or edit an earlier message to make it shorter."], reload: false },
  busy: { title: "The engine is still answering", steps: ["Wait for it, or stop it first."], reload: false },
  cancelled: { title: "Loading was cancelled", steps: ["Nothing runs until you load it."], reload: true },
  "no-engine": {
    title: "The engine could not be started",
    steps: ["Reload the page. If you host it yourself, check that phi3-steer.js and phi3-steer_bg.wasm lie beside index.html."],
    reload: true,
  },
  "not-free": { title: "The engine is not free yet", steps: ["Wait for it, or start it again: the conversation stays."], reload: true },
  "broken-off": { title: "The answer broke off", steps: ["Run it again."], reload: false },
  standing: { title: "Loading does not get on", steps: ["Wait if the machine or its network is slow: compiling for a GPU can take a minute.", "Start the engine again if this stays: a GPU that hangs answers only then, or after the browser was closed."], reload: true },
  silent: { title: "The engine does not answer", steps: ["Wait if the machine is busy, or start it again: the conversation stays."], reload: true },
  crashed: { title: "The engine stopped", steps: ["Reload the engine: the conversation stays."], reload: true },
};

/** @type {Record<string, Advice>} of downloads and stored files */
const STORE_ADVICE = {
  cors: {
    title: "That server does not let pages read its files",
    steps: [
      "Browsers ask the server for leave (CORS). Hugging Face gives it; if the server is yours, let it send Access-Control-Allow-Origin and expose Content-Range and ETag.",
      "Or download the files yourself and drop them onto this page.",
    ],
    reload: true,
  },
  "insecure-url": { title: "The address is not https", steps: ["Use the https address, or download the files yourself and drop them onto this page."], reload: false },
  "bad-url": { title: "This is not an address", steps: ["Give the address of a folder, of a .gguf file, or a name like owner/model on Hugging Face."], reload: false },
  forbidden: {
    title: "The server does not hand the file out",
    steps: ["Some models are given only to those who have accepted a licence: download them with your own account, then drop the files onto this page."],
    reload: true,
  },
  throttled: { title: "The server wants fewer requests", steps: ["Wait some minutes, then try again: what a download has brought stays."], reload: true },
  server: { title: "The server is in trouble", steps: ["Try again later: what a download has brought stays."], reload: true },
  "bad-answer": { title: "The server answered with something else", steps: ["Check the address."], reload: true },
  unreachable: { title: "The server does not answer", steps: ["Check the address and the connection, then try again: what a download has brought stays."], reload: true },
  "too-large": { title: "This is larger than anything of its kind", steps: ["Check the address."], reload: true },
  "wrong-length": { title: "The file has another length than promised", steps: ["The file was changed after its list was made. Try again later, or ask who published it."], reload: true },
  changed: { title: "The file changes while it is downloaded", steps: ["Try again later."], reload: true },
  "hash-mismatch": { title: "The bytes are not the right ones", steps: ["Download it again. If it happens again, the server or something on the way changes the file."], reload: true },
  quota: {
    title: "There is no room on this disk",
    steps: ["Delete a stored model, or free space on the disk: browsers grant a share of it. What has come stays for later.", "Or load it without keeping it: it is then downloaded every time."],
    reload: false,
  },
  "no-storage": { title: "The browser keeps no files for this page", steps: ["Private windows often do not. The model can be loaded without keeping it."], reload: false },
  "busy-elsewhere": { title: "Another tab is at it", steps: ["Let the other tab finish, or close it, then go on here."], reload: true },
  "not-stored": { title: "It is no longer on this disk", steps: ["Browsers clear stored files when the disk runs full. Download it again, or choose another model."], reload: false },
  incomplete: { title: "The model is not all there yet", steps: ["Go on with its download."], reload: false },
  damaged: { title: "The stored file is damaged", steps: ["Delete it and download it again."], reload: false },
  ambiguous: { title: "Which one?", steps: [], reload: false },
  "store-failed": { title: "The download stopped", steps: ["Try again: what has come stays."], reload: true },
};

/** @type {Advice} */
const UNKNOWN = { title: "Something went wrong", steps: ["Try again, or reload the engine."], reload: true };

/**
 * @param {{code: string}} error
 * @returns {Advice}
 */
export const adviceOn = (error) => ADVICE[error.code] ?? STORE_ADVICE[error.code] ?? UNKNOWN;

/**
 * Whether the engine behind this error is gone for good.
 * @param {string} code
 */
export const isFatal = (code) => ["device-lost", "crashed", "no-engine", "out-of-memory", "gpu-error"].includes(code);

/** What the title and the steps say in full: the engine's sentence would add nothing, or the driver's own words. */
const SELF_EVIDENT = ["cancelled", "no-adapter"];

/**
 * A panel for an error.
 * @param {EngineError} error
 * @param {{label: string, run: () => void}[]} actions
 * @returns {HTMLElement}
 */
export function errorPanel(error, actions) {
  if (error.code === "no-webgpu") return noWebGpuPanel(error, actions);
  const code = toldCode(error.code, navigator.onLine);
  const advice = adviceOn({ code });
  const said = SELF_EVIDENT.includes(code) ? [] : [h("p", {}, error.message)];
  return panel(advice.title, [...said, steps(advice.steps)], actions);
}

/**
 * Whether a new engine can help.
 * @param {string} code
 */
export const canReload = (code) => adviceOn({ code }).reload;

/**
 * @param {EngineError} error
 * @param {{label: string, run: () => void}[]} actions
 */
function noWebGpuPanel(error, actions) {
  const mine = browserHelp(navigator.userAgent);
  const [first, ...others] = mine;
  return panel(
    "This browser has no WebGPU yet",
    [
      h("p", {}, "The model runs on your own graphics card, through WebGPU. ", error.message),
      h("h3", {}, `You are using ${first.name}`),
      steps(first.steps),
      h(
        "details",
        {},
        h("summary", {}, "Other browsers"),
        ...others.flatMap((browser) => [h("h3", {}, browser.name), steps(browser.steps)]),
      ),
    ],
    actions,
  );
}

/**
 * @param {string[]} items
 */
function steps(items) {
  return items.length === 1 ? h("p", {}, items[0]) : h("ul", {}, ...items.map((item) => h("li", {}, item)));
}

/**
 * @param {string} title
 * @param {Node[]} body
 * @param {{label: string, run: () => void}[]} actions
 */
function panel(title, body, actions) {
  return h(
    "section",
    { className: "error-panel", role: "alert" },
    h("h2", {}, title),
    ...body,
    actions.length
      ? h(
          "div",
          { className: "actions" },
          ...actions.map((action, index) =>
            h("button", { type: "button", className: index ? "button" : "button primary", onclick: action.run }, action.label),
          ),
        )
      : null,
  );
}
