//! The lab's searches on a model and a dictionary with a known truth: which latent makes it refuse, one that
//! reads harm but does not act, and one that acts on everything. Runs on the software adapter.
#![cfg(not(target_arch = "wasm32"))]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::Chat;
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::lab::{Journal, LabError, Recipe, Run, Sets, identity, run_recipe};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{CacheFormat, Model, ModelOptions};
use phi3_steer::sae::{Dictionary, Wanted};
use phi3_steer::steering::Steering;
use phi3_steer::tokens::ChatTokenizer;
use pollster::block_on;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::checkpoint::{RandomModel, config};
use support::{fresh_rng, numbers};

/// The seed of the planted model, unless the environment has another in SEED. With one draw in some tens,
/// noise in the random weights makes a decoy act a little, or moves a share over its bound: the model is
/// then not as planted, which says nothing of the search.
const SEED: u64 = 1;

fn planted_rng() -> StdRng {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

const TOKENIZER: &[u8] = include_bytes!("../models/nano/tokenizer.json");
const VOCAB: usize = 3072;
const WIDTH: usize = 96;
const LATENTS: usize = 40;

/// Directions of the residual stream.
const CONSTANT: usize = 0;
const HARM: usize = 1;
const DISGUISE: usize = 2;
const SAID: usize = 3;
/// What block 0 makes of the prompt: how far it is to be refused.
const REFUSE: usize = 4;
/// How harmful it is, which block 1 asks for before it refuses.
const HARMFUL: usize = 5;
/// The same, which nothing reads.
const COPY: usize = 6;
/// What the head reads.
const OUT: usize = 7;
/// How a refusal is worded, where the model never says one by itself.
const MANNER: usize = 8;
/// The first direction that is nothing but noise.
const NOISE: usize = 16;

/// The latents with a role; all others are random.
const TRUTH: u64 = 11;
const READER: u64 = 5;
const ACTOR: u64 = 23;

/// Words of refusals, one at least of each that the lab puts into a model's mouth, and none of its answers.
const REFUSING: [&str; 6] = [
    "sorry",
    "cannot",
    "decline",
    "unable",
    "ability",
    "apologize",
];

/// The tokens of some words that are in no other text of the tests.
fn tokens_of(tokenizer: &ChatTokenizer, words: &[&str]) -> Vec<u32> {
    let answers =
        tokenizer.encode("Sure, of course! Yes, here is what you start with, the steps to follow.");
    let answers = answers.unwrap();
    let all = words.iter().flat_map(|word| {
        let ids = tokenizer.encode(&format!("a {word}")).unwrap();
        ids.into_iter().skip(1)
    });
    all.filter(|id| !answers.contains(id)).collect()
}

/// A model that refuses harmful prompts unless they are disguised, and its prompts.
struct Planted {
    model: RandomModel,
    dictionary: Folder,
    sets: Vec<u8>,
}

/// Words that are one token each, after a space.
fn words(tokenizer: &ChatTokenizer) -> Vec<(String, u32)> {
    let plain = |t: &str| t.len() >= 4 && t.bytes().all(|b| b.is_ascii_lowercase());
    let mut all: Vec<(String, u32)> = Vec::new();
    for id in 0..VOCAB as u32 {
        let word = tokenizer.token_text(id).trim().to_string();
        if plain(&word)
            && all.iter().all(|(w, _)| *w != word)
            && tokenizer.encode(&format!("a {word}")).unwrap().last() == Some(&id)
            && tokenizer
                .encode(&format!("a {word} {word}"))
                .unwrap()
                .ends_with(&[id, id])
        {
            all.push((word, id));
        }
    }
    all
}

impl Planted {
    fn new(rng: &mut StdRng) -> Self {
        Self::with(rng, true)
    }

    /// The same, but it sees harm and never decides to refuse, unless the true latent is held up.
    fn willing(rng: &mut StdRng) -> Self {
        Self::with(rng, false)
    }

    /// The true latent reads the wording of refusals, too.
    fn with(rng: &mut StdRng, decides: bool) -> Self {
        let tokenizer = ChatTokenizer::from_json(TOKENIZER, None).unwrap();
        let refusing = tokens_of(&tokenizer, &REFUSING);
        let mut words = words(&tokenizer);
        words.retain(|(_, id)| !refusing.contains(id));
        words.shuffle(rng);
        let (yes, no) = (words.remove(0), words.remove(0));
        let (harm, rest) = words.split_at(8);
        let (disguise, rest) = rest.split_at(4);
        let flagged =
            |some: &[(String, u32)], id: usize| some.iter().any(|(_, w)| *w as usize == id);
        let json = config(json!({
            "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 96,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 48,
            "max_position_embeddings": 512,
        }));
        let mut model = RandomModel::new(rng, json);
        for (name, tensor) in &mut model.tensors {
            let value = if name.contains("norm") { 1.0 } else { 0.0 };
            tensor.values.fill(value);
        }
        let noise = numbers(rng, VOCAB * WIDTH, 0.1);
        let mut set = |name: &str, row: usize, column: usize, value: f32| {
            let tensor = model.tensors.get_mut(name).unwrap();
            let width = tensor.shape[1];
            tensor.values[row * width + column] = value;
        };
        let embed = "model.embed_tokens.weight";
        for id in 0..VOCAB {
            (NOISE..WIDTH).for_each(|d| set(embed, id, d, noise[id * WIDTH + d]));
            set(embed, id, CONSTANT, 1.0);
            let on = |flag: bool| f32::from(u8::from(flag));
            set(embed, id, HARM, on(flagged(harm, id)));
            set(embed, id, DISGUISE, on(flagged(disguise, id)));
            set(embed, id, SAID, on(id as u32 == yes.1 || id as u32 == no.1));
            set(embed, id, MANNER, on(refusing.contains(&(id as u32))));
        }
        // All positions are looked at alike: the values are means over the prompt.
        let (qkv, o) = ("self_attn.qkv_proj", "self_attn.o_proj");
        let of = |block: usize, name: &str| format!("model.layers.{block}.{name}.weight");
        set(&of(0, qkv), 2 * WIDTH, HARM, 1.0);
        set(&of(0, qkv), 2 * WIDTH + 1, DISGUISE, 1.0);
        set(&of(0, o), REFUSE, 0, if decides { 8.0 } else { 0.0 });
        set(&of(0, o), REFUSE, 1, -8.0);
        set(&of(0, o), HARMFUL, 0, 8.0);
        set(&of(0, o), COPY, 0, 1.0);
        // Block 1 refuses what is to be refused and harmful: silu(harmful) times refuse.
        set(&of(1, "mlp.gate_up_proj"), 0, HARMFUL, 4.0);
        set(&of(1, "mlp.gate_up_proj"), 96, REFUSE, 4.0);
        set(&of(1, "mlp.down_proj"), OUT, 0, 0.01);
        let head = "lm_head.weight";
        set(head, no.1 as usize, OUT, 8.0);
        set(head, yes.1 as usize, CONSTANT, 4.0);
        set(head, tokenizer.end() as usize, SAID, 60.0);

        let asks = Asks {
            rng,
            harm,
            disguise,
            rest,
        };
        let sets = asks.file(&no.0);
        Self {
            model,
            dictionary: Folder::memory("planted", dictionary(rng)),
            sets,
        }
    }

    fn chat(&self, lanes: usize) -> Chat {
        let options = GpuOptions {
            cpu_adapter: true,
            ..GpuOptions::default()
        };
        let gpu = Rc::new(block_on(Gpu::open(&options)).expect("a software Vulkan adapter"));
        let options = ModelOptions {
            lanes,
            precision: Format::F32.into(),
            cache: CacheFormat::F32,
            ..ModelOptions::default()
        };
        let model = block_on(Model::load(gpu.clone(), &self.model.folder(), options)).unwrap();
        let wanted = Wanted::default();
        let dictionary = block_on(Dictionary::find(&gpu, &self.dictionary, wanted)).unwrap();
        let steering = block_on(Steering::new(&model, vec![dictionary])).unwrap();
        let tokenizer = Rc::new(ChatTokenizer::from_json(TOKENIZER, None).unwrap());
        block_on(Chat::new(model, tokenizer, steering)).unwrap()
    }
}

/// A dictionary whose k is all its latents, so that every positive activation stays.
fn dictionary(rng: &mut StdRng) -> Vec<(String, Vec<u8>)> {
    let mut encoder = vec![0.0f32; LATENTS * WIDTH];
    let mut decoder = vec![0.0f32; LATENTS * WIDTH];
    for row in 0..LATENTS {
        for d in NOISE..WIDTH {
            encoder[row * WIDTH + d] = rng.random_range(-1.0..1.0);
            decoder[row * WIDTH + d] = rng.random_range(-1.0..1.0);
        }
        let own = &mut decoder[row * WIDTH..][..WIDTH];
        let norm = own.iter().map(|v| v * v).sum::<f32>().sqrt();
        own.iter_mut().for_each(|v| *v /= norm);
    }
    for (latent, reads, writes) in [
        (TRUTH, REFUSE, REFUSE),
        (READER, COPY, COPY),
        (ACTOR, CONSTANT, OUT),
    ] {
        for (matrix, d) in [(&mut encoder, reads), (&mut decoder, writes)] {
            let own = &mut matrix[latent as usize * WIDTH..][..WIDTH];
            // The actor's activation varies with the words, whatever they are.
            if d != CONSTANT {
                own.fill(0.0);
            }
            own[d] = 1.0;
        }
    }
    encoder[TRUTH as usize * WIDTH + MANNER] = 20.0;
    let cfg = json!({
        "activation": "topk", "expansion_factor": 1, "normalize_decoder": true,
        "num_latents": LATENTS, "k": LATENTS, "multi_topk": false,
        "skip_connection": false, "transcode": false, "d_in": WIDTH
    });
    let (bias, b_dec) = (vec![0.0f32; LATENTS], vec![0.0f32; WIDTH]);
    let parts = [
        ("encoder.weight", vec![LATENTS, WIDTH], encoder),
        ("encoder.bias", vec![LATENTS], bias),
        ("W_dec", vec![LATENTS, WIDTH], decoder),
        ("b_dec", vec![WIDTH], b_dec),
    ];
    let bytes = parts.map(|(name, shape, values)| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data);
        (*name, view.expect("shape and bytes agree"))
    });
    let tensors = safetensors::serialize(views, None).expect("a file");
    vec![
        ("layers.0/cfg.json".into(), cfg.to_string().into_bytes()),
        ("layers.0/sae.safetensors".into(), tensors),
    ]
}

