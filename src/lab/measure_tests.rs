//! A measurement of the shipped model, whole and in pieces.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pollster::block_on;
use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Folder;
use crate::generate::Chat;
use crate::gpu::{Gpu, GpuOptions};
use crate::matrix::Format;
use crate::phi3::{CacheFormat, Model, ModelFiles, ModelOptions};
use crate::random::Random;
use crate::sae::{Dictionary, Wanted};
use crate::steering::Steering;

/// The nano model with its dictionary.
pub(super) fn nano(lanes: usize) -> Chat {
    let options = GpuOptions {
        cpu_adapter: true,
        ..GpuOptions::default()
    };
    let gpu = Rc::new(block_on(Gpu::open(&options)).expect("a software Vulkan adapter"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano");
    let files = block_on(ModelFiles::open(&Folder::directory(&root))).unwrap();
    let tokenizer = Rc::new(block_on(files.tokenizer()).unwrap());
    let options = ModelOptions {
        lanes,
        precision: Format::Q4.into(),
        cache: CacheFormat::F16,
        ..ModelOptions::default()
    };
    let model = block_on(Model::from_checkpoint(
        gpu.clone(),
        files.config,
        &files.checkpoint,
        options,
    ));
    let model = model.unwrap();
    let folder = Folder::directory(root.join("sae"));
    let dictionary = block_on(Dictionary::find(&gpu, &folder, Wanted::default())).unwrap();
    let steering = block_on(Steering::new(&model, vec![dictionary])).unwrap();
    block_on(Chat::new(model, tokenizer, steering)).unwrap()
}

pub(super) fn nano_sets() -> Sets {
    Sets::new("nano", include_bytes!("../../models/nano/eval.json")).unwrap()
}

fn recipe(more: Value) -> Recipe {
    let mut recipe = json!({
        "schema": RECIPE, "task": "measure",
        "sets": {"name": "nano", "split": "test", "limit": 2,
            "only": ["direct", "jb_prefix", "benign", "facts", "smalltalk", "perplexity"]},
        "steer": [{"features": [{"feature": 329}]}], "values": [8.0], "tokens": 12,
    });
    let fields = recipe.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    Recipe::read(&recipe).unwrap()
}

/// Follows a recipe from the journal `lines` on, to the end or to its step `until`; the journal grows.
fn follow(
    chat: &mut Chat,
    recipe: &Recipe,
    sets: &Sets,
    lines: &Rc<RefCell<String>>,
    until: usize,
) -> Result<Value, LabError> {
    let about = identity(chat, "nano", recipe, sets).unwrap();
    let text = lines.borrow().clone();
    let sink = lines.clone();
    let sink = Box::new(move |line: &str| *sink.borrow_mut() += &format!("{line}\n"));
    let mut journal = Journal::resume(&about, &text, sink).unwrap();
    let before = journal.len();
    let cancel = Cell::new(false);
    let told = Cell::new(0);
    let grown = lines.clone();
    let mut tell = |progress: Progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        told.set(told.get() + 1);
        let made = grown.borrow().lines().count().saturating_sub(1 + before);
        cancel.set(made >= until);
    };
    let mut run = Run::new(&mut journal, &cancel, &mut tell);
    let result = block_on(run_recipe(chat, "nano", recipe, sets, &mut run));
    assert!(result.is_err() || told.get() > 0);
    result
}

#[test]
fn a_measurement_in_pieces_is_that_in_one() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut chat = nano(4);
    let sets = nano_sets();
    let recipe = recipe(json!({"caps": [4], "repeats": 1, "controls": ["ablation",
        "randomFeatures", "unrelatedFeature", "safetyPrompt"],
        "gate": {"hook": "layers.3", "feature": 329, "threshold": 0.5}}));
    let whole_lines = Rc::default();
    let whole = follow(&mut chat, &recipe, &sets, &whole_lines, usize::MAX).unwrap();
    let lines = Rc::default();
    let mut breaks = 0;
    let pieces = loop {
        match follow(&mut chat, &recipe, &sets, &lines, 1 + random.below(9)) {
            Ok(result) => break result,
            Err(LabError::Cancelled) => breaks += 1,
            Err(e) => panic!("{e}"),
        }
    };
    assert!(breaks > 2, "{breaks}");
    assert_eq!(pieces, whole);
    assert_eq!(*lines.borrow(), *whole_lines.borrow());

    // Nothing is steered after.
    for lane in 0..4 {
        assert!(chat.steering().interventions(lane).is_empty());
    }
    let arms = whole["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["base", "clamp 8", "clamp 8, gated", "ablated"]);
    // The base differs from itself in nothing, the clamp in something.
    assert!(arms[0].get("kl").is_none());
    assert!(arms[1]["kl"].as_f64().unwrap() > 0.0);
    assert!(arms[2]["kl"].as_f64().unwrap() <= arms[1]["kl"].as_f64().unwrap());
    // Every reply of a gated arm is the base's or the steered one's.
    let text = |arm: &Value, i: usize| arm["outcomes"][i]["text"].clone();
    for i in 0..arms[2]["outcomes"].as_array().unwrap().len() {
        let own = text(&arms[2], i);
        assert!(own == text(&arms[0], i) || own == text(&arms[1], i));
    }
    assert_eq!(arms[1]["caps"].as_array().unwrap().len(), 2);
    assert!(arms[1]["groups"]["jailbreaks"]["of"] == 2);
    // A table, plots and a report come of it.
    assert!(table(&whole, TableFormat::Csv).unwrap().lines().count() > 20);
    assert!(plots(&whole).unwrap().len() > 2);
    let input = serde_json::from_value(json!({"results": [whole]})).unwrap();
    assert!(report(&input).unwrap().contains("<svg"));
}

#[test]
fn a_verdict_by_hand_counts_and_can_be_taken_back() {
    let (mut chat, sets) = (nano(4), nano_sets());
    let gate = json!({"hook": "layers.3", "feature": 329, "threshold": 0.5});
    let recipe = recipe(json!({"caps": [4], "controls": ["ablation"], "gate": gate}));
    let result = follow(&mut chat, &recipe, &sets, &Rc::default(), usize::MAX).unwrap();
    // Nothing said, nothing changed: what is counted from the result is what was counted of the replies.
    assert_eq!(overrule(&result, &[]).unwrap(), result);

    let by_hand = |arm: &str, item: &str, refused| ByHand {
        arm: arm.into(),
        item: item.into(),
        refused,
    };
    let of = |result: &Value, arm: usize| {
        let group = &result["arms"][arm]["groups"]["direct requests"];
        let pair = &group["paired"];
        let hits = group["hits"].as_u64().unwrap();
        (
            hits,
            pair["gained"].as_u64().unwrap(),
            pair["lost"].as_u64().unwrap(),
        )
    };
    let (base, _, _) = of(&result, 0);
    assert_eq!(base, 2, "the model declines direct requests: {result}");
    // The base is overruled: its own count falls, and the other arms' pairs with it.
    let answered = by_hand("base", "direct/1", Some(false));
    let told = overrule(&result, std::slice::from_ref(&answered)).unwrap();
    assert_eq!(of(&told, 0), (1, 0, 0));
    assert_eq!(of(&told, 1), (of(&result, 1).0, 1, 0));
    assert_eq!(told["arms"][0]["refused"]["direct"], 50.0);
    assert_eq!(told["arms"][0]["groups"]["set direct"]["hits"], 1);
    assert_eq!(told["byHand"], json!([answered]));
    assert_eq!(told["arms"][0]["kl"], result["arms"][0]["kl"]);
    assert_eq!(
        told["arms"][1]["perplexity"],
        result["arms"][1]["perplexity"]
    );
    let input = serde_json::from_value(json!({"results": [told]})).unwrap();
    assert!(
        report(&input)
            .unwrap()
            .contains("in place of the judge's: 1.")
    );

    // Said once more and otherwise, then taken back: nothing is left of it.
    let more = [
        by_hand("base", "direct/1", Some(true)),
        by_hand("clamp 8", "benign/0", Some(true)),
    ];
    let told = overrule(&told, &more).unwrap();
    assert_eq!(of(&told, 0), (2, 0, 0));
    assert_eq!(
        told["arms"][1]["groups"]["harmless requests"]["paired"]["gained"],
        1
    );
    assert_eq!(told["byHand"], json!(more));
    let back = more.map(|one| ByHand {
        refused: None,
        ..one
    });
    assert_eq!(overrule(&told, &back).unwrap(), result);

    for (wrong, words) in [
        (by_hand("clamp 9", "direct/1", None), "no arm \"clamp 9\""),
        (by_hand("base", "direct/9", None), "no prompt \"direct/9\""),
        (
            by_hand("ablated", "facts/0", None),
            "no reply to \"facts/0\"",
        ),
    ] {
        let message = overrule(&result, &[wrong]).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let message = overrule(&json!({"items": []}), &[]).unwrap_err();
    assert!(message.to_string().contains("no arms"), "{message}");
}

#[test]
fn a_journal_is_of_its_recipe_and_lanes() {
    let (mut chat, sets) = (nano(2), nano_sets());
    let one = recipe(json!({"controls": []}));
    let about = |chat: &Chat, recipe: &Recipe| identity(chat, "nano", recipe, &sets).unwrap();
    assert_ne!(about(&chat, &one), about(&nano(3), &one));
    assert_ne!(
        about(&chat, &one),
        about(&chat, &recipe(json!({"values": [7.0]})))
    );
    for (hook, words) in [
        ("layers.9", "layers.9 has none"),
        ("layers.2", "layers.2 has none"),
    ] {
        let wrong = recipe(json!({"hook": hook, "controls": []}));
        let lines = Rc::default();
        let message = follow(&mut chat, &wrong, &sets, &lines, usize::MAX);
        let message = message.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let only = json!({"sets": {"name": "nano", "only": ["none"]}});
    let lines = Rc::default();
    let message = follow(&mut chat, &recipe(only), &sets, &lines, usize::MAX);
    assert!(message.unwrap_err().to_string().contains("no set \"none\""));
}
