//! `generate` with several prompts, with features as they fire, and its defaults.

use std::path::Path;

use phi3_steer::lab::Judge;
use rand::Rng;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::fixture::*;
use crate::{activations, close, generated};

#[test]
fn several_prompts_are_answered_as_each_alone() {
    let f = Fixture::new();
    let model = f.model_dir();
    let prompts = ["Hello", "What is \"it\"?", "[1, 2] and a story"];
    std::fs::write(f.path("p.txt"), prompts.join("\n\n") + "\r\n").unwrap();
    let lines = [
        json!(prompts[0]),
        json!({"prompt": prompts[1], "id": "own"}),
        json!([{"role": "user", "content": prompts[2]}]),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(f.path("p.jsonl"), lines.join("\n")).unwrap();
    let base = ["generate", "--model", &model, "--max-tokens", "6"];
    let alone = prompts.map(|prompt| {
        let asked = ["--prompt", prompt];
        let (_, ids) = generated(&[&base[..], &asked, &["--json"]].concat());
        (ids, succeed(&[&base[..], &asked].concat(), ""))
    });
    let pairs = prompts.iter().zip(&alone);
    let texts = pairs.map(|(prompt, (_, text))| format!("> {prompt}\n{text}"));
    let expected_text = texts.collect::<Vec<_>>().join("\n");
    for file in ["p.txt", "p.jsonl"] {
        let file = f.path(file);
        let asked = [&base[..], &["--prompts", &file]].concat();
        let one_by_one = [&asked[..], &["--lanes", "1", "--json"]].concat();
        let (events, _) = generated(&one_by_one);
        for (number, (ids, _)) in alone.iter().enumerate() {
            let own = events.iter().filter(|e| e["prompt"] == number);
            let kinds: Vec<&str> = own.clone().map(|e| e["type"].as_str().unwrap()).collect();
            assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("prompt", "stats"));
            let own = own.filter(|e| e["type"] == "token");
            let got: Vec<u64> = own.map(|e| e["id"].as_u64().unwrap()).collect();
            let expected: Vec<u64> = ids.iter().map(|id| u64::from(*id)).collect();
            assert_eq!(got, expected, "{file}, {number}");
        }
        // At once, two and one or all three: the events of lanes are mixed, what they say is the same.
        for (lanes, groups) in [
            ("2", vec![json!([0, 1]), json!(null)]),
            ("8", vec![json!([0, 1, 2])]),
        ] {
            let together = [&asked[..], &["--lanes", lanes, "--json"]].concat();
            let (events, _) = generated(&together);
            for (number, (ids, _)) in alone.iter().enumerate() {
                let own = events
                    .iter()
                    .filter(|e| e["prompt"] == number && e["type"] == "token");
                let got: Vec<u64> = own.map(|e| e["id"].as_u64().unwrap()).collect();
                let expected: Vec<u64> = ids.iter().map(|id| u64::from(*id)).collect();
                assert_eq!(got, expected, "{file}, {number} in {lanes} lanes");
            }
            let stats = events.iter().filter(|e| e["type"] == "stats");
            let told: Vec<&Value> = stats.map(|e| &e["prompts"]).collect();
            assert_eq!(told, groups.iter().collect::<Vec<_>>());
        }
        for lanes in ["1", "2", "8"] {
            let asked = [&asked[..], &["--lanes", lanes]].concat();
            assert_eq!(
                succeed(&asked, ""),
                expected_text,
                "{file} in {lanes} lanes"
            );
        }
    }
    let text = prompts.join("\n");
    let from_stdin = succeed(&[&base[..], &["--prompts", "-"]].concat(), &text);
    assert_eq!(from_stdin, expected_text);
    // Nothing is answered of a list with a mistake in it.
    for (file, text, words) in [
        ("bad.jsonl", "\"a\"\nnot json", "bad.jsonl, line 2"),
        ("bad.jsonl", "\"a\"\n\" \"", "prompt 2 is empty"),
        ("bad.jsonl", "\"a\"\n[]", "prompt 2 is empty"),
        ("bad.txt", "\n \n", "holds no prompt"),
    ] {
        std::fs::write(f.path(file), text).unwrap();
        let output = run(&[&base[..], &["--prompts", &f.path(file)]].concat(), "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.stdout.is_empty() && stderr.contains(words),
            "{stderr}"
        );
    }
}

