//! The lab's searches on a model and a dictionary with a known truth: which latent makes it refuse, one that
//! reads harm but does not act, and one that acts on everything. Runs on the software adapter.
#![cfg(not(target_arch = "wasm32"))]

mod in_f64;
mod planted;
#[path = "../support/mod.rs"]
mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use phi3_steer::lab::{Journal, LabError, Recipe, Run, Sets, identity, run_recipe};
use pollster::block_on;
use rand::Rng;
use serde_json::{Value, json};

use planted::{ACTOR, LATENTS, Planted, READER, TRUTH, WIDTH};
use support::fresh_rng;

fn recipe(own: Value) -> Recipe {
    let mut recipe = json!({
        "schema": "phi3-steer.recipe/1", "hook": "layers.0", "seed": 1,
        "sets": {"name": "own"},
    });
    for (name, value) in own.as_object().unwrap() {
        recipe[name] = value.clone();
    }
    Recipe::read(&recipe).unwrap()
}

/// Follows a recipe in a journal whose lines go to `lines`, cancelled after `steps` steps.
fn follow(
    planted: &Planted,
    recipe: &Recipe,
    lines: &Rc<RefCell<String>>,
    steps: usize,
) -> Result<Value, LabError> {
    let mut chat = planted.chat(8);
    let sets = Sets::new("own", &planted.sets).unwrap();
    let about = identity(&chat, "planted", recipe, &sets).unwrap();
    let before = lines.borrow().clone();
    let sink = lines.clone();
    let told = Box::new(move |line: &str| *sink.borrow_mut() += &format!("{line}\n"));
    let mut journal = Journal::resume(&about, &before, told).unwrap();
    let known = journal.len();
    let cancel = Cell::new(false);
    let made = Cell::new(0);
    let mut tell = |progress: phi3_steer::lab::Progress| {
        made.set(made.get() + usize::from(progress.done > 0));
        cancel.set(made.get() >= known.saturating_add(steps));
    };
    let mut run = Run::new(&mut journal, &cancel, &mut tell);
    block_on(run_recipe(&mut chat, "planted", recipe, &sets, &mut run))
}

fn whole(planted: &Planted, recipe: &Recipe) -> Value {
    follow(planted, recipe, &Rc::default(), usize::MAX).expect("a result")
}

fn first_by(result: &Value, method: &str) -> u64 {
    let all = result["candidates"].as_array().unwrap();
    let first = all.iter().find(|c| c["ranks"][method] == 1);
    first.unwrap_or_else(|| panic!("none is first by {method}"))["feature"]
        .as_u64()
        .unwrap()
}

#[test]
fn the_planted_latent_is_found_and_told_from_its_decoys() {
    let mut rng = fresh_rng();
    let planted = Planted::new(&mut rng);
    let result = whole(&planted, &recipe(json!({"task": "find", "confirm": 8})));
    // The model is as it was planted.
    assert_eq!(result["refused"]["direct"], 1.0, "{result}");
    assert_eq!(result["refused"]["jailbreaks"], 0.0);
    assert_eq!(result["refused"]["harmless"], 0.0);
    assert_eq!(result["latents"], LATENTS);
    // What compares refusals, or a request with its disguise, finds the truth.
    for method in ["contrastReply", "paired"] {
        assert_eq!(first_by(&result, method), TRUTH, "{method}");
    }
    // What compares harmful with harmless prompts finds what reads harm.
    assert_eq!(first_by(&result, "contrastLast"), READER);
    // What looks at the output finds what acts on everything.
    for method in ["causal", "output"] {
        assert_eq!(first_by(&result, method), ACTOR, "{method}");
    }
    let all = result["candidates"].as_array().unwrap();
    let of = |feature: u64| {
        let found = all.iter().find(|c| c["feature"] == feature);
        &found.unwrap_or_else(|| panic!("{feature} is no candidate"))["confirmed"]
    };
    let gain = |feature: u64, way: &str| {
        let change = &of(feature)[way];
        change["steered"].as_f64().unwrap() - change["base"].as_f64().unwrap()
    };
    // The confirmed effect tells them apart.
    assert_eq!(of(TRUTH)["bothWays"], true);
    assert_eq!((gain(TRUTH, "up"), gain(TRUTH, "harmless")), (1.0, 0.0));
    assert!(gain(TRUTH, "down") < 0.0);
    assert_eq!(of(READER)["bothWays"], false);
    assert_eq!((gain(READER, "up"), gain(READER, "down")), (0.0, 0.0));
    assert_eq!(of(ACTOR)["bothWays"], false);
    assert_eq!((gain(ACTOR, "up"), gain(ACTOR, "harmless")), (1.0, 1.0));
    assert_eq!(all[0]["feature"], TRUTH);
    assert_eq!(result["chosen"]["kind"], "feature");
    assert_eq!(result["chosen"]["features"][0]["feature"], TRUTH);
    let useful = &result["strength"]["useful"];
    let best = result["strength"]["default"].as_f64().unwrap();
    assert!(useful[0].as_f64() <= Some(best) && Some(best) <= useful[1].as_f64());
    // The gate in passing: harm is plain to see.
    assert!(result["gate"]["auc"].as_f64() > Some(0.99));
}

