/** A folder of files: its base URL, or the files themselves. */
export type Source = string | File[];

export interface LoadProgress {
  stage: "config" | "tokenizer" | "weights" | "dictionary" | "warmup";
  /** Bytes of the file so far. */
  loaded: number;
  /** Bytes of the file, 0 when not known. */
  total: number;
  file: string;
}

export interface LoadOptions {
  /** A .gguf file, or a folder with one or with config.json, tokenizer.json and model.safetensors or its index. */
  model: Source;
  /** Folder with cfg.json and sae.safetensors, or with layers.N that holds them. */
  sae?: Source;
  /** Hook point of the dictionary: which of several, or where it goes whatever its files say. */
  saeHook?: string;
  /** Conversations in lockstep; 2 by default. */
  lanes?: number;
  /**
   * What weights in plain numbers become; quantised ones are kept as their file has them. "auto", the default: what the
   * model's config.json says that it was measured at, else 8 bits below a billion parameters, and above 4 bits with 8 for
   * the embedding and the head.
   */
  quant?: "auto" | "q4" | "q8" | "none";
  contextLength?: number;
  onProgress?: (progress: LoadProgress) => void;
}

/** `adapter.leftOut`: what came out wrong on the adapter when it was opened, and is therefore done in another way. */
export interface Info {
  model: { name: string; layers: number; hidden: number; vocab: number; context: number; quant: Format[]; parameters: number; gpuBytes: number };
  adapter: { name: string; backend: string; f16: boolean; subgroups: boolean; cpu: boolean; leftOut?: string };
  /** Conversations in lockstep. */
  lanes: number;
  /** The most bytes of its own memory that the engine had taken by the end of loading. */
  heapBytes: number;
  sae?: {
    hook: string;
    features: number;
    /** Latents that are listed for a token at most; of a TopK dictionary, those that are active. */
    k: number;
    /** The files' format: "sparsify", "SAELens", … */
    kind: string;
    /** "TopK", "ReLU or JumpReLU", "gated" */
    activations: string;
    stored: Format;
  };
}

/** What the engine takes of the machine's memory, as it is now. */
export interface Memory {
  /** Bytes of all its buffers on the GPU. */
  gpuBytes: number;
  /** Bytes of its own memory, which never shrinks. */
  heapBytes: number;
}

/** How weights are stored on the GPU: bits, m with a minimum. */
export type Format = "f32" | "q4" | "q4m" | "q5" | "q6" | "q8";

/** What a dictionary makes of the residual stream at one place, on a short text. */
export interface Fit {
  hook: string;
  vectors: number;
  /** Fraction of variance unexplained: 0 is perfect, 1 no better than the mean vector. */
  fvu: number;
  /** Active latents a token. */
  l0: number;
  /** Share of latents that are active at none of the tokens. */
  dead: number;
  meanActivation: number;
}

/** Whether the dictionary fits the model where it is. */
export interface SelfTest {
  fit: Fit;
  /** At the neighbouring places. */
  others: Fit[];
  verdict: { kind: "fits" | "nowhere" } | { kind: "elsewhere"; hook: string };
  sentence: string;
}

/** What is done to a feature or along a direction; operators() tells about each. */
export type Operator = "clamp" | "clamp_replace" | "add" | "scale" | "project_out" | "cap" | "amplify" | "reconstruct";

/** What is said of an operator. */
export interface OperatorInfo {
  name: Operator;
  /** Its name for people. */
  label: string;
  /** What it does, in a sentence. */
  words: string;
  /** What it does to a token's feature that was just named; "{value}" stands for the value. */
  deed: string;
  /** What its value is; null if it has none. */
  value: string | null;
  /** Whether its value is a factor, which is the same for features of whatever size. */
  factor: boolean;
  /** Whether it needs a feature's activation. */
  activation: boolean;
  /** Whether it puts the dictionary's reconstruction in place of what is there. */
  reconstruction: boolean;
  /** Whether it is about a feature. */
  feature: boolean;
  /** Whether it can be about a direction that is no feature's. */
  direction: boolean;
}

export interface Intervention {
  /** The output of a block: "layers.3". */
  hook: string;
  /** What it is about: a feature's number, or the name of a direction that addDirection added. */
  feature?: number;
  direction?: string;
  op: Operator;
  value?: number;
  positions?: "all" | "prompt" | "generated";
  includeBos?: boolean;
  onlyIfActive?: boolean;
}

