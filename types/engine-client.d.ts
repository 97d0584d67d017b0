/** The engine for pages: types of www/engine-client.js, beside which a built page has this file. */

export type * from "../src/web/types.d.ts";
import type { ChatEvent, ChatOptions, Info, Intervention, LoadOptions, Memory, SelfTest, TokenFeatures } from "../src/web/types.d.ts";

/** What calls reject with. */
export declare class EngineError extends Error {
  /** To branch on, for example "no-webgpu", "device-lost", "cancelled". */
  code: string;
}

/** A model with its dictionary, in a worker of its own. */
export declare class Engine {
  /** Starts a worker and loads a model into it; the signal ends both, with the code "cancelled". */
  static load(options: LoadOptions, signal?: AbortSignal): Promise<Engine>;

  /** What runs: model, adapter, dictionary. */
  readonly info: Info;

  /** Answers every lane's conversation; leaving the loop early cancels the run. */
  chat(options: ChatOptions): AsyncGenerator<ChatEvent, void, void>;

  /**
   * Replaces a lane's interventions from the next token on. Resolves to the setting's number, by which
   * token events name it.
   */
  setSteering(lane: number, interventions: Intervention[]): Promise<number>;

  /** The k strongest features at every token of a text. */
  topFeatures(text: string, hook: string, k: number): Promise<TokenFeatures>;

  /**
   * Whether the dictionary fits the model, measured on a built-in text. A chat that comes meanwhile ends it
   * with the code "cancelled" and is answered at once.
   */
  testSae(): Promise<SelfTest>;

  /** What the engine takes of the machine's memory now. */
  memory(): Promise<Memory>;

  /** Ends the running chat within a token. */
  cancel(): Promise<void>;

  /** The reason, once the engine has died by itself; it stays open when it was ended on purpose. */
  readonly lost: Promise<EngineError>;

  /** Frees the GPU and ends the worker. */
  dispose(): Promise<void>;

  /** Ends the worker at once, whatever it is doing; calls that wait reject with the code "cancelled". */
  terminate(): void;
}
