//! `phi3-steer lab`: measuring in pieces, and what becomes of a result.

use serde_json::{Value, json};

use crate::fixture::{Fixture, done, refused, succeed};

/// Prompts of every kind, in a file of one's own.
fn prompts() -> String {
    let ask = |text: &str| json!([{"role": "user", "content": text}]);
    let set = |name: &str, kind: &str, more: Value| {
        let items = ["Hello", "How are you today?"].iter().map(|text| {
            let mut item = json!({"messages": ask(text)});
            let fields = item.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            item
        });
        json!({"name": name, "kind": kind, "items": items.collect::<Vec<_>>()})
    };
    let sets = json!([
        set("direct", "refuse", json!({"category": "theft"})),
        set("jb_role", "jailbreak", json!({"template": "role"})),
        set("jbx_new", "jailbreak", json!({})),
        set("led", "multi_turn", json!({})),
        set("benign", "benign", json!({"type": "homonyms"})),
        set("facts", "fact", json!({"answer": "Paris"})),
        set("sums", "arithmetic", json!({"answer": "4"})),
        set(
            "school",
            "choice",
            json!({"answer": "B", "options": ["a", "b", "c", "d"]})
        ),
        set("smalltalk", "smalltalk", json!({})),
        set(
            "perplexity",
            "perplexity",
            json!({"reference": "Once there was a fox."})
        ),
    ]);
    json!({"version": 1, "judge": {"max_new_tokens": 4}, "splits": {"test": {"sets": sets}}})
        .to_string()
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_measurement_that_was_killed_goes_on_and_becomes_a_report() {
    let f = Fixture::new();
    let (model, sae) = (f.model_dir(), f.path("sae"));
    std::fs::write(f.path("mine.json"), prompts()).unwrap();
    let (mine, journal) = (f.path("mine.json"), f.path("journal.jsonl"));
    let (first, second) = (f.path("first.json"), f.path("second.json"));
    let common = format!(
        "--model {model} --sae {sae} --sets {mine} --hook layers.0 --feature 3:2+5 --values 1,2 \
         --negatives -1 --caps 2 --repeats 1 --lanes 3 --journal {journal}"
    );
    let measure = |out: &str| done(&format!("lab measure {common} --out {out}"));
    measure(&first);
    let whole = std::fs::read_to_string(&journal).unwrap();
    // Killed in the middle of a line.
    let half = whole.lines().count() / 2;
    let kept: usize = whole.lines().take(half).map(|l| l.len() + 1).sum();
    std::fs::write(&journal, &whole[..kept + 7]).unwrap();
    measure(&second);
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), whole);
    let result = read(&first);
    assert_eq!(result, read(&second));
    assert_eq!(result["schema"], "phi3-steer.result/1");
    let arms = result["arms"].as_array().unwrap();
    let names: Vec<&str> = arms.iter().map(|a| a["arm"].as_str().unwrap()).collect();
    assert_eq!(
        names[..5],
        ["base", "clamp 1", "clamp 2", "ablated", "clamp -1"]
    );
    for name in [
        "random direction 1",
        "difference of means",
        "safety system prompt",
    ] {
        assert!(
            names.iter().any(|n| n.starts_with(name)),
            "{name}: {names:?}"
        );
    }
    assert_eq!(arms[1]["interventions"][0]["value"], 2.0);
    for (group, of) in [
        ("direct requests", 2),
        ("jailbreaks", 2),
        ("jailbreaks, unseen families", 2),
        ("multi-turn escalations", 2),
        ("all answers", 6),
        ("four options", 2),
        ("category theft", 2),
        ("template role", 2),
        ("type homonyms", 2),
    ] {
        assert_eq!(arms[1]["groups"][group]["of"], of, "{group}");
    }

    // Another recipe does not go on in this journal, and what it measured is not lost.
    let other = format!("lab measure {common} --seed 9 --out {second}");
    let message = refused(&other);
    assert!(message.contains("another recipe"), "{message}");
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), whole);

    // A result's recipe is followed again.
    let again = format!("lab run {first} --sets {mine} --model {model} --sae {sae} --lanes 3");
    let again: Value = serde_json::from_str(&done(&again)).unwrap();
    assert_eq!(again, result);

    let html = succeed(&["lab", "report", &first, "--title", "A <b>"], "");
    assert!(html.starts_with("<!doctype html>") && html.contains("<h1>A &lt;b&gt;</h1>"));
    assert!(html.contains("<svg") && !html.contains("<script"));
    let csv = succeed(&["lab", "report", &first, "--format", "csv"], "");
    assert!(csv.starts_with("arm,value,group,"), "{csv}");
    let markdown = succeed(&["lab", "report", &first, "--format", "markdown"], "");
    assert!(markdown.contains("| clamp 2 |") && markdown.contains("another model"));
}
