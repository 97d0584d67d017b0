//! What the nano model says, token by token, by the GPU and by the processor.

use std::cell::Cell;
use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{Chat, ChatRequest, Event, Sampling};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{Model, ModelFiles, ModelOptions};
use phi3_steer::steering::Steering;
use phi3_steer::tokens::{Message, Prompt};
use pollster::block_on;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::checkpoint::{Random, candle_logits};
use crate::support::*;

/// Where both the project and the folder of `make gpu-check` have it.
const NANO: &str = "models/nano";
/// Tokens that are compared.
const TOKENS: usize = 2000;
const LANES: usize = 8;
/// Tokens of an answer at most.
const LONGEST: usize = 48;
/// By what share of the largest logit two tokens may be apart whose order rounding to f16 decides.
const NEAR_TIE: f64 = 1e-2;

/// The conversations of the evaluation sets' validation split, in an order drawn anew.
fn conversations() -> Vec<Vec<Message>> {
    let file = std::fs::read(format!("{NANO}/eval.json")).expect("the evaluation prompts");
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    let sets = file["splits"]["validation"]["sets"].as_array();
    let items = sets.expect("sets").iter().flat_map(|set| {
        let items = set["items"].as_array();
        items.expect("items").iter()
    });
    let mut all: Vec<Vec<Message>> = items
        .map(|item| serde_json::from_value(item["messages"].clone()).expect("messages"))
        .collect();
    all.shuffle(&mut seeded("greedy"));
    all
}

#[test]
fn greedy_text_is_the_processors() {
    let folder = Folder::directory(NANO);
    let files = block_on(ModelFiles::open(&folder)).expect("the nano model");
    let tokenizer = Rc::new(block_on(files.tokenizer()).expect("its tokenizer"));
    let options = ModelOptions {
        lanes: LANES,
        precision: Format::Q4.into(),
        ..ModelOptions::default()
    };
    let model = block_on(Model::load(plain(), &folder, options)).expect("the nano model");
    let steering = block_on(Steering::new(&model, Vec::new())).expect("no dictionary");
    let mut chat = block_on(Chat::new(model, tokenizer.clone(), steering)).expect("a chat");
    let mut candle = Random::read(NANO).candle(Format::Q4);
    let (mut compared, mut ties, mut worst) = (0, 0, 0.0f64);
    for some in conversations().chunks(LANES) {
        let prompts: Vec<Prompt> = some
            .iter()
            .map(|messages| tokenizer.chat(messages, true).expect("a prompt"))
            .collect();
        let mut said = vec![Vec::new(); prompts.len()];
        let request = ChatRequest {
            prompts: &prompts,
            max_tokens: LONGEST,
            sampling: Sampling::default(),
            features: None,
            logprobs: None,
            cancel: Rc::new(Cell::new(false)),
        };
        let mut hear = |event| {
            if let Event::Token { lane, token, .. } = event {
                said[lane].push(token);
            }
        };
        block_on(chat.run(&request, &mut hear)).expect("answers");
        for (prompt, said) in prompts.iter().zip(&said) {
            candle.clear_kv_cache();
            let mut logits = candle_logits(&mut candle, &prompt.ids, 0);
            for (place, &token) in said.iter().enumerate() {
                let largest = logits.iter().fold(0.0f64, |most, l| most.max(l.abs()));
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let behind = (top - logits[token as usize]) / largest;
                assert!(
                    behind <= NEAR_TIE,
                    "token {place} of the answer to {prompt:?} is {token}, which is {behind:.1e} of the largest logit \
                     behind the likeliest"
                );
                ties += usize::from(behind > 0.0);
                worst = worst.max(behind);
                let held = prompt.ids.len() + place;
                logits = candle_logits(&mut candle, &[token], held);
            }
            compared += said.len();
        }
        if compared >= TOKENS {
            break;
        }
    }
    assert!(compared >= TOKENS, "only {compared} tokens were said");
    println!(
        "{compared} tokens, {ties} of them in near ties, the farthest {worst:.1e} of the largest logit behind"
    );
}
