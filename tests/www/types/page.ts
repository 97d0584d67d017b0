// A page of somebody's own against the types that ship with the built page: scripts/test.sh compiles it
// beside a copy of them.

import { CreateMLCEngine, Engine, EngineError, type ChatCompletion, type ChatCompletionChunk, type ChatEvent, type LoadProgress } from "./phi3-steer/www/index.js";

const stages: LoadProgress["stage"][] = [];
const engine = await Engine.load(
  { model: "models/nano/", sae: [new File([], "cfg.json")], lanes: 2, onProgress: ({ stage }) => stages.push(stage) },
  AbortSignal.timeout(60_000),
);
const layers: number = engine.info.model.layers;
const features: number | undefined = engine.info.sae?.features;
const setting: number = await engine.setSteering(1, [{ hook: "layers.3", feature: 329, op: "clamp", value: 8 }]);
const events: ChatEvent[] = [];
let text = "";
try {
  const messages = [{ role: "user" as const, content: "Hi" }];
  for await (const event of engine.chat({ lanes: [{ messages }, { messages }], maxTokens: 64, topFeatures: 3 })) {
    events.push(event);
    if (event.type === "token") text += event.text + (event.top?.[0][0] ?? "");
    if (event.type === "stats") console.log(event.tokensPerSecond);
  }
} catch (error) {
  if (error instanceof EngineError) console.error(error.code, error.message);
}
const strongest: number | undefined = (await engine.topFeatures(text, "layers.3", 5)).tokens[0].top?.[0][1];
console.log(layers, features, setting, strongest);
await engine.dispose();

const face = await CreateMLCEngine("models/nano/", { sae: "models/nano/sae/", initProgressCallback: ({ progress }) => progress > 0 });
const request = { messages: [{ role: "user" as const, content: "Hi" }], steering: [{ hook: "layers.3", feature: 329, op: "clamp" as const, value: 8 }] };
const whole: ChatCompletion = await face.chat.completions.create({ ...request, logprobs: true, top_logprobs: 3, stop: ["."] });
const chunks: ChatCompletionChunk[] = [];
for await (const chunk of await engine.openai.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
console.log(whole.choices[0].logprobs?.content[0].top_logprobs[0].logprob, whole.usage.total_tokens, chunks[0].choices[0].delta.content);
await face.interruptGenerate();

// Mistakes are noticed.
// @ts-expect-error tools are not supported
await face.chat.completions.create({ ...request, tools: [{ type: "function" }] });
// @ts-expect-error a misspelt field
await face.chat.completions.create({ ...request, max_token: 3 });
// @ts-expect-error no such operator
await engine.setSteering(0, [{ hook: "layers.3", feature: 1, op: "crush" }]);
// @ts-expect-error a misspelt option
await Engine.load({ modell: "models/nano/" });
// @ts-expect-error a role that is none
engine.chat({ lanes: [{ messages: [{ role: "robot", content: "Hi" }] }] });
