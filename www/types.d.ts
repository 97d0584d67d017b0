/** Types of the page. The engine's own are those of its JavaScript API. */

export type * from "../src/web/types.d.ts";
import type { ChatOptions, Intervention, TokenInfo } from "../src/web/types.d.ts";

export type Op = Exclude<Intervention["op"], "reconstruct">;
export type Message = ChatOptions["lanes"][number]["messages"][number];
export type Positions = NonNullable<Intervention["positions"]>;

/** An error of a worker: a code to branch on and a sentence to show. */
export interface EngineFailure {
  code: string;
  message: string;
  /** Addresses, one of which is meant. */
  choices?: string[];
}

/** What the page asks of the worker. */
export type WorkerRequest = { id: number; method: string; args: unknown[] };

/** What the worker answers: see line.js. */
export type WorkerReply =
  | { ready: true }
  | { fatal: EngineFailure }
  | { id: number; ok: unknown }
  | { id: number; error: EngineFailure }
  | { id: number; event: unknown };

/** One token of an answer or a prompt as the page keeps it. */
export type TokenRecord = TokenInfo & { steered?: boolean };

/** Shares of 1. */
export interface Rates {
  /** Jailbreaks refused. */
  jailbreak: number;
  /** Harmless requests refused. */
  benign: number;
  /** Facts answered rightly, where measured. */
  facts: number | null;
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
}
