//! Gates: a lane is steered as always or not at all, turn by turn.

use std::cell::Cell;
use std::rc::Rc;

use phi3_steer::generate::{
    Chat, ChatRequest, DoneReason, Event, FeatureWish, Sampling, TraceRequest, Traced, trace,
};
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::{Gate, GateKind, Intervention, SteeringError};
use phi3_steer::tokens::Prompt;
use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use crate::bench::*;
use crate::support::{assert_near, fresh_rng};

pub fn probe(rng: &mut StdRng, layer: usize) -> Gate {
    let weights = (0..WIDTH).map(|_| rng.random_range(-0.02..0.02)).collect();
    Gate {
        hook: HookPoint::block(layer),
        kind: GateKind::Probe {
            weights,
            bias: rng.random_range(-0.5..0.5),
        },
        threshold: 0.5,
    }
}

/// The probe's score at the prompt's last token, in f64, in a model that nothing steers.
fn unsteered(chat: &Chat, gate: &Gate, prompt: &Prompt) -> f64 {
    let GateKind::Probe { weights, bias } = &gate.kind else {
        panic!("a probe");
    };
    let mut fork = block_on(chat.fork(1)).expect("a fork");
    let (model, steering) = fork.model_and_steering();
    let mut score = f64::NAN;
    let request = TraceRequest {
        prompts: std::slice::from_ref(prompt),
        logits: &|_, _| false,
        residual: &[gate.hook.layer],
        chunk: 64,
        cancel: &Cell::new(false),
    };
    let mut tell = |traced: Traced<'_>| {
        if let Traced::Residual {
            position, residual, ..
        } = traced
            && position + 1 == prompt.ids.len()
        {
            let pairs = weights.iter().zip(residual);
            let sum: f64 = pairs.map(|(w, h)| f64::from(*w) * f64::from(*h)).sum();
            score = 1.0 / (1.0 + (-(sum + f64::from(*bias))).exp());
        }
    };
    block_on(trace(model, &steering, &request, &mut tell)).expect("a trace");
    score
}

fn list(texts: &[&str]) -> Vec<Intervention> {
    let parse = |text: &&str| text.parse().expect("an intervention");
    texts.iter().map(parse).collect()
}

/// A chat with a direction after its second block.
fn chat(setup: &Setup, direction: &[f32]) -> Chat {
    let chat = setup.chat();
    let hook = HookPoint::block(1);
    let added = chat
        .steering()
        .add_direction(hook, "mine", direction.to_vec());
    added.expect("a direction");
    chat
}

fn longer(setup: &Setup, rng: &mut StdRng, before: &Prompt, said: &[u32]) -> Prompt {
    let mut next = after(before, said);
    let more = setup.random.tokens(rng, 4);
    next.roles.extend(prompt(more.clone()).roles);
    next.ids.extend(more);
    next
}

fn bits(all: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let lane = |values: &Vec<f32>| values.iter().map(|v| v.to_bits()).collect();
    all.iter().map(lane).collect()
}

