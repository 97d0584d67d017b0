//! A small random model with the nano model's tokenizer, behind the JavaScript API.

use std::cell::RefCell;
use std::rc::Rc;

use phi3_steer::web::Engine;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use wasm_bindgen::JsValue;

use super::checkpoint::{RandomModel, config};
use super::dictionary::RandomDictionary;
use super::engine::*;
use super::fresh_rng;

pub const TOKENIZER: &[u8] = include_bytes!("../../models/nano/tokenizer.json");
pub const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../models/nano/tokenizer_config.json");
/// Tokens in it, added ones included.
pub const VOCAB: usize = 3072;
pub const WIDTH: usize = 64;
pub const HOOK: &str = "layers.0";
pub const CONTEXT: usize = 96;

/// Named contents.
pub type Files = Vec<(String, Vec<u8>)>;

/// A small random model with the nano model's tokenizer.
pub fn random_model(rng: &mut StdRng) -> RandomModel {
    RandomModel::new(
        rng,
        config(
            json!({"vocab_size": VOCAB, "hidden_size": WIDTH, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 96}),
        ),
    )
}

/// Its files.
pub fn model_files(model: &RandomModel) -> Files {
    let mut files = model.files();
    files.push(("tokenizer.json".into(), TOKENIZER.into()));
    files.push(("tokenizer_config.json".into(), TOKENIZER_CONFIG.into()));
    files
}

/// A small random dictionary.
pub fn dictionary(rng: &mut StdRng, width: usize) -> RandomDictionary {
    RandomDictionary::new(rng, width, 100, 6)
}

/// `LoadOptions` for these files.
pub fn options(files: &[(String, Vec<u8>)], sae: Option<&[(String, Vec<u8>)]>) -> JsValue {
    let options = js(&json!({"lanes": 2, "contextLength": CONTEXT}));
    set(&options, "model", &chosen(files));
    if let Some(sae) = sae {
        set(&options, "sae", &chosen(sae));
        set(&options, "saeHook", &HOOK.into());
    }
    options
}

/// The same question in both lanes.
pub fn question(text: &str, max_tokens: usize) -> Value {
    let lane = json!({"messages": [{"role": "user", "content": text}]});
    json!({"lanes": [lane, lane], "maxTokens": max_tokens})
}

/// What every answer in two lanes must look like.
pub fn check_order(events: &[Value], max_tokens: usize) {
    for lane in 0..2 {
        let mut seen = Vec::new();
        for event in events.iter().filter(|e| e["lane"] == lane) {
            let kind = event["type"].as_str().expect("a type");
            if seen.last() != Some(&kind) {
                seen.push(kind);
            }
        }
        assert_eq!(seen, ["prompt", "token", "done"], "lane {lane}");
        let done = of_type(events, "done", lane);
        let tokens = ids(events, lane).len();
        assert_eq!(done.len(), 1);
        assert_eq!(done[0]["tokens"], tokens);
        match done[0]["reason"].as_str() {
            Some("length") => assert_eq!(tokens, max_tokens),
            Some("stop") => assert!(tokens <= max_tokens),
            other => panic!("lane {lane} ended by {other:?}"),
        }
    }
    let stats = events.last().expect("events");
    assert_eq!(stats["type"], "stats");
    for name in [
        "promptTokens",
        "prefillMs",
        "generatedTokens",
        "decodeMs",
        "tokensPerSecond",
    ] {
        assert!(stats[name].as_f64() > Some(0.0), "{name} in {stats}");
    }
    // Neither lane waits for the other to end.
    let at = |kind, lane| {
        events
            .iter()
            .position(|e| e["type"] == kind && e["lane"] == lane)
    };
    assert!(at("token", 1) < at("done", 0) && at("token", 0) < at("done", 1));
}

/// One engine with a dictionary for the tests that only use it.
pub async fn engine() -> Rc<Engine> {
    thread_local!(static ENGINE: RefCell<Option<Rc<Engine>>> = const { RefCell::new(None) });
    if let Some(engine) = ENGINE.with_borrow(Clone::clone) {
        for lane in 0..2 {
            set_steering(&engine, lane, json!([])).expect("steering off");
        }
        return engine;
    }
    let mut rng = fresh_rng();
    let model = model_files(&random_model(&mut rng));
    let sae = dictionary(&mut rng, WIDTH).files("");
    let engine = Rc::new(load(&options(&model, Some(&sae))).await.expect("an engine"));
    ENGINE.set(Some(engine.clone()));
    engine
}

/// With these bytes in the place of one file.
pub fn replace(files: &Files, name: &str, bytes: Vec<u8>) -> Files {
    let mut files = files.clone();
    files.retain(|(n, _)| n != name);
    files.push((name.into(), bytes));
    files
}

/// Without one file.
pub fn without(files: &Files, name: &str) -> Files {
    files.iter().filter(|(n, _)| n != name).cloned().collect()
}