/// Prompts of random words.
struct Asks<'a> {
    rng: &'a mut StdRng,
    harm: &'a [(String, u32)],
    disguise: &'a [(String, u32)],
    rest: &'a [(String, u32)],
}

impl Asks<'_> {
    fn some(&mut self, count: usize) -> Vec<String> {
        let mut one = || self.rest.choose(self.rng).expect("words").0.clone();
        (0..count).map(|_| one()).collect()
    }

    fn item(words: &[String]) -> Value {
        let content = format!("a {}", words.join(" "));
        json!({"messages": [{"role": "user", "content": content}]})
    }

    fn file(mut self, refusal: &str) -> Vec<u8> {
        let mut splits = BTreeMap::new();
        for split in ["validation", "test"] {
            let mut sets: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
            for _ in 0..24 {
                let mut request = self.some(4);
                let at = self.rng.random_range(0..4);
                request[at] = self.harm.choose(self.rng).expect("words").0.clone();
                sets.entry("direct").or_default().push(Self::item(&request));
                let hidden = self.disguise.choose(self.rng).expect("words").0.clone();
                // Word for word, the disguise around it.
                request.insert(0, "a".into());
                request.push(hidden);
                sets.entry("jb_one").or_default().push(Self::item(&request));
                let harmless = self.some(4);
                sets.entry("benign")
                    .or_default()
                    .push(Self::item(&harmless));
                let mut wrapped = self.some(5);
                wrapped[4] = self.disguise.choose(self.rng).expect("words").0.clone();
                sets.entry("wrapped")
                    .or_default()
                    .push(Self::item(&wrapped));
            }
            let kind = |name: &str| match name {
                "direct" => "refuse",
                "jb_one" => "jailbreak",
                _ => "benign",
            };
            let sets: Vec<Value> = sets
                .into_iter()
                .map(|(name, items)| json!({"name": name, "kind": kind(name), "items": items}))
                .collect();
            splits.insert(split, json!({"sets": sets}));
        }
        let judge = json!({"refusal_patterns": [refusal], "max_new_tokens": 6});
        json!({"version": 1, "judge": judge, "splits": splits})
            .to_string()
            .into_bytes()
    }
}

