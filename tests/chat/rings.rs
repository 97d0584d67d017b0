//! Conversations that are longer than the model's window, whose cache is a ring.

use rand::Rng;
use serde_json::json;

use crate::bench::*;
use crate::gates::probe;
use crate::support::{assert_near, fresh_rng};

/// Positions that a token sees.
const WINDOW: usize = 40;
/// What the cache holds beyond those.
const BEYOND: usize = 512;
const CONTEXT: usize = 1100;

/// Logits that agree but for the order of sums.
const TOLERANCE: f64 = 1e-4;

#[test]
fn what_is_taken_back_is_read_again_where_it_is_gone() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    let setup = Setup::new(
        rng,
        json!({ "sliding_window": WINDOW, "max_position_embeddings": CONTEXT }),
    );
    let (mut chat, mut fresh) = (setup.chat(), setup.chat());
    let mut heard = [setup.random.tokens(rng, 700), setup.random.tokens(rng, 30)];
    // Turns of long conversations that could go on from what was held, and those that could not.
    let (mut kept, mut gone) = (0, 0);
    for turn in 0..16 {
        for lane in 0..2 {
            // A gate reads the prompt before the answer does.
            let gate = (turn % 3 == 2).then(|| probe(rng, 0));
            chat.steering().set_gate(lane, gate).expect("a gate");
        }
        let prompts = heard.clone().map(prompt);
        fresh.reset();
        let expected = logits(&mut fresh, &prompts);
        let got = logits(&mut chat, &prompts);
        for lane in 0..2 {
            let what = format!("turn {turn}, lane {lane}, {} tokens", heard[lane].len());
            assert_near(&got[lane], &wide(&expected[lane]), TOLERANCE, &what);
        }
        for (lane, said) in plain(&mut chat, &prompts, 40).iter().enumerate() {
            let (length, what) = (heard[lane].len(), format!("turn {turn}, lane {lane}"));
            assert_eq!(said.reused, length - 1, "{what}: all but the last");
            heard[lane].extend(&said.tokens);
        }
        let before = heard.clone();
        for (lane, heard) in heard.iter_mut().enumerate() {
            // It goes on, or somebody takes it back to one of its tokens and goes on from there.
            let most = heard.len() - 1;
            let back = match (turn, lane, rng.random_range(0..3)) {
                _ if heard.len() > CONTEXT - 200 => 400,
                (0, 0, _) => 0,
                (1, 0, _) => most - 100,
                (.., 0) => 0,
                (.., 1) => rng.random_range(0..=200.min(most)),
                _ => rng.random_range(0..=most),
            };
            heard.truncate(heard.len() - back);
            let more = rng.random_range(1..=CONTEXT - 60 - heard.len());
            heard.extend(setup.random.tokens(rng, more));
        }
        let prompts = heard.clone().map(prompt);
        for (lane, said) in plain(&mut chat, &prompts, 0).iter().enumerate() {
            if before[lane].len() > WINDOW + BEYOND {
                kept += usize::from(said.reused > 0);
                gone += usize::from(said.reused == 0);
            }
        }
    }
    assert!(kept > 0 && gone > 0, "{kept} turns kept, {gone} gone");
}