#[test]
fn a_gated_lane_is_steered_as_always_or_not_at_all() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({"num_hidden_layers": 3}));
    let direction: Vec<f32> = (0..WIDTH).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut gated = chat(&setup, &direction);
    // Without gates, set by hand before each turn to what the gates have to decide.
    let mut twin = chat(&setup, &direction);
    let lists = [
        list(&["layers.0:5:clamp:12", "layers.1:@mine:add:4:generated"]),
        list(&["layers.1:@mine:clamp:9:+bos"]),
    ];
    // Each looks where its lane's first edit is, before it.
    let mut gates = [probe(&mut rng, 0), probe(&mut rng, 1)];
    let mut conversations: Vec<Prompt> = [6, 11]
        .map(|n| prompt(setup.random.tokens(&mut rng, n)))
        .into();
    for (lane, list) in lists.iter().enumerate() {
        gated.steering().set(lane, list).expect("set");
    }
    for turn in 0..6 {
        let mut decided = [false; 2];
        for lane in 0..2 {
            let score = unsteered(&gated, &gates[lane], &conversations[lane]);
            decided[lane] = rng.random();
            let margin = if decided[lane] { -1e-3 } else { 1e-3 };
            gates[lane].threshold = (score + margin) as f32;
            let gate = Some(gates[lane].clone());
            gated.steering().set_gate(lane, gate).expect("a gate");
            let by_hand = if decided[lane] { &lists[lane][..] } else { &[] };
            twin.steering().set(lane, by_hand).expect("set");
        }
        if rng.random() {
            // Broken off as soon as a gate has decided: nothing comes of it.
            let cancel = Rc::new(Cell::new(false));
            let request = ChatRequest {
                prompts: &conversations,
                max_tokens: 5,
                sampling: Sampling::default(),
                features: None,
                logprobs: None,
                cancel: cancel.clone(),
            };
            let mut ends = Vec::new();
            let mut hear = |event| match event {
                Event::Gate { .. } => cancel.set(true),
                Event::Done { reason, tokens, .. } => ends.push((reason, tokens)),
                other => panic!("{other:?}"),
            };
            block_on(gated.run(&request, &mut hear)).expect("a cancelled answer");
            assert_eq!(ends, [(DoneReason::Cancelled, 0); 2]);
        }
        let told = plain(&mut gated, &conversations, 7);
        let expected = plain(&mut twin, &conversations, 7);
        for lane in 0..2 {
            let what = format!("turn {turn}, lane {lane}, steered {}", decided[lane]);
            let (told, expected) = (&told[lane], &expected[lane]);
            let (score, steered) = told.gate.expect("a decision");
            assert_eq!(steered, decided[lane], "{what}: {score}");
            let reference = unsteered(&gated, &gates[lane], &conversations[lane]);
            assert!((f64::from(score) - reference).abs() < 1e-5, "{what}");
            assert_eq!(expected.gate, None);
            assert_eq!(told.tokens, expected.tokens, "{what}");
            assert_eq!(told.steered, expected.steered, "{what}");
            assert_eq!(told.reused, expected.reused, "{what}");
        }
        if rng.random() {
            let [own, by_hand] = [&mut gated, &mut twin].map(|chat| logits(chat, &conversations));
            assert!(bits(&own) == bits(&by_hand), "turn {turn}: not bit for bit");
        }
        for lane in 0..2 {
            let said = &told[lane].tokens;
            conversations[lane] = longer(&setup, &mut rng, &conversations[lane], said);
        }
    }
    // Without their gates the lanes are steered always.
    for (lane, list) in lists.iter().enumerate() {
        gated.steering().set_gate(lane, None).expect("no gate");
        assert_eq!(gated.steering().gate(lane), None);
        twin.steering().set(lane, list).expect("set");
    }
    let told = plain(&mut gated, &conversations, 7);
    for (told, expected) in told.iter().zip(plain(&mut twin, &conversations, 7)) {
        assert_eq!(told.gate, None);
        assert_eq!(told.tokens, expected.tokens);
        assert!(told.steered.iter().all(|s| *s));
    }
}

#[test]
fn what_was_steered_before_a_gate_is_unsteered_to_it() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({"num_hidden_layers": 3}));
    let mut chat = setup.chat();
    let steering = chat.steering().clone();
    let clamp = list(&["layers.0:5:clamp:20:+bos"]);
    // The gate looks two blocks after the edit.
    let mut gate = probe(&mut rng, 2);
    let mut conversation = prompt(setup.random.tokens(&mut rng, 9));
    steering.set(0, &clamp).expect("set");
    for turn in 0..4 {
        let score = unsteered(&chat, &gate, &conversation);
        let decided = turn % 3 != 1;
        gate.threshold = (score + if decided { -1e-3 } else { 1e-3 }) as f32;
        steering.set_gate(0, Some(gate.clone())).expect("a gate");
        let prompts = [conversation.clone()];
        let told = plain(&mut chat, &prompts, 6);
        let (seen, steered) = told[0].gate.expect("a decision");
        assert!(
            (f64::from(seen) - score).abs() < 1e-5,
            "turn {turn}: {seen}, {score}"
        );
        assert_eq!(steered, decided, "turn {turn}");
        let mut fresh = setup.chat();
        if decided {
            fresh.steering().set(0, &clamp).expect("set");
        }
        let (own, expected) = (logits(&mut chat, &prompts), logits(&mut fresh, &prompts));
        assert_near(&own[0], &wide(&expected[0]), 1e-4, &format!("turn {turn}"));
        conversation = longer(&setup, &mut rng, &conversation, &told[0].tokens);
    }
}

