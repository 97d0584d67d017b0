//! Steering that changes at any moment.

use std::collections::BTreeMap;

use phi3_steer::generate::{Chat, Event};
use phi3_steer::phi3::ROW_GENERATED;
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::{Intervention, Operator, Positions};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use crate::bench::*;
use crate::support::{assert_near, fresh_rng};

/// Up to two interventions that change what is said.
fn interventions(rng: &mut StdRng) -> Vec<Intervention> {
    let operators = [
        Operator::Clamp,
        Operator::Add,
        Operator::Scale,
        Operator::ProjectOut,
    ];
    let first = rng.random_range(0..LATENTS as u32 / 2);
    let one = |rng: &mut StdRng, feature| {
        let op = *operators.choose(rng).expect("operators");
        let value = op.takes_value().then(|| rng.random_range(-6.0..6.0));
        Intervention {
            positions: *Positions::ALL.choose(rng).expect("positions"),
            include_bos: rng.random(),
            ..Intervention::new(HookPoint::block(0), feature, op, value)
        }
    };
    let count = rng.random_range(0..3);
    (0..count).map(|i| one(rng, first + i)).collect()
}

/// Sets the steering of a lane and keeps record of it.
fn set(chat: &Chat, record: &mut BTreeMap<u64, usize>, lane: usize, list: &[Intervention]) {
    let setting = chat.steering().set(lane, list).expect("it can be set");
    assert_eq!(chat.steering().setting(lane), setting);
    let newest = record.keys().last().copied().unwrap_or(0);
    assert!(setting > newest, "settings are numbered in order");
    record.insert(setting, lane);
}

#[test]
fn changes_at_random_moments_leave_nothing_behind() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let steering = chat.steering().clone();
    let mut record = BTreeMap::new();
    let mut conversations: Vec<_> = (0..2)
        .map(|_| prompt(setup.random.tokens(&mut rng, 5)))
        .collect();
    for turn in 0..4 {
        // While the answers are written, either lane's steering changes now and then.
        let mut changes = Vec::new();
        let (said, _) = answer(&mut chat, &conversations, 14, None, &mut |_| {
            if rng.random_bool(0.25) {
                let (lane, list) = (rng.random_range(0..2), interventions(&mut rng));
                let setting = steering.set(lane, &list).expect("it can be set");
                changes.push((setting, lane));
            }
        })
        .expect("an answer");
        record.extend(changes);
        for (lane, said) in said.iter().enumerate() {
            // Each token was written under a setting of its lane, never under one before the last token's.
            assert!(
                said.settings.is_sorted(),
                "turn {turn}: {:?}",
                said.settings
            );
            let own = |s: &u64| *s == 0 || record.get(s) == Some(&lane);
            assert!(
                said.settings.iter().all(own),
                "turn {turn}: {:?}",
                said.settings
            );
            let more = setup.random.tokens(&mut rng, 4);
            let told = after(&conversations[lane], &said.tokens);
            conversations[lane].roles = told.roles;
            conversations[lane].roles.extend(prompt(more.clone()).roles);
            conversations[lane].ids = [told.ids, more].concat();
        }
        // Then it rests: a new turn is what a fresh engine makes of the same tokens.
        let lists = [interventions(&mut rng), interventions(&mut rng)];
        let mut fresh = setup.chat();
        for (lane, list) in lists.iter().enumerate() {
            set(&chat, &mut record, lane, list);
            fresh.steering().set(lane, list).expect("it can be set");
        }
        let got = logits(&mut chat, &conversations);
        let expected = logits(&mut fresh, &conversations);
        for lane in 0..2 {
            let what = format!("turn {turn}, lane {lane}, {:?}", lists[lane]);
            assert_near(&got[lane], &wide(&expected[lane]), 1e-4, &what);
        }
    }
}

#[test]
fn a_setting_holds_from_the_next_pass_on_and_says_its_number() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let steering = chat.steering().clone();
    let prompts = vec![prompt(setup.random.tokens(&mut rng, 6)); 2];
    let base = plain(&mut chat, &prompts, 8);
    assert!(base[1].settings.iter().all(|s| *s == 0));
    assert!(base[1].steered.iter().all(|s| !s));
    chat.reset();
    // Before the prompt, and again as soon as it was read.
    let clamp = |value| {
        let clamp = Operator::Clamp;
        [Intervention::new(
            HookPoint::block(0),
            3,
            clamp,
            Some(value),
        )]
    };
    let before = steering.set(1, &clamp(-20.0)).expect("set");
    let mut read = 0;
    let (said, _) = answer(&mut chat, &prompts, 8, None, &mut |event| {
        if let Event::Prompt { lane: 1, .. } = event {
            read = steering.set(1, &clamp(30.0)).expect("set");
        }
    })
    .expect("an answer");
    assert!(read > before && before > 0);
    // The first token follows from the prompt's last, all others from what was read later.
    let lane = &said[1];
    assert_eq!(lane.settings[0], before);
    assert!(
        lane.settings[1..].iter().all(|s| *s == read),
        "{:?}",
        lane.settings
    );
    assert!(lane.steered.iter().all(|s| *s));
    assert_eq!(said[0].tokens, base[0].tokens, "the other lane");
    assert!(said[0].settings.iter().all(|s| *s == 0));
    assert_ne!(steering.fingerprint(1, ROW_GENERATED), 0);

    // What was read under the old setting is read again, what came under the new one is not.
    let next: Vec<_> = (0..2)
        .map(|lane| {
            let mut next = after(&prompts[lane], &said[lane].tokens);
            next.ids.push(7);
            next.roles.push(prompts[lane].roles[0]);
            next
        })
        .collect();
    let reused: Vec<usize> = plain(&mut chat, &next, 1)
        .iter()
        .map(|l| l.reused)
        .collect();
    let kept = prompts[0].ids.len() + said[0].tokens.len() - 1;
    assert_eq!(reused, [kept, 0]);
    let again: Vec<usize> = plain(&mut chat, &next, 1)
        .iter()
        .map(|l| l.reused)
        .collect();
    assert_eq!(
        again,
        next.iter().map(|p| p.ids.len() - 1).collect::<Vec<_>>()
    );
}