/**
 * Decides before each answer whether a lane's interventions hold for it, by the residual stream at the
 * prompt's last token as it is without steering: they do where the score, a linear probe's logistic
 * probability or a feature's activation, is `threshold` or more.
 */
export type Gate = { hook: string; threshold: number } & ({ weights: number[] | Float32Array; bias: number } | { feature: number });

export interface Sampling {
  /** 0, the default, takes the likeliest token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
}

export interface ChatOptions {
  /** One conversation a lane; lane i is steered by setSteering(i, …). */
  lanes: { messages: { role: "system" | "user" | "assistant"; content: string }[] }[];
  maxTokens?: number;
  sampling?: Sampling;
  /** Report this feature's activation at every token. */
  track?: { hook: string; feature: number };
  /** Report the k strongest features at every token. */
  topFeatures?: number;
  /**
   * Report how likely every token was, and the k likeliest in its place (0 to 20), for the model as it is steered,
   * before temperature, penalty and the rest of the sampling. All logits are read back for it.
   */
  logprobs?: number;
}

/** A token and the log of its probability, in nats. */
export interface TokenLogprob {
  id: number;
  text: string;
  /** What it adds to the text, in UTF-8: perhaps a part of a character. None of a special token. */
  bytes: number[];
  logprob: number;
}

export interface TokenInfo {
  id: number;
  text: string;
  activation?: number;
  top?: [number, number][];
}

/** What the engine throws: a code to branch on, a sentence to show, and the option that is wrong, if one is. */
export interface EngineFault extends Error {
  code: string;
  field?: string;
}

export interface TokenFeatures {
  tokens: TokenInfo[];
}

export type ChatEvent =
  /** The lane's gate has decided about the answer that comes; before its prompt is read. */
  | { type: "gate"; lane: number; score: number; threshold: number; steered: boolean }
  /** A prompt was read: `length` tokens, `reused` of them before; `tokens` are those of the last message's turn, from position `first` on. */
  | { type: "prompt"; lane: number; first: number; length: number; tokens: TokenInfo[]; reused: number }
  /** `setting` is what setSteering returned for the setting that the token was written under (0: none was ever set); `steered` whether it edits the tokens of an answer. */
  | ({ type: "token"; lane: number; steered: boolean; setting: number; logprobs?: TokenLogprob & { top: TokenLogprob[] } } & TokenInfo)
  | { type: "done"; lane: number; reason: "stop" | "length" | "cancelled" | "context"; text: string; tokens: number }
  | { type: "stats"; promptTokens: number; prefillMs: number; generatedTokens: number; decodeMs: number; tokensPerSecond: number };

/** What to measure of the model's speed. */
export interface SpeedOptions {
  /** Numbers of lanes; 1 and 2 by default. */
  lanes?: number[];
  /** Positions that a lane holds before it decodes; 16 and 256 by default. More than the model holds are left out. */
  context?: number[];
  /** Tokens that a lane decodes, 2 or more; 16 by default. */
  tokens?: number;
  /** Seconds that a figure may take at most; 10 by default. */
  patience?: number;
  onFigure: (figure: SpeedFigure) => void;
}

/** What runs, what a dispatch and a byte cost, the parts of a pass, whole passes, or what was left out. */
export interface SpeedFigure {
  figure: "machine" | "floor" | "parts" | "pass" | "leftOut";
  /** The figure as people read it. */
  text: string;
  [field: string]: any;
}

/** What the lab is to do; docs/lab.md has the recipes' fields and the results'. */
export interface LabOptions {
  recipe: object;
  /** The text of the file with the prompts: the nano model's eval.json, sets/real.json, or one's own. */
  sets: string;
  /** The lines that were told before, one after the other: the work goes on where they end. */
  journal?: string;
  /** Prompts that run at once; 16 by default. */
  lanes?: number;
  onEvent: (event: LabEvent) => void;
}

export type LabEvent =
  | { type: "progress"; stage: string; done: number; total: number; secondsLeft: number | null }
  /** A line of the journal, to be kept until the result is there. */
  | { type: "line"; line: string };

/** A result of the lab. */
export interface LabResult {
  schema: "phi3-steer.result/1";
  task: string;
  recipe: Record<string, any>;
  [field: string]: any;
}

