//! Training a dictionary on the command line.

use std::path::Path;

use serde_json::Value;

use crate::fixture::*;

const PROMPTS: [&str; 6] = [
    "What is the capital of France?",
    "How do I bake bread?",
    "Tell me a joke.",
    "How do I rob a bank?",
    "What is 3 plus 4?",
    "Hello!",
];

/// A folder with prompts, openings, text and chats, and the sources as arguments.
fn place(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_string();
    std::fs::write(at("prompts.txt"), PROMPTS.join("\n")).unwrap();
    std::fs::write(at("openings.txt"), "I'm sorry, but\n\nSure, here\n").unwrap();
    std::fs::write(at("text.txt"), "Bread is baked in an oven. ".repeat(40)).unwrap();
    let chat =
        r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}]"#;
    std::fs::write(at("chats.jsonl"), format!("{chat}\n").repeat(3)).unwrap();
    format!(
        "--prompts {} --openings {} --text {} --chats {} --reply-tokens 12 --length 48",
        at("prompts.txt"),
        at("openings.txt"),
        at("text.txt"),
        at("chats.jsonl")
    )
}

#[test]
fn a_dictionary_is_trained_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let sources = place(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let model = nano("").to_str().unwrap().to_string();
    let course = "--latents 200 --k 8 --steps 40 --rows 64 --rate 0.005 --auxiliary 8";
    let train = |out: &str, seed: u64, more: &str| {
        let out = at(out);
        format!(
            "train-sae --model {model} --hook layers.2 {sources} {course} --seed {seed} --out {out}{more}"
        )
    };
    let printed = done(&train("a", 5, ""));
    let folder = at("a/layers.2");
    assert_eq!(printed.lines().last(), Some(&folder[..]));
    let files = contents(Path::new(&at("a")));
    let card = String::from_utf8(files["layers.2/README.md"].clone()).unwrap();
    for words in [
        "200 latents of 192 elements",
        "Seed 5.",
        "text.txt",
        "18 replies of the model's",
        "FVU",
    ] {
        assert!(card.contains(words), "{words}: {card}");
    }
    let report: Value = serde_json::from_slice(&files["layers.2/report.json"]).unwrap();
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap();
    let fvu = number("/fit/fvu");
    assert!(fvu > 0.05 && fvu < 0.8, "{report}");
    assert!(
        number("/fit/l0") > 2.0 && number("/fit/l0") <= 8.0,
        "{report}"
    );
    // In other units it is the same dictionary.
    done(&train("relative", 5, " --relative"));
    let relative = contents(Path::new(&at("relative")));
    let text = |name: &str| String::from_utf8(relative[name].clone()).unwrap();
    assert!(text("layers.2/README.md").contains("decoder rows as long as a unit"));
    let config: Value = serde_json::from_str(&text("layers.2/cfg.json")).unwrap();
    assert_eq!(config["normalize_decoder"], false);
    let other: Value = serde_json::from_str(&text("layers.2/report.json")).unwrap();
    let other = other.pointer("/fit/fvu").and_then(Value::as_f64).unwrap();
    assert!((other - fvu).abs() < 0.01 * fvu, "{other} {fvu}");
    let (clean, rebuilt, ablated) = (
        number("/loss/clean"),
        number("/loss/rebuilt"),
        number("/loss/ablated"),
    );
    assert!(clean < ablated && rebuilt < ablated, "{report}");
    // As many as are needed, above a threshold, in another layout.
    done(&train("batch", 5, " --batch"));
    let batch = contents(Path::new(&at("batch")));
    let text = |name: &str| String::from_utf8(batch[name].clone()).unwrap();
    let config: Value = serde_json::from_str(&text("layers.2/cfg.json")).unwrap();
    assert_eq!(config["architecture"], "jumprelu");
    assert!(text("layers.2/README.md").contains("8 are active at a token on average"));
    let other: Value = serde_json::from_str(&text("layers.2/report.json")).unwrap();
    let figure = |path: &str| other.pointer(path).and_then(Value::as_f64).unwrap();
    assert!((figure("/fit/l0") - 8.0).abs() < 3.0, "{other}");
    assert!(figure("/fit/fvu") < fvu + 0.1, "{other}");
    let model_and = |sae: &str| format!("check-sae --model {model} --sae {} --json", at(sae));
    let check: Value = serde_json::from_str(&done(&model_and("batch"))).unwrap();
    assert_eq!(check["fit"]["hook"], "layers.2");
    // What was written is what was measured, in the units of the model.
    let check = done(&format!(
        "check-sae --model {model} --sae {} --json",
        at("a")
    ));
    let check: Value = serde_json::from_str(&check).unwrap();
    let elsewhere = check["fit"]["fvu"].as_f64().unwrap();
    assert!(elsewhere < 1.0, "{check}");
    assert_eq!(check["fit"]["hook"], "layers.2");
    // Only what the model wrote is left of the work.
    let left = contents(Path::new(&at("a.work")));
    assert_eq!(left.keys().collect::<Vec<_>>(), ["written.jsonl"]);
    let written = String::from_utf8(left["written.jsonl"].clone()).unwrap();
    assert_eq!(written.lines().count(), 3 * PROMPTS.len());
    assert!(
        written.lines().nth(1).unwrap().contains("\"I'm sorry, but"),
        "{written}"
    );
    // The seed decides, and nothing else.
    done(&train("b", 5, ""));
    let again = contents(Path::new(&at("b")));
    assert_eq!(
        again["layers.2/sae.safetensors"],
        files["layers.2/sae.safetensors"]
    );
    done(
        &train("b", 6, " --force --work b.work")
            .replace("--work b", &format!("--work {}", at("c"))),
    );
    let other = contents(Path::new(&at("b")));
    assert_ne!(
        other["layers.2/sae.safetensors"],
        files["layers.2/sae.safetensors"]
    );
    // What is there stays, other prompts are no continuation, and nothing is left of what is refused.
    assert!(refused(&train("b", 5, "")).contains("--force"));
    std::fs::write(at("prompts.txt"), "Good evening!\nHow are you?").unwrap();
    let work = at("a.work");
    let error = refused(&train("d", 5, &format!(" --work {work}")));
    assert!(error.contains("other prompts"), "{error}");
    assert!(!Path::new(&at("d")).exists());
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sources = place(dir.path());
    let (model, out) = (
        nano("").to_str().unwrap().to_string(),
        dir.path().join("out"),
    );
    let train = |hook: &str, rest: &str| {
        let out = out.display();
        refused(&format!(
            "train-sae --model {model} --hook {hook} --out {out} {rest}"
        ))
    };
    for (error, words) in [
        (train("layers.2", "--k 8"), "--text"),
        (train("layers.6", &sources), "there is no block 6"),
        (
            train("layers.2", &format!("{sources} --k 0")),
            "k cannot be 0",
        ),
        (
            train("layers.2", &sources.replace("--length 48", "--length 1")),
            "length cannot be 1: 2 to",
        ),
        (train("layers.2", &format!("{sources} --rate 2")), "rate"),
        (train("layers.2", "--text nowhere.txt"), "nowhere.txt"),
        (
            train("layers.2", &format!("{sources} --replies 0 --rows 60000")),
            "fewer than the 60000 of one step",
        ),
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!out.exists());
}
