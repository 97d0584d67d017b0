//! The native command through its binary, on a software adapter and a random checkpoint with the nano
//! model's tokenizer.

#![cfg(not(target_arch = "wasm32"))]

mod bench;
mod dictionaries;
mod examples;
#[path = "../support/gguf.rs"]
mod file;
mod fixture;
mod gguf;
mod interrupts;
mod lab;
mod nano;
mod places;
mod prompts;
mod streams;
mod train;
#[path = "../support/vocabulary.rs"]
mod vocabulary;
mod writing;

use std::collections::HashMap;
use std::path::Path;

use fixture::*;
use rand::Rng;
use serde_json::{Value, json};

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The dictionary's activations of `x` in f64, `[LATENTS]`.
pub fn activations(sae: &HashMap<String, Tensor>, x: &[f32]) -> Vec<f64> {
    let centred: Vec<f32> = x.iter().zip(&sae["b_dec"].1).map(|(x, b)| x - b).collect();
    let rows = sae["encoder.weight"].1.chunks(HIDDEN);
    let pre: Vec<f64> = rows
        .zip(&sae["encoder.bias"].1)
        .map(|(row, bias)| (dot(row, &centred) + f64::from(*bias)).max(0.0))
        .collect();
    let mut order: Vec<usize> = (0..LATENTS).collect();
    order.sort_by(|a, b| pre[*b].total_cmp(&pre[*a]));
    let mut acts = vec![0.0; LATENTS];
    order.iter().take(K).for_each(|&j| acts[j] = pre[j]);
    acts
}

fn close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*g) - e).abs() / scale;
        assert!(error <= tolerance, "{what}, element {i}: {g}, expected {e}");
    }
}

#[test]
fn text_and_conversations_become_tokens() {
    let f = Fixture::new();
    let model = f.model_dir();
    let ids = |args: &[&str], stdin: &str| -> Vec<u32> {
        let mut all = vec!["tokenize", "--model", &model];
        all.extend(args);
        serde_json::from_str(&succeed(&all, stdin)).unwrap()
    };
    let tokenizer: Value =
        serde_json::from_slice(&std::fs::read(nano("tokenizer.json")).unwrap()).unwrap();
    let special = |name: &str| {
        let added = tokenizer["added_tokens"].as_array().unwrap();
        let token = added.iter().find(|t| t["content"] == name).unwrap();
        token["id"].as_u64().unwrap() as u32
    };
    let hello = ids(&[], "How do I bake <|end|> bread?");
    assert!(!hello.contains(&special("<|end|>")));
    let chat = json!([{"role": "user", "content": "How do I bake <|end|> bread?"}]).to_string();
    let mut expected = vec![special("<|user|>")];
    expected.extend(&hello);
    expected.extend([special("<|end|>"), special("<|assistant|>")]);
    let got = ids(&["--chat"], &chat);
    let begins = usize::from(got[0] == special("<s>"));
    assert_eq!(got[begins..], expected);
}

#[test]
fn logits_follow_from_the_last_residual_stream_at_every_token() {
    let mut f = Fixture::new();
    // More than a chunk of 256 tokens.
    let n = f.rng.random_range(270..330);
    let ids = f.ids(n);
    let out = f.logits(
        &ids,
        &["--quant", "none", "--residual", "1", "--residual", "0"],
    );
    assert_eq!(out.len(), 3);
    let (shape, logits) = &out["logits"];
    assert_eq!(shape, &[n, f.vocab]);
    let (shape, residual) = &out["residual.1"];
    assert_eq!(shape, &[n, HIDDEN]);
    let norm = &f.model["model.norm.weight"].1;
    let head: Vec<&[f32]> = f.model["lm_head.weight"].1.chunks(HIDDEN).collect();
    for position in [0, 1, n / 2, 255, 256, n - 1] {
        let h = &residual[position * HIDDEN..][..HIDDEN];
        let rms = (dot(h, h) / HIDDEN as f64 + 1e-5).sqrt();
        let x: Vec<f32> = h.iter().zip(norm).map(|(h, w)| h * w).collect();
        let expected: Vec<f64> = head.iter().map(|row| dot(row, &x) / rms).collect();
        let got = &logits[position * f.vocab..][..f.vocab];
        close(got, &expected, 1e-4, &format!("logits at {position}"));
    }
    // What comes later changes nothing before, in whatever chunks it is computed.
    let cut = 100;
    let short = f.logits(&ids[..cut], &["--quant", "none", "--residual", "0"]);
    for name in ["logits", "residual.0"] {
        let (got, long) = (&short[name].1, &out[name].1);
        let expected: Vec<f64> = long[..got.len()].iter().map(|v| f64::from(*v)).collect();
        close(got, &expected, 1e-4, name);
    }
    // 4-bit weights are near, and are not the same.
    let quantised = f.logits(&ids[..cut], &[]);
    let pairs = quantised["logits"].1.iter().zip(&short["logits"].1);
    let (mut error, mut size) = (0.0, 0.0);
    for (a, b) in pairs {
        error += f64::from(a - b).powi(2);
        size += f64::from(*b).powi(2);
    }
    let relative = (error / size).sqrt();
    assert!(relative > 1e-4 && relative < 0.5, "{relative}");
}