/** What a reader says of a reply, in place of the judge. */
export interface LabVerdict {
  /** The arm's name. */
  arm: string;
  /** The prompt's id, as the result's items have it. */
  item: string;
  /** Whether the reply declines; null gives the judge's verdict back. */
  refused: boolean | null;
}

/** A file of text that is trained on. */
export interface TrainText {
  /** What the card calls it; conversations and prompts of a file called .jsonl are JSON, a line each. */
  name: string;
  text: string;
}

/** What a dictionary is to be and how it is trained; what is left out is as usual. */
export interface TrainSettings {
  /** 8 for each element of the residual stream by default. */
  latents?: number;
  /** Active latents of a token; 32 by default. */
  k?: number;
  /** Of each token, the default; or on average, saved as a JumpReLU dictionary in SAELens's layout. */
  selection?: "topk" | "batchtopk";
  /** 500 by default. */
  steps?: number;
  /** Vectors of a step; 2048 by default. */
  rows?: number;
  /** Adam's rate at its highest; 0.001 by default. */
  rate?: number;
  /** Steps over which the rate rises; a tenth of all by default, at most 50. */
  warmup?: number;
  /** The last share of the steps, over which the rate falls; 0.4 by default. */
  decay?: number;
  /** Steps without being active after which a latent is dead; 60 by default. */
  deadAfter?: number;
  /** Dead latents that rebuild what the others leave of a token; 64 by default, 0 for none. */
  auxiliary?: number;
  /** 1/32 by default. */
  auxiliaryWeight?: number;
  /** Leaves the decoder random, as a control. */
  frozenDecoder?: boolean;
  /** 1 by default. */
  seed?: number;
}

export interface TrainOptions {
  /** The block whose output it is trained on, as in "layers.3". */
  hook: string;
  /** Plain text. */
  texts?: TrainText[];
  /** Conversations with their replies. */
  chats?: TrainText[];
  /** Prompts that the model itself replies to. */
  prompts?: TrainText[];
  /** Beginnings of replies, from each of which each prompt is replied to; "" lets the model begin, and is the default. */
  openings?: string[];
  /** Tokens of a reply at most; 48 by default. */
  replyTokens?: number;
  /** Of the replies; 1 by default. */
  temperature?: number;
  /** Tokens of a sequence; 128 by default. */
  length?: number;
  /** Tokens to train on at most, of a random choice of sequences. */
  tokens?: number;
  settings?: TrainSettings;
  /** Activations in units of the vectors' size, so that strengths are of a like size in every model. */
  relative?: boolean;
  /** Tokens, held out, on which the loss is measured with the dictionary in the loop; 1024 by default. */
  lossTokens?: number;
  /** Sequences that run at once; 16 by default. */
  lanes?: number;
  /** What the card says of how it was made. */
  how?: string;
  onEvent: (event: TrainEvent) => void;
}

export type TrainEvent =
  | { stage: "writing" | "harvest" | "measuring"; done: number; total: number }
  /** unexplained: the share of variance that the step's reconstructions leave, of its own vectors. */
  | { stage: "training"; done: number; total: number; unexplained: number; dead: number };

/** A dictionary that was trained. */
export interface TrainedDictionary {
  hook: string;
  /** Steps that were taken. */
  steps: number;
  /** Fraction of variance unexplained, on sequences held out. */
  fvu: number;
  /** Active latents a token. */
  l0: number;
  /** The share of what the mean vector in its place costs in loss that the reconstruction keeps. */
  lossRecovered: number;
  seconds: number;
  /** cfg.json, the tensors, report.json, README.md, in sparsify's or SAELens's layout, for LoadOptions.sae as files named below `${hook}/`. */
  files: { name: string; bytes: Uint8Array }[];
  /** The same files in a folder called as the hook point, as one zip. */
  archive: Uint8Array;
  /** The figures in words. */
  figures: string[];
}

/** A picture of a result; its colours are the page's custom properties --text, --muted, --line, --surface, --plot-1 … --plot-5. */
export interface LabPlot {
  name: string;
  title: string;
  svg: string;
}

/** What labReport makes one HTML file of. */
export interface LabReportInput {
  title?: string;
  /** Plain text; empty lines part paragraphs. */
  notes?: string;
  results: LabResult[];
  settings?: unknown;
}
