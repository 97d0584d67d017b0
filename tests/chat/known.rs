//! A prompt that one pass has read up to a block, and many lanes go on from there, each steered in its own way.

use std::cell::Cell;

use phi3_steer::generate::{Chat, GenerateError, Known, TraceRequest, Traced, trace, trace_after};
use phi3_steer::tokens::Prompt;
use pollster::block_on;
use rand::Rng;
use serde_json::json;

use crate::bench::*;
use crate::support::{assert_near, fresh_rng};

/// What is traced of `prompts`, lane by lane: the logits at every token, and the outputs of `blocks`.
fn traced(
    chat: &mut Chat,
    prompts: &[Prompt],
    blocks: &[usize],
    known: Option<&Known<'_>>,
) -> Result<Vec<Vec<f32>>, GenerateError> {
    let mut all = vec![Vec::new(); prompts.len()];
    let request = TraceRequest {
        prompts,
        logits: &|_, _| blocks.is_empty(),
        residual: blocks,
        // Chunks end within a lane.
        chunk: 7,
        cancel: &Cell::new(false),
    };
    let mut tell = |traced: Traced<'_>| match traced {
        Traced::Logits { lane, logits, .. } => all[lane].extend(logits),
        Traced::Residual { lane, residual, .. } => all[lane].extend(residual),
    };
    let (model, steering) = chat.model_and_steering();
    match known {
        Some(known) => block_on(trace_after(model, &steering, known, &request, &mut tell)),
        None => block_on(trace(model, &steering, &request, &mut tell)),
    }?;
    Ok(all)
}

#[test]
fn what_is_known_of_a_prompt_serves_lanes_that_are_steered_apart() {
    let mut rng = fresh_rng();
    let setup = Setup {
        lanes: 3,
        ..Setup::new(&mut rng, json!({"num_hidden_layers": 3}))
    };
    let mut chat = setup.chat();
    let length = rng.random_range(8..14);
    let asked = prompt(setup.random.tokens(&mut rng, length));
    let known = traced(&mut chat, std::slice::from_ref(&asked), &[0], None);
    let known = known.expect("a trace").remove(0);
    // Something else in between: nothing is taken from the cache.
    let other = prompt(setup.random.tokens(&mut rng, 20));
    traced(&mut chat, &[other], &[], None).expect("a trace");

    for (lane, text) in ["layers.0:5:clamp:12", "layers.0:7:add:-6"]
        .iter()
        .enumerate()
    {
        let one = text.parse().expect("an intervention");
        chat.steering().set(lane, &[one]).expect("set");
    }
    let three = vec![asked.clone(); 3];
    let known = Known {
        layer: 0,
        residuals: &[&known[..]; 3],
    };
    let counted = |before: u64| setup.gpu.dispatches() - before;
    let before = setup.gpu.dispatches();
    let after = traced(&mut chat, &three, &[], Some(&known)).expect("a trace");
    let after_known = counted(before);
    let before = setup.gpu.dispatches();
    let whole = traced(&mut chat, &three, &[], None).expect("a trace");
    // Of three blocks one is not computed, and no token is looked up.
    let all = counted(before);
    assert!(
        after_known * 5 < all * 4,
        "{after_known} dispatches, {all} in all"
    );
    for lane in 0..3 {
        let expected: Vec<f64> = whole[lane].iter().map(|v| f64::from(*v)).collect();
        assert_near(&after[lane], &expected, 1e-4, &format!("lane {lane}"));
    }
    assert_ne!(whole[0], whole[2], "steering does nothing");
    assert_ne!(whole[1], whole[2], "steering does nothing");

    let refused = traced(&mut chat, &three, &[0], Some(&known));
    let refused = refused.expect_err("the output of block 0 is not computed");
    assert!(matches!(
        refused,
        GenerateError::NotComputed { layer: 0, known: 0 }
    ));
    let short = Known {
        layer: 0,
        residuals: &known.residuals[..2],
    };
    let refused = traced(&mut chat, &three, &[], Some(&short)).expect_err("nothing of lane 2");
    let expected = length * WIDTH;
    assert!(
        matches!(refused, GenerateError::OtherResidual { lane: 2, values: 0, expected: e } if e == expected),
        "{refused}"
    );
    let none = Known { layer: 3, ..known };
    let refused = traced(&mut chat, &three, &[], Some(&none)).expect_err("there is no such block");
    assert!(refused.to_string().contains('3'), "{refused}");
}