fn recipe(own: Value) -> Recipe {
    let mut recipe = json!({
        "schema": "phi3-steer.recipe/1", "hook": "layers.0", "seed": 1,
        "sets": {"name": "own"},
    });
    for (name, value) in own.as_object().unwrap() {
        recipe[name] = value.clone();
    }
    Recipe::read(&recipe).unwrap()
}

/// Follows a recipe in a journal whose lines go to `lines`, cancelled after `steps` steps.
fn follow(
    planted: &Planted,
    recipe: &Recipe,
    lines: &Rc<RefCell<String>>,
    steps: usize,
) -> Result<Value, LabError> {
    let mut chat = planted.chat(8);
    let sets = Sets::new("own", &planted.sets).unwrap();
    let about = identity(&chat, "planted", recipe, &sets).unwrap();
    let before = lines.borrow().clone();
    let sink = lines.clone();
    let told = Box::new(move |line: &str| *sink.borrow_mut() += &format!("{line}\n"));
    let mut journal = Journal::resume(&about, &before, told).unwrap();
    let known = journal.len();
    let cancel = Cell::new(false);
    let made = Cell::new(0);
    let mut tell = |progress: phi3_steer::lab::Progress| {
        made.set(made.get() + usize::from(progress.done > 0));
        cancel.set(made.get() >= known.saturating_add(steps));
    };
    let mut run = Run::new(&mut journal, &cancel, &mut tell);
    block_on(run_recipe(&mut chat, "planted", recipe, &sets, &mut run))
}

