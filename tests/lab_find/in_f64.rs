//! What the searches compute of a random model with a random dictionary, against f64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phi3_steer::phi3::CacheFormat;
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::{Intervention, Operator};
use phi3_steer::tokens::{ChatTokenizer, Message, Prompt, Role, TokenRole};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::planted::{LATENTS, Planted, TOKENIZER, WIDTH, shape};
use crate::support::checkpoint::RandomModel;
use crate::support::dictionary::{Kind, RandomDictionary};
use crate::support::{fresh_rng, reference};
use crate::{recipe, whole};

/// A random model and a random dictionary that keeps every positive activation, in place of the planted ones.
fn drawn(rng: &mut StdRng) -> Planted {
    let planted = Planted::new(rng);
    Planted {
        model: RandomModel::new(rng, shape()),
        dictionary: RandomDictionary::new(rng, WIDTH, LATENTS, LATENTS),
        ..planted
    }
}

/// The log-odds of `token` after a prompt, with `list` at the first block's output.
fn odds(planted: &Planted, prompt: &Prompt, list: &[Intervention], token: u32) -> f64 {
    let mut edit = |layer: usize, position: usize, h: &mut Vec<f64>| {
        if layer == 0 {
            let bos = prompt.roles[position] == TokenRole::Bos;
            let kind = Kind {
                bos,
                generated: false,
            };
            planted.dictionary.steer(h, list, kind);
        }
    };
    let pass = reference::forward(&planted.model, CacheFormat::F32, &prompt.ids, &mut edit);
    let logits = pass.logits.last().expect("tokens");
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    let p = logits[token as usize].exp() / sum;
    (p / (1.0 - p)).ln()
}

#[test]
fn the_effect_of_a_latent_is_that_of_a_forward_pass_in_f64() {
    let mut rng = fresh_rng();
    let planted = drawn(&mut rng);
    let tokenizer = ChatTokenizer::from_json(TOKENIZER, None).unwrap();
    let texts = [
        "a map of the river",
        "take the lamp",
        "why do stones fall down to the ground",
        "hello",
        "tell them where the boat is now",
        "a b c d e f g",
    ];
    let sets: Value = serde_json::from_slice(&planted.sets).unwrap();
    let phrase = sets["judge"]["refusal_patterns"][0].as_str().unwrap();
    let opening = phrase[..1].to_uppercase() + &phrase[1..];
    let token = tokenizer.encode(&opening).unwrap()[0];
    for feature in [0, rng.random_range(1..LATENTS as u32)] {
        let card = json!({"task": "card", "feature": feature, "texts": texts, "prompts": 0});
        let card = whole(&planted, &recipe(card));
        let effect = &card["effect"];
        let Some(at) = effect["at"].as_f64() else {
            assert_eq!(card["max"], 0.0, "an active feature has an effect: {card}");
            continue;
        };
        let hook = HookPoint::block(0);
        let held = Intervention::new(hook, feature, Operator::Clamp, Some(at as f32));
        let mut delta = 0.0;
        for text in texts {
            let asked = Message {
                role: Role::User,
                content: text.into(),
            };
            let prompt = tokenizer.chat(&[asked], true).unwrap();
            let of = |list: &[Intervention]| odds(&planted, &prompt, list, token);
            delta += (of(std::slice::from_ref(&held)) - of(&[])) / texts.len() as f64;
        }
        let told = effect["delta"].as_f64().unwrap();
        println!("feature {feature} at {at}: {told}, in f64 {delta}");
        assert!(
            (told - delta).abs() < 1e-3 + 1e-3 * delta.abs(),
            "{feature}"
        );
        assert!(delta.abs() > 1e-3, "nothing was moved: nothing is compared");
    }
}

#[test]
fn cosines_with_the_difference_of_means_are_those_in_f64() {
    let mut rng = fresh_rng();
    let planted = drawn(&mut rng);
    let find = json!({
        "task": "find", "prompts": 6, "held": 2, "candidates": 12, "confirm": 1, "most": 1, "tokens": 2,
    });
    let found = whole(&planted, &recipe(find));
    let bytes = STANDARD
        .decode(found["direction"]["values"].as_str().unwrap())
        .unwrap();
    let direction: Vec<f64> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
        .collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let norm = dot(&direction, &direction).sqrt();
    assert!((found["direction"]["norm"].as_f64().unwrap() - norm).abs() < 1e-6 * norm);
    let candidates = found["candidates"].as_array().unwrap();
    assert!(candidates.len() >= 12);
    for candidate in candidates {
        let feature = candidate["feature"].as_u64().unwrap() as usize;
        let row = planted.dictionary.direction(feature);
        let expected = dot(&row, &direction) / norm / dot(&row, &row).sqrt();
        let told = candidate["scores"]["cosine"].as_f64().unwrap();
        assert!(
            (told - expected).abs() < 1e-6,
            "{feature}: {told} {expected}"
        );
    }
}
