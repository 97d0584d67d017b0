// A page of somebody's own against the types that ship with the built page: scripts/test.sh compiles it
// beside a copy of them.

import { Engine, EngineError, type ChatEvent, type LoadProgress } from "./phi3-steer/www/engine-client.js";

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

// Mistakes are noticed.
// @ts-expect-error no such operator
await engine.setSteering(0, [{ hook: "layers.3", feature: 1, op: "crush" }]);
// @ts-expect-error a misspelt option
await Engine.load({ modell: "models/nano/" });
// @ts-expect-error a role that is none
engine.chat({ lanes: [{ messages: [{ role: "robot", content: "Hi" }] }] });
