/** Types of the engine's JavaScript API, shared by the page, the worker client and the worker. */

/** Where a folder of files comes from: its base URL, or the files themselves. */
export type Source = string | File[];

export interface Progress {
  stage: "config" | "tokenizer" | "weights" | "dictionary" | "warmup";
  /** Bytes so far. */
  loaded: number;
  /** Bytes in all, 0 when not known yet. */
  total: number;
  file?: string;
}

export interface LoadOptions {
  model: Source;
  sae?: Source;
  /** Conversations run in lockstep; 2 by default. */
  lanes?: number;
  quant?: "q4" | "none";
  contextLength?: number;
  onProgress?: (progress: Progress) => void;
}

export interface Info {
  model: {
    name: string;
    layers: number;
    hidden: number;
    vocab: number;
    context: number;
    quant: string;
    parameters: number;
    gpuBytes: number;
  };
  adapter: { name: string; backend: string; f16: boolean; subgroups: boolean; cpu: boolean };
  sae?: { hook: string; features: number; k: number };
}

export type Op = "clamp" | "clamp_replace" | "add" | "scale" | "project_out";
export type Positions = "all" | "prompt" | "generated";

export interface Intervention {
  /** Hook point, the output of a block: "layers.3". */
  hook: string;
  feature: number;
  op: Op;
  value?: number;
  positions?: Positions;
  includeBos?: boolean;
  onlyIfActive?: boolean;
}

export interface Sampling {
  /** 0 is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface ChatOptions {
  /** One conversation a lane; lane i is steered by `setSteering(i, …)`. */
  lanes: { messages: Message[] }[];
  maxTokens?: number;
  sampling?: Sampling;
  /** Report this feature's activation at every token. */
  track?: { hook: string; feature: number };
  /** Report the k strongest features at every token. */
  topFeatures?: number;
}

/** Pairs of feature number and activation, strongest first. */
export type Top = [number, number][];

export type ChatEvent =
  | {
      type: "prompt";
      lane: number;
      tokens: { id: number; text: string; activation?: number; top?: Top }[];
      reused: number;
    }
  | {
      type: "token";
      lane: number;
      id: number;
      /** The new text since the last event of this lane, perhaps "". */
      text: string;
      activation?: number;
      top?: Top;
      steered: boolean;
    }
  | {
      type: "done";
      lane: number;
      reason: "stop" | "length" | "cancelled" | "context";
      tokens: number;
    }
  | {
      type: "stats";
      promptTokens: number;
      prefillMs: number;
      generatedTokens: number;
      decodeMs: number;
      tokensPerSecond: number;
    };

/** An error of the engine: a code to branch on and a sentence to show. */
export interface EngineFailure {
  code: string;
  message: string;
}

/** What the page asks of the worker. */
export type WorkerRequest = { id: number; method: string; args: unknown[] };

/** What the worker answers: see engine-client.js. */
export type WorkerReply =
  | { ready: true }
  | { fatal: EngineFailure }
  | { id: number; ok: unknown }
  | { id: number; error: EngineFailure }
  | { id: number; event: unknown };

/** One token of an answer or a prompt as the page keeps it. */
export interface TokenRecord {
  id: number;
  text: string;
  activation?: number;
  top?: Top;
  steered?: boolean;
}

/** What `report.json` beside a model says, as far as the page uses it. */
export interface Report {
  hook: string;
  feature: number;
  value: { default: number; useful: [number, number]; max: number };
  /** Shares of refusals, 0 to 1, without steering. */
  base: { jailbreak: number; benign: number } | null;
  /** Shares of refusals, 0 to 1, by strength of the clamp. */
  curve: { value: number; jailbreak: number; benign: number }[];
}