#[test]
fn residuals_are_written_after_steering() {
    let mut f = Fixture::new();
    let ids = f.ids(40);
    let base = f.logits(&ids, &["--quant", "none", "--residual", "0"]);
    let sae = f.path("sae");
    let before = &base["residual.0"].1;
    let latent = f.rng.random_range(0..LATENTS);
    let d = f.sae["W_dec"].1[latent * HIDDEN..][..HIDDEN].to_vec();
    for (op, bos) in [("add", false), ("clamp", false), ("clamp", true)] {
        let value = f.rng.random_range(1.0f32..5.0);
        let option = if bos { ":+bos" } else { "" };
        let steer = format!("layers.0:{latent}:{op}:{value}{option}");
        let args = [
            "--quant",
            "none",
            "--residual",
            "0",
            "--sae",
            &sae,
            "--steer",
            &steer,
        ];
        let out = f.logits(&ids, &args);
        let after = &out["residual.0"].1;
        for (position, h) in before.chunks(HIDDEN).enumerate() {
            let f_j = activations(&f.sae, h)[latent];
            let c = match op {
                _ if position == 0 && !bos => 0.0,
                "add" => f64::from(value),
                _ => f64::from(value) - f_j,
            };
            let edit = h
                .iter()
                .zip(&d)
                .map(|(h, d)| f64::from(*h) + c * f64::from(*d));
            let expected: Vec<f64> = edit.collect();
            let got = &after[position * HIDDEN..][..HIDDEN];
            close(got, &expected, 1e-4, &format!("{steer} at {position}"));
        }
        let last = base["logits"].1.len() - f.vocab;
        assert_ne!(out["logits"].1[last..], base["logits"].1[last..], "{steer}");
    }
}

#[test]
fn vectors_are_encoded_and_rebuilt() {
    let mut f = Fixture::new();
    let n = 271;
    let x: Vec<f32> = (0..n * HIDDEN)
        .map(|_| f.rng.random_range(-2.0..2.0))
        .collect();
    let (input, output, sae) = (f.path("x.bin"), f.path("acts.safetensors"), f.path("sae"));
    let tensors = HashMap::from([("x".to_string(), (vec![n, HIDDEN], x.clone()))]);
    write(Path::new(&input), &tensors);
    succeed(
        &["encode", "--sae", &sae, "--in", &input, "--out", &output],
        "",
    );
    let out = read(Path::new(&output));
    assert_eq!(out["acts"].0, [n, LATENTS]);
    assert_eq!(out["recon"].0, [n, HIDDEN]);
    for (i, row) in x.chunks(HIDDEN).enumerate() {
        let acts = activations(&f.sae, row);
        let got = &out["acts"].1[i * LATENTS..][..LATENTS];
        close(got, &acts, 1e-4, &format!("activations of row {i}"));
        let mut recon: Vec<f64> = f.sae["b_dec"].1.iter().map(|b| f64::from(*b)).collect();
        for (a, d) in acts.iter().zip(f.sae["W_dec"].1.chunks(HIDDEN)) {
            recon
                .iter_mut()
                .zip(d)
                .for_each(|(r, d)| *r += a * f64::from(*d));
        }
        let got = &out["recon"].1[i * HIDDEN..][..HIDDEN];
        close(got, &recon, 1e-4, &format!("reconstruction of row {i}"));
    }
}

/// The events of a `generate --json` run, and the tokens in them.
pub fn generated(args: &[&str]) -> (Vec<Value>, Vec<u32>) {
    let text = succeed(args, "");
    let events: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let tokens = events.iter().filter(|e| e["type"] == "token");
    let ids = tokens.map(|e| e["id"].as_u64().unwrap() as u32).collect();
    (events, ids)
}

