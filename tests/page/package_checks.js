// What tests/page/package.rs asks a page with the package, after the README's example has run.
try {
  const said = { base: base.choices[0].message.content, steered, progress: [] };
  const face = await CreateMLCEngine("models/nano/", { sae: "models/nano/sae/", initProgressCallback: ({ progress }) => said.progress.push(progress) });
  const ask = (more) => face.chat.completions.create({ messages, max_tokens: 128, temperature: 0, ...more });
  const text = ({ choices }) => choices[0].message.content;
  const streamed = async (more) => {
    let all = "";
    for await (const { choices } of await ask({ ...more, stream: true })) all += choices[0].delta.content ?? "";
    return all;
  };
  const own = async (sampling, interventions = []) => {
    await face.engine.setSteering(0, interventions);
    let all = "";
    for await (const event of face.engine.chat({ lanes: [{ messages }], maxTokens: 128, sampling })) if (event.type === "token" || event.type === "done") all += event.text;
    await face.engine.setSteering(0, []);
    return all;
  };
  said.engine = [await own({}), await own({}, steering)];
  const [draw, sampling] = [{ temperature: 1.2, top_p: 0.9, seed: 7, steering }, { temperature: 1.2, topP: 0.9, seed: 7 }];
  said.drawn = { whole: text(await ask(draw)), streamed: await streamed(draw), engine: await own(sampling, steering) };
  said.unsteered = text(await ask({}));
  said.logprobs = (await ask({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs.content;
  const stop = said.base.slice(Math.floor(said.base.length / 2), Math.floor(said.base.length / 2) + 5);
  const stopped = await ask({ stop });
  said.stop = { stop, text: text(stopped), reason: stopped.choices[0].finish_reason };
  const short = await ask({ max_tokens: 3 });
  said.short = [short.choices[0].finish_reason, short.usage.completion_tokens];
  const refusal = await ask({ tools: [{ type: "function" }] }).catch((error) => error);
  said.refusal = [refusal.name, refusal.code, refusal.field];
  await face.unload();
  window.said = said;
} catch (error) {
  window.failure = `${error.code}: ${error.message}\n${error.stack}`;
}
