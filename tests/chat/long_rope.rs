//! LongRoPE: the factors follow the length that a sequence has reached.

use phi3_steer::generate::DoneReason;
use serde_json::json;

use crate::bench::*;
use crate::support::fresh_rng;

/// Positions of pretraining.
const ORIGINAL: usize = 24;

fn setup(rng: &mut rand::rngs::StdRng) -> Setup {
    let factors = |a: f64, b: f64| -> Vec<f64> { (0..24).map(|i| a + b * f64::from(i)).collect() };
    let mut setup = Setup::new(
        rng,
        json!({
            "original_max_position_embeddings": ORIGINAL,
            "rope_scaling": {"type": "longrope", "short_factor": factors(1.05, 0.02),
                "long_factor": factors(1.5, 0.9)}
        }),
    );
    // No token that would end an answer is ever the likeliest.
    let tokenizer = setup.chat().tokenizer().clone();
    let head = setup
        .random
        .tensors
        .get_mut("lm_head.weight")
        .expect("a head");
    for stop in tokenizer.stop_tokens() {
        head.values[stop as usize * WIDTH..][..WIDTH].fill(0.0);
    }
    setup
}

#[test]
fn an_answer_does_not_depend_on_how_long_it_may_become() {
    let mut rng = fresh_rng();
    let setup = setup(&mut rng);
    let prompts = [
        prompt(setup.random.tokens(&mut rng, 11)),
        prompt(setup.random.tokens(&mut rng, 7)),
    ];
    let mut chat = setup.chat();
    let longest = plain(&mut chat, &prompts, 60);
    for max_tokens in [1, 13, 14, 15, 16, 40] {
        // In the same engine, whose cache was turned by the long factors, and in a fresh one.
        for chat in [&mut chat, &mut setup.chat()] {
            for (lane, said) in plain(chat, &prompts, max_tokens).iter().enumerate() {
                assert_eq!(said.reason, Some(DoneReason::Length));
                let same = &longest[lane].tokens[..max_tokens];
                assert_eq!(said.tokens, same, "lane {lane}, {max_tokens} tokens");
            }
        }
    }
}

#[test]
fn every_token_is_what_a_fresh_engine_says_after_the_same_tokens() {
    let mut rng = fresh_rng();
    let setup = setup(&mut rng);
    let prompts = [
        prompt(setup.random.tokens(&mut rng, 11)),
        prompt(setup.random.tokens(&mut rng, 16)),
    ];
    let mut chat = setup.chat();
    let said = plain(&mut chat, &prompts, 20);
    let mut fresh = setup.chat();
    let mut crossed = 0;
    for step in 0..20 {
        let heard: Vec<_> = (0..2)
            .map(|lane| after(&prompts[lane], &said[lane].tokens[..step]))
            .collect();
        // The lanes share their factors: the longer one decides.
        crossed += usize::from(heard[1].ids.len() > ORIGINAL);
        fresh.reset();
        let expected = logits(&mut fresh, &heard);
        for lane in 0..2 {
            let what = format!("step {step}, lane {lane}");
            assert_greedy(&expected[lane], said[lane].tokens[step], &what);
        }
    }
    assert!(crossed > 5 && crossed < 15, "the bound lies in the answer");

    // The next turn goes on in what was read again.
    let next: Vec<_> = (0..2)
        .map(|lane| {
            let mut next = after(&prompts[lane], &said[lane].tokens);
            next.ids.push(5);
            next.roles.push(prompts[lane].roles[0]);
            next
        })
        .collect();
    let lanes = plain(&mut chat, &next, 1);
    for (lane, next) in lanes.iter().zip(&next) {
        assert_eq!(lane.reused, next.ids.len() - 2);
    }
}
