//! Greedy and drawn answers in a browser's WebGPU: the likeliest token, the first k, the seed, against
//! references in f64.
#![cfg(target_arch = "wasm32")]

mod support;

use std::cell::Cell;
use std::rc::Rc;

use phi3_steer::generate::{Chat, ChatRequest, DoneReason, Event, Sampling};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{CacheFormat, Model, ModelOptions};
use phi3_steer::steering::Steering;
use phi3_steer::tokens::{ChatTokenizer, Prompt, TokenRole};
use rand::rngs::StdRng;
use serde_json::json;
use support::checkpoint::{RandomModel, config};
use support::fresh_rng;
use support::reference::{likeliest, plain};
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

const TOKENIZER: &[u8] = include_bytes!("../models/nano/tokenizer.json");

/// A chat with a random model of the tokenizer's vocabulary, in two lanes.
async fn chat(rng: &mut StdRng) -> (Chat, RandomModel) {
    let tokenizer = ChatTokenizer::from_json(TOKENIZER, None).expect("a tokenizer");
    let gpu = Rc::new(Gpu::open(&GpuOptions::default()).await.expect("a device"));
    let random = RandomModel::new(rng, config(json!({"vocab_size": tokenizer.vocab_size()})));
    let options = ModelOptions {
        lanes: 2,
        context: None,
        precision: Format::F32.into(),
        cache: CacheFormat::F32,
    };
    let model = Model::load(gpu, &random.folder(), options).await;
    let model = model.expect("a model");
    let steering = Steering::new(&model, Vec::new()).await.expect("steering");
    let chat = Chat::new(model, Rc::new(tokenizer), steering).await;
    (chat.expect("a chat"), random)
}

/// What two lanes answer to one prompt of `ids`.
async fn answers(
    chat: &mut Chat,
    ids: &[u32],
    max_tokens: usize,
    sampling: Sampling,
) -> Vec<Vec<u32>> {
    let prompt = Prompt {
        ids: ids.to_vec(),
        roles: vec![TokenRole::Prompt; ids.len()],
    };
    let request = ChatRequest {
        prompts: &[prompt.clone(), prompt],
        max_tokens,
        sampling,
        features: None,
        logprobs: None,
        cancel: Rc::new(Cell::new(false)),
    };
    let mut said = vec![Vec::new(); 2];
    let mut ends = Vec::new();
    let result = chat
        .run(&request, &mut |event| match event {
            Event::Token { lane, token, .. } => said[lane].push(token),
            Event::Done { lane, reason, .. } => ends.push((lane, reason)),
            Event::Gate { .. } | Event::Prompt { .. } => {}
        })
        .await;
    result.expect("an answer");
    assert_eq!(
        ends.iter().map(|(lane, _)| *lane).collect::<Vec<_>>(),
        [0, 1]
    );
    for (lane, reason) in ends {
        let n = said[lane].len();
        // A random model says a stop token now and then.
        match reason {
            DoneReason::Length => assert_eq!(n, max_tokens),
            DoneReason::Stop => assert!(n < max_tokens),
            other => panic!("lane {lane} ended by {other:?}"),
        }
    }
    said
}

#[wasm_bindgen_test]
async fn sampling() {
    let mut rng = fresh_rng();
    let (mut chat, stored) = chat(&mut rng).await;
    let ids = stored.tokens(&mut rng, 5);
    let logits_of = |said: &[u32]| {
        let all = [&ids[..], said].concat();
        plain(&stored, CacheFormat::F32, &all).logits[ids.len() - 1..].to_vec()
    };

    let greedy = answers(&mut chat, &ids, 12, Sampling::default()).await;
    assert_eq!(greedy[0], greedy[1], "lanes differ");
    for (logits, token) in logits_of(&greedy[0]).iter().zip(&greedy[0]) {
        let best = logits[likeliest(logits) as usize];
        let own = logits[*token as usize];
        assert!(
            best - own < 1e-3,
            "token {token} has {own}, the best {best}"
        );
    }

    let warm = Sampling {
        temperature: 1.5,
        top_k: 3,
        seed: 7,
        ..Sampling::default()
    };
    let drawn = answers(&mut chat, &ids, 24, warm).await;
    assert_eq!(drawn[0], drawn[1], "one seed, but lanes differ");
    for (logits, token) in logits_of(&drawn[0]).iter().zip(&drawn[0]) {
        let mut sorted = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let own = logits[*token as usize];
        assert!(
            own > sorted[2] - 1e-3,
            "token {token} is not among the first 3"
        );
    }
    let again = answers(&mut chat, &ids, 24, warm).await;
    assert_eq!(drawn, again, "one seed, but answers differ");
    chat.reset();
    let afresh = answers(&mut chat, &ids, 24, warm).await;
    assert_eq!(
        drawn, afresh,
        "one seed, but an empty cache answers otherwise"
    );

    // All tokens about as likely as each other: two seeds agree on 12 with a chance of 1 in 10^41.
    let hot = |seed| Sampling {
        temperature: 100.0,
        seed,
        ..Sampling::default()
    };
    let first = answers(&mut chat, &ids, 12, hot(1)).await;
    let second = answers(&mut chat, &ids, 12, hot(2)).await;
    assert_ne!(first, second, "two seeds, one answer");
    let narrow = Sampling {
        temperature: 1.0,
        top_p: 1e-6,
        ..Sampling::default()
    };
    let narrow = answers(&mut chat, &ids, 12, narrow).await;
    assert_eq!(
        narrow, greedy,
        "the smallest top-p leaves the likeliest token"
    );
}
