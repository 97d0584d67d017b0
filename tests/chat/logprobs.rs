//! How likely the tokens of an answer were.

use std::rc::Rc;

use phi3_steer::generate::{
    Chat, ChatRequest, Event, FeatureWish, Logprobs, MOST_ALTERNATIVES, Sampling,
};
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::{Intervention, Operator};
use phi3_steer::tokens::Prompt;
use pollster::block_on;
use rand::Rng;
use serde_json::json;

use crate::bench::*;
use crate::support::{assert_near, fresh_rng};

/// What a lane said.
#[derive(Default)]
struct Said {
    tokens: Vec<u32>,
    logprobs: Vec<Option<Logprobs>>,
    /// The strongest features at each token that was read.
    features: Vec<Vec<(u32, f32)>>,
}

/// What lanes said by chance.
fn sampled(chat: &mut Chat, prompts: &[Prompt], seed: u32, logprobs: Option<usize>) -> Vec<Said> {
    let request = ChatRequest {
        prompts,
        max_tokens: 12,
        sampling: Sampling {
            temperature: 1.5,
            top_p: 0.95,
            repetition_penalty: 1.3,
            seed,
            ..Sampling::default()
        },
        features: Some(FeatureWish {
            hook: HookPoint { layer: 0 },
            track: None,
        }),
        logprobs,
        cancel: Rc::default(),
    };
    let mut lanes: Vec<Said> = prompts.iter().map(|_| Said::default()).collect();
    let mut hear = |event| {
        if let Event::Token {
            lane,
            token,
            logprobs,
            features,
            ..
        } = event
        {
            let listed = features.iter().flat_map(|features| features.listed());
            let listed = listed.map(|one| (one.feature, one.value)).collect();
            let said = &mut lanes[lane];
            said.tokens.push(token);
            said.logprobs.push(logprobs);
            said.features.push(listed);
        }
    };
    // From nothing, so that the same is computed every time.
    chat.reset();
    block_on(chat.run(&request, &mut hear)).expect("an answer");
    lanes
}

#[test]
fn logprobs_are_those_of_the_steered_model_before_sampling() {
    let mut rng = fresh_rng();
    let mut setup = Setup::new(&mut rng, json!({}));
    // The last lane stays idle.
    setup.lanes = 3;
    let mut chat = setup.chat();
    let hook = HookPoint { layer: 0 };
    let clamp = Intervention::new(
        hook,
        rng.random_range(0..LATENTS as u32),
        Operator::Clamp,
        Some(30.0),
    );
    chat.steering().set(1, &[clamp]).expect("a setting");
    let tokens = setup.random.tokens(&mut rng, 9);
    let prompts = [prompt(tokens.clone()), prompt(tokens)];
    let seed = rng.random();
    let most = rng.random_range(1..=MOST_ALTERNATIVES);
    let plain = sampled(&mut chat, &prompts, seed, None);
    let told = sampled(&mut chat, &prompts, seed, Some(most));
    for (lane, (before, said)) in plain.iter().zip(&told).enumerate() {
        // Asking changes nothing, and features, which are read back behind the logits, are found.
        assert_eq!(before.tokens, said.tokens, "lane {lane}");
        assert_eq!(before.features, said.features, "lane {lane}");
        assert!(said.features.iter().any(|listed| !listed.is_empty()));
        assert!(before.logprobs.iter().all(Option::is_none));
        for (at, own) in said.logprobs.iter().enumerate() {
            let own = own.as_ref().expect("they were asked for");
            // A pass over the whole answer so far says the same.
            let so_far = |lane: usize| {
                after(
                    &prompts[lane],
                    &told[lane].tokens[..at.min(told[lane].tokens.len())],
                )
            };
            let logits = logits(&mut chat, &[so_far(0), so_far(1)]);
            let expected = Logprobs::of(&logits[lane], said.tokens[at], VOCAB);
            let what = format!("lane {lane}, token {at}");
            assert_near(&[own.token as f32], &[expected.token], 1e-3, &what);
            assert_eq!(own.top.len(), most, "{what}");
            for ((_, log), (_, right)) in own.top.iter().zip(&expected.top) {
                assert_near(&[*log as f32], &[*right], 1e-3, &what);
            }
            assert!(own.top.is_sorted_by(|a, b| a.1 >= b.1), "{what}");
        }
    }
    let first = |lane: usize| told[lane].logprobs.first().cloned();
    assert_ne!(first(0), first(1), "steering moves probabilities");
}
