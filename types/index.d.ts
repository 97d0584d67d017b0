/** What the npm package gives: types of www/index.js. */

import type { LoadOptions } from "../src/web/types.d.ts";
import type { OpenAI } from "./openai.d.ts";

export { Engine, EngineError } from "./engine-client.js";
export type * from "../src/web/types.d.ts";
export type * from "./openai.d.ts";

/** web-llm's report of loading. */
export interface InitProgressReport {
  /** Of the file that is read; 1 once all is loaded. */
  progress: number;
  /** Seconds. */
  timeElapsed: number;
  text: string;
}

/** What web-llm's EngineConfig and this engine's LoadOptions have in common, and the latter's own. */
export interface EngineConfig extends Omit<LoadOptions, "model" | "contextLength"> {
  initProgressCallback?: (report: InitProgressReport) => void;
}

export interface ChatConfig {
  /** Tokens of the longest conversation. */
  context_window_size?: number;
}

/**
 * Loads a model and gives it in the shape of OpenAI's chat completions, as web-llm does. The model is an address or
 * files; what else it is given is refused by its name where the engine does not have it.
 */
export declare function CreateMLCEngine(model: LoadOptions["model"], config?: EngineConfig, chatConfig?: ChatConfig): Promise<OpenAI>;
