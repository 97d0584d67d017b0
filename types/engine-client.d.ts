/** The engine for pages: types of www/engine-client.js, beside which a built page has this file. */

export type * from "../src/web/types.d.ts";
import type { OpenAI } from "./openai.d.ts";
import type { ChatEvent, ChatOptions, Gate, Info, Intervention, LabOptions, LabPlot, LabReportInput, LabResult, LabVerdict, LoadOptions, Memory, OperatorInfo, SelfTest, SpeedOptions, TokenFeatures, TrainedDictionary, TrainOptions } from "../src/web/types.d.ts";

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

  /** The engine in the shape of OpenAI's chat completions. */
  readonly openai: OpenAI;

  /** Answers every lane's conversation; leaving the loop early cancels the run. */
  chat(options: ChatOptions): AsyncGenerator<ChatEvent, void, void>;

  /**
   * Replaces a lane's interventions from the next token on. Resolves to the setting's number, by which
   * token events name it.
   */
  setSteering(lane: number, interventions: Intervention[]): Promise<number>;

  /**
   * Decides before each of a lane's answers whether its interventions hold for it, and says so in an event
   * "gate"; null: they always hold.
   */
  setGate(lane: number, gate: Gate | null): Promise<void>;

  /** Makes a vector of the residual stream a direction that interventions at the hook point can name. */
  addDirection(hook: string, name: string, values: Float32Array | number[]): Promise<void>;

  /** What can be done to a feature or along a direction. */
  operators(): Promise<OperatorInfo[]>;

  /**
   * A second engine of the same weights in the same worker, with lanes of its own, none of them steered; this
   * one's conversations stay as they are. It lives as long as this one, or until it is disposed of. Of the
   * other calls, it has chat, setSteering, setGate, addDirection, topFeatures, memory, cancel and dispose.
   */
  fork(lanes: number): Promise<Engine>;

  /**
   * Follows a recipe of the lab on lanes of its own, in turns with the chat; with a journal's lines it goes on
   * where they end.
   */
  lab(options: LabOptions): Promise<LabResult>;

  /** Ends the lab's run, or training, after the step under way; its promise rejects with the code "cancelled". */
  cancelLab(): Promise<void>;

  /**
   * Trains a sparse dictionary of a block's output on lanes of its own, in turns with the chat: on text, on chats,
   * and on what the model itself replies to prompts. Everything random comes from settings.seed.
   */
  trainDictionary(options: TrainOptions): Promise<TrainedDictionary>;

  /** Ends the training after the step under way and keeps what came of it: after the first one, if none was taken yet. */
  finishTraining(): Promise<void>;

  /** The plots of results, as texts of SVG. */
  labPlots(results: LabResult[], options: { theme: "css" }): Promise<LabPlot[]>;

  /** One HTML file with results, plots, tables, settings and notes. */
  labReport(input: LabReportInput): Promise<string>;

  /** A result's table as a text. */
  labTable(result: LabResult, format: "csv" | "json" | "markdown"): Promise<string>;

  /** A measurement or sweep with verdicts by hand in place of the judge's; shares, intervals, pairs and ranges are counted anew. */
  labOverrule(result: LabResult, verdicts: LabVerdict[]): Promise<LabResult>;

  /** The k strongest features at every token of a text. */
  topFeatures(text: string, hook: string, k: number): Promise<TokenFeatures>;

  /**
   * Whether the dictionary fits the model, measured on a built-in text. A chat that comes meanwhile ends it
   * with the code "cancelled" and is answered at once.
   */
  testSae(): Promise<SelfTest>;

  /**
   * Measures how fast the model runs, on lanes of its own; the figures come as they are there. A chat that comes
   * meanwhile, or cancel(), ends it with the code "cancelled".
   */
  measureSpeed(options: SpeedOptions): Promise<void>;

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
