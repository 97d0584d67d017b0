/** Types of the page. The engine's own are those of its JavaScript API. */

export type * from "../src/web/types.d.ts";
import type { EngineError } from "./line.js";
import type { ChatOptions, Gate, Intervention, SelfTest, TokenInfo } from "../src/web/types.d.ts";

export type Op = Exclude<Intervention["op"], "reconstruct">;
export type Message = ChatOptions["lanes"][number]["messages"][number];
export type Positions = NonNullable<Intervention["positions"]>;

/** An error of a worker: a code to branch on and a sentence to show. */
export interface EngineFailure {
  code: string;
  message: string;
  /** Addresses, one of which is meant. */
  choices?: string[];
  /** The option that is wrong. */
  field?: string;
}

/** What the page asks of the worker. */
export type WorkerRequest = { id: number; method: string; args: unknown[] };

/** What the worker answers: see line.js. */
export type WorkerReply =
  | { ready: true; lock?: string }
  | { fatal: EngineFailure }
  | { id: number; ok: unknown }
  | { id: number; error: EngineFailure }
  | { id: number; event: unknown };

/** One token of an answer or a prompt as the page keeps it. */
export type TokenRecord = TokenInfo & {
  steered?: boolean;
  /** Of the steered answer: the one of the turn's `settings` that it was written under. */
  setting?: number;
};

/** What the steered lane is asked to do, from one token on. */
export interface Setting {
  /** The engine's number of it, by which token events name it; null before the engine took it. */
  id: number | null;
  /** "clamp 8", "steering off", … */
  label: string;
  /** Whether it changes anything. */
  on: boolean;
  hook: string;
  feature: number;
  op: Op;
  /** null where the operator takes none. */
  value: number | null;
  positions: Positions;
  onlyIfActive: boolean;
  includeBos: boolean;
  /** The first token of the steered answer that was written under it; null while there is none. */
  from: number | null;
  /** Only where the prompt looks harmful to the gate. */
  gated?: boolean;
  /** Features that are steered together, each in units of a maximum; the first is `feature`. */
  set?: { feature: number; max: number }[];
  /** The direction that was found, in place of a feature. */
  direction?: boolean;
}

/**
 * How an answer ended: the model finished it; it finished without a word; the longest answer that
 * was asked for was reached; the context is full; the visitor stopped it; it broke off with an error.
 */
export type Ending = "finished" | "empty" | "length" | "context" | "stopped" | "broken";

/** A gate's verdict on a prompt. */
export interface Gated {
  score: number;
  threshold: number;
  steered: boolean;
}

/** One lane's answer. */
export interface Answer {
  text: string;
  /** The prompt's tokens that the engine told of: the last message's turn, or all of a short one. */
  prompt: TokenRecord[];
  tokens: TokenRecord[];
  /** null while it runs. */
  end: Ending | null;
  /** What the gate made of the prompt, where there is one. */
  gate?: Gated;
}

/** One message and the answers to it. */
export interface Turn {
  prompt: string;
  /** By lane: 0 is the base model, 1 the steered one. */
  answers: [Answer, Answer];
  /** The feature whose activations the tokens carry; null without a dictionary. */
  tracked: { hook: string; feature: number } | null;
  /**
   * What the steered lane ran under, in order. The first is that of the moment of sending; a later
   * one came while the answer was being written.
   */
  settings: Setting[];
  sampling: { temperature: number; seed: number; maxTokens: number };
  /** What answered, by the names that people know it by. */
  model: string;
  dictionary: string | null;
  state: "running" | "done" | "failed";
  error: EngineError | null;
  /** Of both lanes together so far, 0 when not known. */
  tokensPerSecond: number;
  /** Milliseconds, 0 before the first token. */
  firstTokenAt: number;
}

/** Shares of 1. */
export interface Rates {
  /** Jailbreaks refused. */
  jailbreak: number;
  /** Harmless requests refused. */
  benign: number;
  /** Facts answered rightly, where measured. */
  facts: number | null;
  /** Small talk that stays coherent, where measured. */
  coherent: number | null;
}

/** What `report.json` beside a model says, as far as the page uses it. */
export interface Report {
  hook: string;
  feature: number;
  value: { default: number; useful: [number, number]; max: number };
  /** Without steering. */
  base: Rates | null;
  /** By strength of the clamp. */
  curve: (Rates & { value: number })[];
  /** How the dictionary fits the model, where that is known beforehand. */
  fit?: SelfTest;
  /** Says whether a prompt looks harmful, and what was measured with it. */
  gate?: Gate;
  gated?: { value: Report["value"]; curve: Report["curve"] };
  /** Whether steering pays only behind the gate. */
  onlyGated?: boolean;
  /** The correlation of the feature's activations with those in the unquantised model. */
  survival?: { correlation: number; tokens: number };
  /** What was asked where it says "jailbreaks" else. */
  asked?: string;
  /** Features that are steered together, each in units of its own largest activation. */
  set?: { feature: number; max: number }[];
  /** Whether a direction of the residual stream is steered in place of a feature. */
  direction?: boolean;
}

/** A model or dictionary that can be chosen. One of `url`, `files` and `builtIn` says where it is. */
export interface Entry {
  id: string;
  kind: "model" | "dictionary";
  name: string;
  url?: string;
  files?: File[];
  builtIn?: boolean;
  /** A sentence about it. */
  about?: string;
  licence?: string;
  /** Size of the download in bytes, as far as it is known beforehand. */
  bytes?: number;
  /** Models it belongs to, by family; absent when not known. */
  families?: string[];
  /** Of a dictionary: the block it reads, latents, hook point to use. */
  layer?: string;
  width?: number;
  hook?: string;
  warning?: string;
  /** Why it cannot be loaded. */
  unusable?: string;
  /** Added by the visitor. */
  own?: boolean;
  /** Served with the page. */
  beside?: boolean;
  /** Of a dictionary: whether find.json lies in its folder. */
  found?: boolean;
  /** Of a file beside the page: the entry whose public file it is. */
  sameAs?: string;
  /** Of the file that was tested here; without one, nobody has fetched it, and the size is what its host says. */
  sha256?: string;
  /** Bytes on the GPU, estimated. */
  memory?: number;
  /** What is known of how often it refuses. */
  refusals?: string;
  /** What it is and what it is not, as the end of a sentence that begins with its name. */
  caveat?: string;
  /** The dictionary that is loaded with it from the first screen, by id. */
  dictionary?: string;
}
