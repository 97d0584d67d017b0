/** The engine in the shape of OpenAI's chat completions: types of www/openai.js. */

import type { Engine } from "./engine-client.d.ts";
import type { Gate, Intervention } from "../src/web/types.d.ts";

export interface ChatCompletionTextPart {
  type: "text";
  text: string;
}

export interface ChatCompletionMessage {
  role: "system" | "user" | "assistant";
  content: string | ChatCompletionTextPart[];
}

/**
 * What can be asked. A field that is not here is refused by its name with an EngineError of the code "bad-request",
 * unless it is null or asks for what is done anyway: n: 1, frequency_penalty: 0, presence_penalty: 0,
 * logit_bias: {}, response_format: { type: "text" }, tools: [], tool_choice: "none", store: false, ignore_eos: false.
 */
export interface ChatCompletionRequestBase {
  /** The conversation; its last message is the user's. */
  messages: ChatCompletionMessage[];
  /** The loaded model's name, or what CreateMLCEngine was given. */
  model?: string | null;
  /** 0 to 2; 1 unless said. 0 takes the likeliest token. */
  temperature?: number | null;
  /** Only the likeliest tokens that together reach this probability. */
  top_p?: number | null;
  /** Only the so many likeliest tokens; 0 for all. */
  top_k?: number | null;
  /** Only tokens at least this likely, as a share of the likeliest. */
  min_p?: number | null;
  /** What the logits of tokens that were seen are divided by (multiplied, where negative). */
  repetition_penalty?: number | null;
  /** Tokens of the answer at most; unless said, as many as the context holds. */
  max_tokens?: number | null;
  /** The same under its newer name. */
  max_completion_tokens?: number | null;
  /** The answer ends before the one of these texts that is complete first. */
  stop?: string | string[] | null;
  /** 0 to 4294967295; unless said, a new one for every answer. */
  seed?: number | null;
  /** Tell how likely every token was, for the model as it is steered, before temperature and the rest of the sampling. */
  logprobs?: boolean | null;
  /** So many of the likeliest tokens at each place, 0 to 20; needs logprobs. */
  top_logprobs?: number | null;
  /** Interventions for this answer alone, in place of those that setSteering gave lane 0. */
  steering?: Intervention[] | null;
  /** Decides whether the interventions hold for this answer; in place of lane 0's gate. */
  gate?: Gate | null;
  n?: 1 | null;
}

export interface ChatCompletionRequestStreaming extends ChatCompletionRequestBase {
  stream: true;
  /** Whether the stream ends with a chunk of the usage, without choices. */
  stream_options?: { include_usage?: boolean | null } | null;
}

export interface ChatCompletionRequestNonStreaming extends ChatCompletionRequestBase {
  stream?: false | null;
}

export type ChatCompletionRequest = ChatCompletionRequestStreaming | ChatCompletionRequestNonStreaming;

export interface TopLogprob {
  token: string;
  /** In nats. */
  logprob: number;
  /** What it adds to the text, in UTF-8: perhaps a part of a character. None of a special token. */
  bytes: number[];
}

export interface ChatCompletionTokenLogprob extends TopLogprob {
  top_logprobs: TopLogprob[];
}

export interface ChoiceLogprobs {
  content: ChatCompletionTokenLogprob[];
  refusal: null;
}

/** "stop": the model ended, or a stop came; "length": max_tokens, or the context is full; "abort": it was interrupted. */
export type FinishReason = "stop" | "length" | "abort";

/** What the gate decided about the answer, where there is one. */
export interface GateDecision {
  score: number;
  threshold: number;
  steered: boolean;
}

export interface CompletionUsage {
  prompt_tokens: number;
  /** Tokens up to the end or the stop; the model's own stop token is not counted. */
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
  extra?: { prefill_tokens_per_s: number; decode_tokens_per_s: number };
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: { role: "assistant"; content: string; refusal: null };
    logprobs: ChoiceLogprobs | null;
    finish_reason: FinishReason;
    gate?: GateDecision;
  }[];
  usage: CompletionUsage;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: { role?: "assistant"; content?: string };
    logprobs: ChoiceLogprobs | null;
    finish_reason: FinishReason | null;
    gate?: GateDecision;
  }[];
  /** With stream_options.include_usage: null, but for the last chunk. */
  usage?: CompletionUsage | null;
}

/** engine.openai, and what CreateMLCEngine gives. */
export declare class OpenAI {
  /** The engine that answers, in its lane 0, one request after the other. */
  readonly engine: Engine;
  readonly chat: {
    completions: {
      create(request: ChatCompletionRequestNonStreaming): Promise<ChatCompletion>;
      /** Leaving the loop over the chunks ends the answer; one that is begun and never left keeps all later requests waiting. */
      create(request: ChatCompletionRequestStreaming): Promise<AsyncGenerator<ChatCompletionChunk, void, void>>;
      create(request: ChatCompletionRequest): Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void, void>>;
    };
  };
  /** Ends the answer under way within a token. */
  interruptGenerate(): Promise<void>;
  /** What was said so far in the answer under way, or in the last one. */
  getMessage(): Promise<string>;
  /** Forgets what was said; conversations are in their requests. */
  resetChat(): Promise<void>;
  /** Frees the GPU and ends the worker. */
  unload(): Promise<void>;
}