fn whole(planted: &Planted, recipe: &Recipe) -> Value {
    follow(planted, recipe, &Rc::default(), usize::MAX).expect("a result")
}

fn first_by(result: &Value, method: &str) -> u64 {
    let all = result["candidates"].as_array().unwrap();
    let first = all.iter().find(|c| c["ranks"][method] == 1);
    first.unwrap_or_else(|| panic!("none is first by {method}"))["feature"]
        .as_u64()
        .unwrap()
}

#[test]
fn the_planted_latent_is_found_and_told_from_its_decoys() {
    let mut rng = planted_rng();
    let planted = Planted::new(&mut rng);
    let result = whole(&planted, &recipe(json!({"task": "find", "confirm": 8})));
    // The model is as it was planted.
    assert_eq!(result["refused"]["direct"], 1.0, "{result}");
    assert_eq!(result["refused"]["jailbreaks"], 0.0);
    assert_eq!(result["refused"]["harmless"], 0.0);
    assert_eq!(result["latents"], LATENTS);
    // What compares refusals, or a request with its disguise, finds the truth.
    for method in ["contrastReply", "paired"] {
        assert_eq!(first_by(&result, method), TRUTH, "{method}");
    }
    // What compares harmful with harmless prompts finds what reads harm.
    assert_eq!(first_by(&result, "contrastLast"), READER);
    // What looks at the output finds what acts on everything.
    for method in ["causal", "output"] {
        assert_eq!(first_by(&result, method), ACTOR, "{method}");
    }
    let all = result["candidates"].as_array().unwrap();
    let of = |feature: u64| {
        let found = all.iter().find(|c| c["feature"] == feature);
        &found.unwrap_or_else(|| panic!("{feature} is no candidate"))["confirmed"]
    };
    let gain = |feature: u64, way: &str| {
        let change = &of(feature)[way];
        change["steered"].as_f64().unwrap() - change["base"].as_f64().unwrap()
    };
    // The confirmed effect tells them apart.
    assert_eq!(of(TRUTH)["bothWays"], true);
    assert_eq!((gain(TRUTH, "up"), gain(TRUTH, "harmless")), (1.0, 0.0));
    assert!(gain(TRUTH, "down") < 0.0);
    assert_eq!(of(READER)["bothWays"], false);
    assert_eq!((gain(READER, "up"), gain(READER, "down")), (0.0, 0.0));
    assert_eq!(of(ACTOR)["bothWays"], false);
    assert_eq!((gain(ACTOR, "up"), gain(ACTOR, "harmless")), (1.0, 1.0));
    assert_eq!(all[0]["feature"], TRUTH);
    assert_eq!(result["chosen"]["kind"], "feature");
    assert_eq!(result["chosen"]["features"][0]["feature"], TRUTH);
    let useful = &result["strength"]["useful"];
    let best = result["strength"]["default"].as_f64().unwrap();
    assert!(useful[0].as_f64() <= Some(best) && Some(best) <= useful[1].as_f64());
    // The gate in passing: harm is plain to see.
    assert!(result["gate"]["auc"].as_f64() > Some(0.99));
}

