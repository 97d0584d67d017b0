// What the npm package gives: the engine, and web-llm's way to make one.

import { Engine, EngineError } from "./engine-client.js";

/** @import { LoadOptions, LoadProgress } from "./types.d.ts" */
/** @import { OpenAI } from "./openai.js" */
/** @import { EngineConfig, ChatConfig } from "../types/index.d.ts" */

export { Engine, EngineError };

/** What LoadOptions has, and so EngineConfig. */
const OWN = ["sae", "saeHook", "lanes", "quant", "onProgress"];

/**
 * Loads a model and gives it in the shape of OpenAI's chat completions.
 * @param {LoadOptions["model"]} model an address or files, where web-llm has a name of its list
 * @param {EngineConfig} [config] initProgressCallback, and what LoadOptions has
 * @param {ChatConfig} [chatConfig] context_window_size
 * @returns {Promise<OpenAI>}
 */
export async function CreateMLCEngine(model, config = {}, chatConfig = {}) {
  only(config, ["initProgressCallback", ...OWN], "the engine's configuration");
  only(chatConfig, ["context_window_size"], "the chat's configuration");
  const { initProgressCallback, onProgress, ...own } = config;
  const started = Date.now();
  const report = (/** @type {number} */ progress, /** @type {string} */ text) => initProgressCallback?.({ progress, timeElapsed: Math.round((Date.now() - started) / 1000), text });
  const engine = await Engine.load({
    ...own,
    model,
    ...(chatConfig.context_window_size === undefined ? {} : { contextLength: chatConfig.context_window_size }),
    onProgress(event) {
      onProgress?.(event);
      // Below 1 until all is there, as web-llm has it.
      report(event.total > 0 ? Math.min(event.loaded / event.total, 0.99) : 0, `${event.stage} ${event.file}`.trim());
    },
  });
  report(1, `${engine.info.model.name} is loaded`);
  if (typeof model === "string") engine.openai.names.add(model);
  return engine.openai;
}

/**
 * @param {object} given
 * @param {string[]} known
 * @param {string} what
 */
function only(given, known, what) {
  const unknown = Object.keys(given).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new EngineError("bad-request", `${what} has no ${unknown}: leave it out`, undefined, unknown);
}