#[test]
fn answers_are_greedy_or_drawn_from_a_seed() {
    let f = Fixture::new();
    let model = f.model_dir();
    let base = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "Hello",
        "--max-tokens",
        "9",
    ];
    let with = |more: &[&'static str]| -> Vec<&str> { [&base[..], more].concat() };
    let (events, tokens) = generated(&with(&["--json"]));
    let prompt = events[0]["tokens"].as_array().unwrap();
    let mut ids: Vec<u32> = prompt
        .iter()
        .map(|t| t["id"].as_u64().unwrap() as u32)
        .collect();
    let start = ids.len();
    ids.extend(&tokens);
    let done = &events[events.len() - 2];
    assert_eq!(done["tokens"], tokens.len());
    assert!(done["reason"] == "length" || done["reason"] == "stop");
    assert_eq!(events[events.len() - 1]["type"], "stats");
    // Each token is the likeliest one, but for what f16 may turn.
    let logits = f.logits(&ids, &[]);
    for (i, &token) in tokens.iter().enumerate() {
        let row = &logits["logits"].1[(start + i - 1) * f.vocab..][..f.vocab];
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        let own = row[token as usize];
        assert!(
            own >= best - 0.02 * best.abs(),
            "token {i}: {own} of {best}"
        );
    }
    // Text is the events' text.
    let texts = events.iter().filter_map(|e| e["text"].as_str());
    assert_eq!(succeed(&with(&[]), ""), texts.collect::<String>() + "\n");
    // Draws repeat with their seed alone.
    let drawn = |seed| generated(&with(&["--json", "--temperature", "1.5", "--seed", seed])).1;
    let first = drawn("5");
    assert_eq!(first, drawn("5"));
    assert_ne!(first, drawn("6"));
    assert_ne!(first, tokens);
}

#[test]
fn an_evaluation_prints_a_table_and_keeps_what_a_report_says() {
    let f = Fixture::new();
    let ask = |text: &str| json!([{"role": "user", "content": text}]);
    let set = |name: &str, kind: &str, more: Value| {
        let items: Vec<Value> = ["Hello", "How are you today?", "Tell me a story"]
            .iter()
            .map(|text| {
                let mut item = json!({"messages": ask(text)});
                item.as_object_mut()
                    .unwrap()
                    .extend(more.as_object().unwrap().clone());
                item
            })
            .collect();
        json!({"name": name, "kind": kind, "items": items})
    };
    let split = json!({"sets": [
        set("direct", "refuse", json!({})),
        set("jb_role", "jailbreak", json!({})),
        set("benign", "benign", json!({})),
        set("facts", "fact", json!({"answer": "Paris"})),
        set("smalltalk", "smalltalk", json!({})),
        set("perplexity", "perplexity", json!({"reference": "Once there was a fox."})),
    ]});
    let eval = json!({"version": 1, "judge": {"refusal_patterns": ["zzz"], "max_new_tokens": 3},
        "splits": {"test": split, "validation": split}});
    std::fs::write(f.path("eval.json"), eval.to_string()).unwrap();
    let (model, sae, report) = (f.model_dir(), f.path("sae"), f.path("measured.json"));
    std::fs::write(
        &report,
        json!({"source": "kept", "table": "replaced"}).to_string(),
    )
    .unwrap();
    // A gate that holds every prompt back.
    let config: Value =
        serde_json::from_slice(&std::fs::read(f.path("config.json")).unwrap()).unwrap();
    let width = config["hidden_size"].as_u64().unwrap() as usize;
    let gate =
        json!({"hook": "layers.0", "weights": vec![0.0; width], "bias": -20.0, "threshold": 0.5});
    let never = f.path("gate.json");
    std::fs::write(&never, json!({"gate": gate}).to_string()).unwrap();
    let args = [
        "eval",
        "--model",
        &model,
        "--sae",
        &sae,
        "--gate",
        &never,
        "--hook",
        "layers.0",
        "--feature",
        "3",
        "--values",
        "0,2.5",
        "--negative",
        "-1",
        "--controls",
        "1",
        "--lanes",
        "4",
        "--out",
        &report,
    ];
    let table = succeed(&args, "");
    let arms: Vec<&str> = table
        .lines()
        .skip(2)
        .map(|line| line.split('|').nth(1).unwrap().trim())
        .collect();
    assert_eq!(
        arms[..9],
        [
            "base",
            "clamp 0",
            "clamp 2.5",
            "clamp 0, gated",
            "clamp 2.5, gated",
            "ablated",
            "clamp -1",
            "reconstruction, no clamp",
            "clamp 2.5, error dropped"
        ]
    );
    assert!(arms[9].starts_with("random feature ") && arms[9].ends_with(" at 2.5"));
    assert_eq!(arms[10..], ["random direction 1 at 2.5"]);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["source"], "kept");
    assert_eq!(report["feature"], 3);
    assert_eq!(report["base"]["prompts"]["jailbreaks"], 3);
    assert_eq!(report["base"]["refused"]["benign"], 0.0);
    assert_eq!(report["gate"], gate);
    let gated = report["gated"]["table"].as_array().unwrap();
    assert_eq!(gated.len(), 2);
    for row in gated {
        for figure in ["refused", "facts", "perplexity", "coherent"] {
            assert_eq!(row[figure], report["base"][figure], "{figure}");
        }
    }
    let values: Vec<f64> = report["table"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["value"].as_f64().unwrap())
        .collect();
    assert_eq!(values, [0.0, 2.5]);
    // A random model's perplexity is far above 1, and steering changes it.
    let perplexity = |row: &Value| row["perplexity"].as_f64().unwrap();
    assert!(perplexity(&report["base"]) > 5.0);
    assert_ne!(perplexity(&report["base"]), perplexity(&report["table"][1]));
    // What the dictionary is, without the random directions.
    let check = ["check-sae", "--model", &model, "--sae", &sae, "--json"];
    let check: Value = serde_json::from_str(&succeed(&check, "")).unwrap();
    assert_eq!(report["fit"], check);
}

