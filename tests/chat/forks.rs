//! Forks: the same weights and dictionaries in lanes of their own.

use phi3_steer::generate::{Chat, GenerateError};
use phi3_steer::phi3::{MAX_ROWS, ModelError};
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::Intervention;
use pollster::block_on;
use rand::Rng;
use serde_json::json;

use crate::bench::*;
use crate::support::fresh_rng;

/// Along a feature after the first block, and a direction after the second.
fn steer(chat: &Chat, lane: usize) {
    let texts = ["layers.0:7:clamp:9", "layers.1:@mine:add:3"];
    let list = texts.map(|text| text.parse::<Intervention>().expect("an intervention"));
    chat.steering().set(lane, &list).expect("it can be set");
}

#[test]
fn a_fork_answers_as_its_original_which_stays_as_it_was() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({"max_position_embeddings": 512}));
    let mut chat = setup.chat();
    let prompts = [9, 14].map(|n| prompt(setup.random.tokens(&mut rng, n)));
    let direction: Vec<f32> = (0..WIDTH).map(|_| rng.random_range(-1.0..1.0)).collect();
    let hook = HookPoint::block(1);
    let add = |chat: &Chat| {
        chat.steering()
            .add_direction(hook, "mine", direction.clone())
    };
    add(&chat).expect("a direction");
    steer(&chat, 1);
    let said = plain(&mut chat, &prompts, 8);
    let alone = setup.gpu.live_bytes();

    for lanes in [1, 2, 5] {
        let mut fork = block_on(chat.fork(lanes)).expect("a fork");
        let taken = setup.gpu.live_bytes() - alone;
        assert!(taken > 0, "lanes of its own");
        assert_eq!(fork.model().lanes(), lanes);
        for lane in 0..lanes {
            assert_eq!(fork.steering().interventions(lane), []);
        }
        // Its lanes are steered as the original's, in another order.
        let asked: Vec<_> = (0..lanes).map(|lane| (lane + 1) % 2).collect();
        for (lane, &original) in asked.iter().enumerate() {
            if original == 1 {
                steer(&fork, lane);
            }
        }
        let own: Vec<_> = asked.iter().map(|&of| prompts[of].clone()).collect();
        for (lane, told) in plain(&mut fork, &own, 8).iter().enumerate() {
            let what = format!("lane {lane} of {lanes}");
            assert_eq!(told.reused, 0, "{what}: nothing was there");
            assert_eq!(told.tokens, said[asked[lane]].tokens, "{what}");
        }
        // Longer than what a cache holds at first.
        let longer = prompt(setup.random.tokens(&mut rng, 300));
        plain(&mut fork, &vec![longer; lanes], 1);
        drop(fork);
        assert_eq!(setup.gpu.live_bytes(), alone, "all of a fork is freed");
    }

    // The original goes on where it was.
    let next: Vec<_> = prompts.iter().zip(&said).collect();
    let next: Vec<_> = next.iter().map(|(p, l)| after(p, &l.tokens)).collect();
    let mut fresh = setup.chat();
    add(&fresh).expect("a direction");
    steer(&fresh, 1);
    let expected = plain(&mut fresh, &next, 6);
    for (lane, told) in plain(&mut chat, &next, 6).iter().enumerate() {
        assert_eq!(told.reused, next[lane].ids.len() - 1, "lane {lane}");
        assert_eq!(told.tokens, expected[lane].tokens, "lane {lane}");
    }
}

#[test]
fn a_fork_outlives_its_original() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let prompts = [prompt(setup.random.tokens(&mut rng, 11))];
    let said = plain(&mut chat, &prompts, 6);
    let mut fork = block_on(chat.fork(3)).expect("a fork");
    drop(chat);
    assert_eq!(plain(&mut fork, &prompts, 6)[0].tokens, said[0].tokens);
    drop(fork);
    assert_eq!(setup.gpu.live_bytes(), 0);
}

#[test]
fn impossible_lanes_are_refused() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let chat = setup.chat();
    let before = setup.gpu.live_bytes();
    for lanes in [0, MAX_ROWS + rng.random_range(1..100)] {
        match block_on(chat.fork(lanes)).map(|_| ()) {
            Err(GenerateError::Model(ModelError::Config(reason))) => {
                assert!(reason.contains(&format!("{lanes} lanes")), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(setup.gpu.live_bytes(), before);
}