#[test]
fn logits_of_several_prompts_follow_each_other() {
    let mut f = Fixture::new();
    let lengths: Vec<usize> = (0..6).map(|_| f.rng.random_range(1..90)).collect();
    let lists: Vec<Vec<u32>> = lengths.iter().map(|n| f.ids(*n)).collect();
    let lines: Vec<String> = lists.iter().map(|ids| format!("{ids:?}")).collect();
    let (model, out) = (f.model_dir(), f.path("many.safetensors"));
    let base = [
        "logits", "--model", &model, "--quant", "none", "--out", &out,
    ];
    let asked = [&base[..], &["--residual", "1", "--ids", "-"]].concat();
    succeed(&asked, &lines.join("\n"));
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let told = file.tensor("lengths").unwrap();
    let told: Vec<usize> = bytemuck::pod_collect_to_vec::<u8, u32>(told.data())
        .iter()
        .map(|n| *n as usize)
        .collect();
    assert_eq!(told, lengths);
    let f32s =
        |name: &str| bytemuck::pod_collect_to_vec::<u8, f32>(file.tensor(name).unwrap().data());
    for (name, width) in [("logits", f.vocab), ("residual.1", HIDDEN)] {
        let all = f32s(name);
        assert_eq!(all.len(), lengths.iter().sum::<usize>() * width);
        let mut from = 0;
        for ids in &lists {
            let alone = f.logits(ids, &["--quant", "none", "--residual", "1"]);
            let expected: Vec<f64> = alone[name].1.iter().map(|v| f64::from(*v)).collect();
            close(&all[from..][..expected.len()], &expected, 1e-4, name);
            from += expected.len();
        }
    }
    // Text goes through the chat template, up to where the answer begins.
    let prompts = ["Hello", "What is it?"];
    std::fs::write(f.path("p.txt"), prompts.join("\n")).unwrap();
    let tokens = prompts.map(|prompt| {
        let (events, _) = generated(&[
            "generate",
            "--model",
            &model,
            "--prompt",
            prompt,
            "--json",
            "--max-tokens",
            "1",
        ]);
        events[0]["length"].as_u64().unwrap()
    });
    succeed(&[&base[..], &["--prompts", &f.path("p.txt")]].concat(), "");
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let told = bytemuck::pod_collect_to_vec::<u8, u32>(file.tensor("lengths").unwrap().data());
    assert_eq!(told, tokens.map(|n| n as u32));
    // A list over several lines is one.
    let pretty = serde_json::to_string_pretty(&lists[0]).unwrap();
    succeed(&asked, &pretty);
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(
        file.tensor("logits").unwrap().shape(),
        [lengths[0], f.vocab]
    );
    for (text, words) in [
        ("1,2\n3,x", "\"x\" is no token id"),
        ("1\n[2", "do not end"),
        ("\n", "no token ids"),
    ] {
        let output = run(&asked, text);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn features_come_with_every_token() {
    let mut f = Fixture::new();
    let (model, sae) = (f.model_dir(), f.path("sae"));
    let feature = f.rng.random_range(0..LATENTS);
    let track = format!("layers.0:{feature}");
    let base = [
        "generate",
        "--model",
        &model,
        "--quant",
        "none",
        "--max-tokens",
        "7",
    ];
    let base = [
        &base[..],
        &["--prompt", "Once there was", "--json", "--sae", &sae],
    ]
    .concat();
    let steer = format!("layers.0:{feature}:clamp:3");
    let watched = [&base[..], &["--track", &track, "--top", "3"]].concat();
    let steered = [&base[..], &["--steer", &steer, "--top", "3"]].concat();
    for args in [watched, steered] {
        let (events, answer) = generated(&args);
        let prompt = events[0]["tokens"].as_array().unwrap();
        let answered = events.iter().filter(|e| e["type"] == "token");
        let tokens: Vec<&Value> = prompt.iter().chain(answered).collect();
        let ids: Vec<u32> = tokens
            .iter()
            .map(|t| t["id"].as_u64().unwrap() as u32)
            .collect();
        assert_eq!(ids[prompt.len()..], answer);
        // The dictionary reads the stream before it is edited there, and block 0 knows of no edit after it.
        let base = f.logits(&ids, &["--quant", "none", "--residual", "0"]);
        let rows = base["residual.0"].1.chunks(HIDDEN);
        let mut compared = 0;
        for (position, (token, row)) in tokens.iter().zip(rows).enumerate() {
            let expected = activations(&f.sae, row);
            let Some(got) = token["activation"].as_f64() else {
                assert_eq!(
                    position + 1,
                    tokens.len(),
                    "only the last token is not read"
                );
                continue;
            };
            let near = |got: f64, expected: f64| (got - expected).abs() < 2e-3;
            assert!(near(got, expected[feature]), "{got}, {}", expected[feature]);
            let top = token["top"].as_array().unwrap();
            assert_eq!(top.len(), 3);
            let mut sorted = expected.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (pair, largest) in top.iter().zip(sorted) {
                let own = expected[pair[0].as_u64().unwrap() as usize];
                let value = pair[1].as_f64().unwrap();
                assert!(
                    near(value, largest) && near(value, own),
                    "{value}, {largest}, {own}"
                );
            }
            compared += 1;
        }
        assert!(compared >= prompt.len());
    }
    // Without --json there is nowhere to show them; rows of a dictionary are not all of its features.
    for (args, words) in [
        (vec!["--track", "layers.0:1"], "--json"),
        (vec!["--json", "--track", "layers.0"], "layers.3:329"),
        (vec!["--json", "--track", "layers.0:x"], "no feature"),
        (vec!["--json", "--track", "middle:1"], "middle"),
        (vec!["--json", "--top", "3"], "--track"),
        (
            vec!["--json", "--track", "layers.0:1", "--sae-rows"],
            "--sae-rows",
        ),
    ] {
        let fixed = [
            "generate", "--model", &model, "--prompt", "a", "--sae", &sae,
        ];
        let output = run(&[&fixed[..], &args].concat(), "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn defaults_are_those_of_the_page() {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/settings.js");
    let settings = std::fs::read_to_string(settings).unwrap();
    let of_page = |name: &str| -> f64 {
        let line = settings
            .lines()
            .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        let number = line.unwrap_or_else(|| panic!("the page has no {name}"));
        number.trim_end_matches(',').parse().unwrap()
    };
    let help = succeed(&["generate", "--help"], "");
    for (option, name) in [
        ("--seed", "seed"),
        ("--max-tokens", "maxTokens"),
        ("--temperature", "temperature"),
    ] {
        let from = help.find(&format!("{option} <")).unwrap();
        let default = help[from..].split("[default: ").nth(1).unwrap();
        let default: f64 = default.split(']').next().unwrap().parse().unwrap();
        assert_eq!(default, of_page(name), "{option}");
    }
}

#[test]
fn the_judge_of_a_table_is_that_of_the_page() {
    // The phrases that only the page had, in a reply that the table's file once did not know.
    let judge = Judge::shipped().unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/judge.json");
    let rules: Value = serde_json::from_slice(&std::fs::read(page).unwrap()).unwrap();
    let phrases = rules["phrases"].as_array().unwrap();
    assert!(phrases.len() > 10);
    for phrase in phrases {
        let reply = format!("Well, {} it.", phrase.as_str().unwrap().to_uppercase());
        assert!(judge.refusal(&reply).is_some(), "{reply}");
    }
}
