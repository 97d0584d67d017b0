//! What the tests share: a random model with a dictionary, and the events of a run by lane.

use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{
    Chat, ChatRequest, DoneReason, Event, FeatureWish, GenerateError, PromptToken, Sampling, Stats,
};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{CacheFormat, Model, ModelOptions};
use phi3_steer::sae::{Dictionary, Wanted};
use phi3_steer::steering::{Steering, TokenFeatures};
use phi3_steer::tokens::{ChatTokenizer, Prompt, TokenRole};
use pollster::block_on;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::support::checkpoint::{RandomModel, config};
use crate::support::dictionary::RandomDictionary;

const TOKENIZER: &[u8] = include_bytes!("../../models/nano/tokenizer.json");
/// Tokens of the tokenizer.
pub const VOCAB: usize = 3072;
pub const WIDTH: usize = 64;
pub const LATENTS: usize = 100;

/// A model's files, its dictionary's, and how both are loaded.
pub struct Setup {
    pub gpu: Rc<Gpu>,
    pub random: RandomModel,
    pub dictionary: Option<Folder>,
    pub lanes: usize,
    pub cache: CacheFormat,
}

impl Setup {
    /// A random model of two blocks with a TopK dictionary after the first; `change` replaces entries of
    /// its configuration.
    pub fn new(rng: &mut StdRng, change: Value) -> Self {
        let mut json = config(json!({
            "vocab_size": VOCAB, "hidden_size": WIDTH, "num_key_value_heads": 1,
            "intermediate_size": 96
        }));
        if let (Some(all), Value::Object(change)) = (json.as_object_mut(), change) {
            all.extend(change);
        }
        let options = GpuOptions {
            cpu_adapter: true,
            ..GpuOptions::default()
        };
        let gpu = block_on(Gpu::open(&options)).expect("a software Vulkan adapter");
        let sae = RandomDictionary::new(rng, WIDTH, LATENTS, 6);
        Self {
            gpu: Rc::new(gpu),
            random: RandomModel::new(rng, json),
            dictionary: Some(Folder::memory("dictionary", sae.files("layers.0/"))),
            lanes: 2,
            cache: CacheFormat::F32,
        }
    }

    /// A fresh engine.
    pub fn chat(&self) -> Chat {
        let options = ModelOptions {
            lanes: self.lanes,
            precision: Format::F32.into(),
            cache: self.cache,
            ..ModelOptions::default()
        };
        let folder = self.random.folder();
        let model = Model::load(self.gpu.clone(), &folder, options);
        let model = block_on(model).expect("a model");
        let mut dictionaries = Vec::new();
        if let Some(folder) = &self.dictionary {
            let found = Dictionary::find(&self.gpu, folder, Wanted::default());
            dictionaries.push(block_on(found).expect("a dictionary"));
        }
        let steering = block_on(Steering::new(&model, dictionaries)).expect("it fits");
        let tokenizer = ChatTokenizer::from_json(TOKENIZER, None).expect("a tokenizer");
        block_on(Chat::new(model, Rc::new(tokenizer), steering)).expect("a chat")
    }
}

/// Tokens that a user says.
pub fn prompt(ids: Vec<u32>) -> Prompt {
    Prompt {
        roles: vec![TokenRole::Prompt; ids.len()],
        ids,
    }
}

/// The prompt, then tokens that the assistant said.
pub fn after(prompt: &Prompt, said: &[u32]) -> Prompt {
    let mut prompt = prompt.clone();
    prompt.ids.extend(said);
    prompt.roles.resize(prompt.ids.len(), TokenRole::Generated);
    prompt
}

/// What a lane was told.
#[derive(Default)]
pub struct Lane {
    /// The gate's score and decision.
    pub gate: Option<(f32, bool)>,
    pub first: usize,
    pub prompt: Vec<PromptToken>,
    pub reused: usize,
    pub tokens: Vec<u32>,
    pub text: String,
    pub features: Vec<Option<Rc<TokenFeatures>>>,
    pub steered: Vec<bool>,
    pub settings: Vec<u64>,
    pub reason: Option<DoneReason>,
}

/// Greedy answers to `prompts`, lane by lane; `hear` gets every event as it comes.
pub fn answer(
    chat: &mut Chat,
    prompts: &[Prompt],
    max_tokens: usize,
    features: Option<FeatureWish>,
    hear: &mut dyn FnMut(&Event),
) -> Result<(Vec<Lane>, Stats), GenerateError> {
    let request = ChatRequest {
        prompts,
        max_tokens,
        sampling: Sampling::default(),
        features,
        logprobs: None,
        cancel: Rc::default(),
    };
    let mut lanes: Vec<Lane> = prompts.iter().map(|_| Lane::default()).collect();
    let stats = block_on(chat.run(&request, &mut |event| {
        hear(&event);
        match event {
            Event::Gate {
                lane,
                score,
                steered,
                ..
            } => lanes[lane].gate = Some((score, steered)),
            Event::Prompt {
                lane,
                first,
                tokens,
                reused,
            } => {
                let lane = &mut lanes[lane];
                (lane.first, lane.prompt, lane.reused) = (first, tokens, reused);
            }
            Event::Token {
                lane,
                token,
                text,
                features,
                steered,
                setting,
                ..
            } => {
                let lane = &mut lanes[lane];
                lane.tokens.push(token);
                lane.text += &text;
                lane.features.push(features);
                lane.steered.push(steered);
                lane.settings.push(setting);
            }
            Event::Done {
                lane, reason, text, ..
            } => {
                lanes[lane].reason = Some(reason);
                lanes[lane].text += &text;
            }
        }
    }))?;
    Ok((lanes, stats))
}

/// Answers without a listener, which must succeed.
pub fn plain(chat: &mut Chat, prompts: &[Prompt], max_tokens: usize) -> Vec<Lane> {
    let answered = answer(chat, prompts, max_tokens, None, &mut |_| {});
    answered.expect("an answer").0
}

/// The logits after `prompts`, `[lanes][vocab]`.
pub fn logits(chat: &mut Chat, prompts: &[Prompt]) -> Vec<Vec<f32>> {
    plain(chat, prompts, 0);
    let model = chat.model();
    let all = model
        .gpu()
        .read_vec::<f32>(model.logits(), 0, prompts.len() * VOCAB);
    let all = block_on(all).expect("logits");
    all.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

/// As f64, for comparisons.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Checks that greedy `said` follows from `logits` at each place: other kernels may decide otherwise only
/// where two tokens are as likely as each other.
pub fn assert_greedy(logits: &[f32], said: u32, what: &str) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = logits.iter().fold(0.0f32, |m, l| m.max(l.abs()));
    let own = logits[said as usize];
    assert!(
        top - own <= 1e-4 * scale,
        "{what}: token {said} has {own}, the likeliest {top}"
    );
}