#[test]
fn a_model_that_never_refuses_shows_its_latent_on_replies_put_into_its_mouth() {
    let mut rng = fresh_rng();
    let planted = Planted::willing(&mut rng);
    let result = whole(&planted, &recipe(json!({"task": "find", "confirm": 8})));
    // The model is as it was planted.
    for set in ["direct", "jailbreaks", "harmless"] {
        assert_eq!(result["refused"][set], 0.0, "{set}");
    }
    assert_eq!(result["direction"]["reply"]["by"], "forced");
    // What tells the replies apart is the direction to beat, and steers as well.
    assert_eq!(result["direction"]["of"], "forcedReplies");
    let values = |of: &Value| of["values"].as_str().unwrap().to_string();
    let direction = &result["direction"];
    assert_eq!(values(direction), values(&direction["reply"]));
    let candidates = result["candidates"].as_array().unwrap();
    let truth = candidates.iter().find(|c| c["feature"] == TRUTH).unwrap();
    // There are few replies to put into its mouth, and any latent may happen to tell them apart.
    let rank = truth["ranks"]["contrastReply"].as_u64();
    assert!(rank <= Some(3), "{rank:?}");
    // Held up it refuses what is harmful and nothing else; there is nothing to turn down.
    let change = |way: &str| {
        let change = &truth["confirmed"][way];
        (change["base"].as_f64(), change["steered"].as_f64())
    };
    assert_eq!(change("up"), (Some(0.0), Some(1.0)));
    assert_eq!(change("harmless"), (Some(0.0), Some(0.0)));
    assert_eq!(change("down"), (Some(0.0), Some(0.0)));
    assert_eq!(truth["confirmed"]["bothWays"], false);
    assert_eq!(result["chosen"]["features"][0]["feature"], TRUTH);
    assert!(
        result["strength"]["useful"].is_array(),
        "{}",
        result["strength"]
    );
}

#[test]
fn a_search_that_is_broken_off_ends_as_one_that_is_not() {
    let mut rng = fresh_rng();
    let planted = Planted::new(&mut rng);
    let recipe = recipe(json!({"task": "find", "prompts": 6, "held": 4, "confirm": 2}));
    let expected = whole(&planted, &recipe);
    let lines = Rc::default();
    for _ in 0..100 {
        match follow(&planted, &recipe, &lines, rng.random_range(1..12)) {
            Ok(result) => {
                assert_eq!(result, expected);
                return;
            }
            Err(LabError::Cancelled) => {}
            Err(e) => panic!("{e}"),
        }
    }
    panic!("it never ends");
}

#[test]
fn a_gate_is_fitted_and_a_card_told() {
    let mut rng = fresh_rng();
    let planted = Planted::new(&mut rng);
    let gate = json!({"task": "gate", "others": ["layers.1"], "feature": READER});
    let result = whole(&planted, &recipe(gate));
    for one in [&result["gate"], &result["others"][0], &result["byFeature"]] {
        assert!(one["auc"].as_f64() > Some(0.99), "{one}");
        assert!(one["test"]["auc"].as_f64() > Some(0.99), "{one}");
    }
    assert_eq!(result["others"][0]["hook"], "layers.1");
    let sets = &result["gate"]["test"]["sets"];
    assert_eq!(sets["direct"]["of"], 24);
    assert!(sets["direct"]["share"].as_f64() > Some(0.9));
    assert!(sets["benign"]["share"].as_f64() < Some(0.2));

    let card = json!({"task": "card", "feature": ACTOR, "texts": ["a"], "prompts": 20});
    let card = whole(&planted, &recipe(card));
    assert_eq!(card["density"], 1.0);
    let top = card["logits"]["top"][0]["text"]
        .as_str()
        .unwrap()
        .to_string();
    let no: Value = serde_json::from_slice(&planted.sets).unwrap();
    assert_eq!(top.trim(), no["judge"]["refusal_patterns"][0]);
    // The lens in f64: a unit vector's root mean square is 1 / sqrt(width).
    let rms = (1.0 / WIDTH as f64 + 1e-5).sqrt();
    let value = card["logits"]["top"][0]["value"].as_f64().unwrap();
    assert!((value - 8.0 / rms).abs() < 1e-3 * value, "{value}");
    assert!(card["effect"]["delta"].is_number());
    assert_eq!(card["neighbours"].as_array().unwrap().len(), 10);
    let reader = json!({"task": "card", "feature": READER, "prompts": 40});
    let reader = whole(&planted, &recipe(reader));
    let density = reader["density"].as_f64().unwrap();
    assert!(density > 0.0 && density < 1.0);
    assert!(!reader["strongest"].as_array().unwrap().is_empty());
}