#[test]
fn a_features_activation_decides_as_it_is_without_steering() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let steering = chat.steering().clone();
    let hook = HookPoint::block(0);
    let wish = Some(FeatureWish { hook, track: None });
    for round in 0..6 {
        let prompts = [prompt(setup.random.tokens(&mut rng, 8))];
        let mut base = block_on(chat.fork(1)).expect("a fork");
        let seen = answer(&mut base, &prompts, 0, wish, &mut |_| {}).expect("an answer");
        let last = seen.0[0].prompt.last().expect("a token");
        let last = last.features.clone().expect("features");
        let strongest = last.listed()[0];
        let silent = |j: &u32| last.listed().iter().all(|a| a.feature != *j);
        let (feature, threshold) = match round % 2 {
            0 => (strongest.feature, 0.5 * strongest.value),
            _ => ((0..).find(silent).expect("a silent one"), 0.01),
        };
        let activation = last.activation(feature).expect("known");
        let gate = Gate {
            hook,
            kind: GateKind::Feature { feature },
            threshold,
        };
        steering
            .set(0, &list(&["layers.0:3:clamp:15"]))
            .expect("set");
        steering.set_gate(0, Some(gate)).expect("a gate");
        // Looked at for the page meanwhile.
        let told = answer(&mut chat, &prompts, 3, wish, &mut |_| {}).expect("an answer");
        let (score, steered) = told.0[0].gate.expect("a decision");
        assert!((score - activation).abs() < 1e-4, "{score}, {activation}");
        assert_eq!(steered, round % 2 == 0);
        let shown = |lane: &Lane| lane.prompt.iter().all(|t| t.features.is_some());
        assert!(shown(&told.0[0]), "the page's own look goes on");
    }
}

#[test]
fn gates_that_cannot_decide_are_refused() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let chat = setup.chat();
    let steering = chat.steering();
    let good = probe(&mut rng, 1);
    let with = |kind: GateKind, layer: usize, threshold: f32| Gate {
        hook: HookPoint::block(layer),
        kind,
        threshold,
    };
    let probe = |count: usize, weight: f32, bias: f32| GateKind::Probe {
        weights: vec![weight; count],
        bias,
    };
    let feature = |feature| GateKind::Feature { feature };
    for (gate, word) in [
        (with(probe(WIDTH - 1, 1.0, 0.0), 0, 0.5), "there are 63"),
        (
            with(probe(WIDTH, f32::NAN, 0.0), 0, 0.5),
            "number 0 is not finite",
        ),
        (with(probe(WIDTH, 1.0, f32::INFINITY), 0, 0.5), "bias"),
        (with(probe(WIDTH, 1.0, 0.0), 0, f32::NAN), "threshold"),
        (with(probe(WIDTH, 1.0, 0.0), 2, 0.5), "no block 2"),
        (with(feature(LATENTS as u32), 0, 0.5), "0 to 99"),
        (with(feature(1), 1, 0.5), "layers.1 cannot be steered"),
    ] {
        let message = steering.set_gate(0, Some(gate)).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
        assert_eq!(steering.gate(0), None);
    }
    assert!(matches!(
        steering.set_gate(2, Some(good)),
        Err(SteeringError::UnknownLane { lane: 2, lanes: 2 })
    ));
}