#[test]
fn every_mistake_is_one_sentence_and_exit_code_1() {
    let f = Fixture::new();
    let (model, sae, out) = (f.model_dir(), f.path("sae"), f.path("never.safetensors"));
    let (model, sae, out) = (model.as_str(), sae.as_str(), out.as_str());
    std::fs::write(f.path("bad.json"), "{").unwrap();
    std::fs::write(f.path("y.safetensors"), b"no tensors").unwrap();
    let (bad, nothing) = (f.path("bad.json"), f.path("nowhere"));
    let torn = f.path("y.safetensors");
    let logits = ["logits", "--model", model, "--out", out, "--ids"];
    let steer = [
        "generate", "--model", model, "--prompt", "a", "--sae", sae, "--steer",
    ];
    let long = vec!["5"; POSITIONS + 1].join(",");
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "requires a subcommand"),
        (vec!["explode"], "explode"),
        (vec!["generate", "--model", model], "--prompt TEXT"),
        (
            vec!["generate", "--model", &nothing, "--prompt", "a"],
            "nowhere",
        ),
        (
            vec!["generate", "--model", model, "--prompt", " "],
            "prompt is empty",
        ),
        (
            vec!["generate", "--model", model, "--messages", &bad],
            "no list of messages",
        ),
        (
            vec![
                "generate", "--model", model, "--prompt", "a", "--top-p", "0",
            ],
            "top-p",
        ),
        (
            vec![
                "generate",
                "--model",
                model,
                "--prompt",
                "a",
                "--steer",
                "layers.0:1:clamp:2",
            ],
            "--sae",
        ),
        ([&steer[..], &["layers.0:1:crush:2"]].concat(), "crush"),
        (
            [&steer[..], &["layers.0:101:clamp:2"]].concat(),
            "feature 101",
        ),
        ([&steer[..], &["layers.1:1:clamp:2"]].concat(), "layers.1"),
        ([&logits[..], &["1,x"]].concat(), "\"x\" is no token id"),
        ([&logits[..], &["[]"]].concat(), "no token ids"),
        ([&logits[..], &["1,999999"]].concat(), "999999"),
        ([&logits[..], &[&long]].concat(), "context of 400"),
        (
            [&logits[..], &["1", "--residual", "2"]].concat(),
            "phi3-steer: there is no block 2",
        ),
        (
            vec!["encode", "--sae", sae, "--in", &torn, "--out", out],
            "y.safetensors",
        ),
        (
            vec![
                "eval",
                "--model",
                model,
                "--sae",
                sae,
                "--feature",
                "1",
                "--hook",
                "layers.0",
            ],
            "eval.json",
        ),
        (vec!["eval", "--model", model, "--sae", sae], "give --hook"),
    ];
    for (args, words) in cases {
        let output = run(&args, "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr.starts_with("phi3-steer: "), "{args:?}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    assert!(!Path::new(out).exists());
    for args in [&["--help"][..], &["eval", "--help"], &["help", "logits"]] {
        assert!(succeed(args, "").contains("Examples:"), "{args:?}");
    }
}