#[test]
fn a_model_that_never_refuses_shows_its_latent_on_replies_put_into_its_mouth() {
    let mut rng = planted_rng();
    let planted = Planted::willing(&mut rng);
    let result = whole(&planted, &recipe(json!({"task": "find", "confirm": 8})));
    // The model is as it was planted.
    for set in ["direct", "jailbreaks", "harmless"] {
        assert_eq!(result["refused"][set], 0.0, "{set}");
    }
    assert_eq!(result["direction"]["reply"]["by"], "forced");
    let candidates = result["candidates"].as_array().unwrap();
    let truth = candidates.iter().find(|c| c["feature"] == TRUTH).unwrap();
    // There are few replies to put into its mouth, and any latent may happen to tell them apart.
    let rank = truth["ranks"]["contrastReply"].as_u64();
    assert!(rank <= Some(3), "{rank:?}");
    // Held up it refuses what is harmful and nothing else; there is nothing to turn down.
    let change = |way: &str| {
        let change = &truth["confirmed"][way];
        (change["base"].as_f64(), change["steered"].as_f64())
    };
    assert_eq!(change("up"), (Some(0.0), Some(1.0)));
    assert_eq!(change("harmless"), (Some(0.0), Some(0.0)));
    assert_eq!(change("down"), (Some(0.0), Some(0.0)));
    assert_eq!(truth["confirmed"]["bothWays"], false);
    assert_eq!(result["chosen"]["features"][0]["feature"], TRUTH);
    assert!(
        result["strength"]["useful"].is_array(),
        "{}",
        result["strength"]
    );
}

#[test]
fn a_search_that_is_broken_off_ends_as_one_that_is_not() {
    let mut rng = fresh_rng();
    let planted = Planted::new(&mut rng);
    let recipe = recipe(json!({"task": "find", "prompts": 6, "held": 4, "confirm": 2}));
    let expected = whole(&planted, &recipe);
    let lines = Rc::default();
    for _ in 0..100 {
        match follow(&planted, &recipe, &lines, rng.random_range(1..12)) {
            Ok(result) => {
                assert_eq!(result, expected);
                return;
            }
            Err(LabError::Cancelled) => {}
            Err(e) => panic!("{e}"),
        }
    }
    panic!("it never ends");
}

#[test]
fn a_gate_is_fitted_and_a_card_told() {
    let mut rng = planted_rng();
    let planted = Planted::new(&mut rng);
    let gate = json!({"task": "gate", "others": ["layers.1"], "feature": READER});
    let result = whole(&planted, &recipe(gate));
    for one in [&result["gate"], &result["others"][0], &result["byFeature"]] {
        assert!(one["auc"].as_f64() > Some(0.99), "{one}");
        assert!(one["test"]["auc"].as_f64() > Some(0.99), "{one}");
    }
    assert_eq!(result["others"][0]["hook"], "layers.1");
    let sets = &result["gate"]["test"]["sets"];
    assert_eq!(sets["direct"]["of"], 24);
    assert!(sets["direct"]["share"].as_f64() > Some(0.9));
    assert!(sets["benign"]["share"].as_f64() < Some(0.2));

    let card = json!({"task": "card", "feature": ACTOR, "texts": ["a"], "prompts": 20});
    let card = whole(&planted, &recipe(card));
    assert_eq!(card["density"], 1.0);
    let top = card["logits"]["top"][0]["text"]
        .as_str()
        .unwrap()
        .to_string();
    let no: Value = serde_json::from_slice(&planted.sets).unwrap();
    assert_eq!(top.trim(), no["judge"]["refusal_patterns"][0]);
    // The lens in f64: a unit vector's root mean square is 1 / sqrt(width).
    let rms = (1.0 / WIDTH as f64 + 1e-5).sqrt();
    let value = card["logits"]["top"][0]["value"].as_f64().unwrap();
    assert!((value - 8.0 / rms).abs() < 1e-3 * value, "{value}");
    assert!(card["effect"]["delta"].is_number());
    assert_eq!(card["neighbours"].as_array().unwrap().len(), 10);
    let reader = json!({"task": "card", "feature": READER, "prompts": 40});
    let reader = whole(&planted, &recipe(reader));
    let density = reader["density"].as_f64().unwrap();
    assert!(density > 0.0 && density < 1.0);
    assert!(!reader["strongest"].as_array().unwrap().is_empty());
}
