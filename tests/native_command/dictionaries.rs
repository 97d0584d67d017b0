//! Dictionaries of every format on the command line.

use std::collections::HashMap;
use std::path::Path;

use rand::Rng;
use serde_json::Value;

use crate::fixture::*;

/// Formats, whether they are TopK's, and a file of theirs that stands for the dictionary.
const FORMATS: [(&str, bool, &str); 10] = [
    ("sparsify", true, "cfg.json"),
    ("saelens-standard", false, "sae_weights.safetensors"),
    ("saelens-topk", true, "cfg.json"),
    ("saelens-jumprelu", false, "cfg.json"),
    ("saelens-gated", false, "sae_weights.safetensors"),
    ("saex", false, "sae_weights.safetensors"),
    ("saex-gated", false, "cfg.json"),
    ("gemma-scope", false, "params.npz"),
    ("gemma-scope2", false, "params.safetensors"),
    ("llama-scope", false, "checkpoints/final.safetensors"),
];

/// Encodes with a dictionary: activations and reconstructions.
fn encode(f: &Fixture, sae: &str, input: &str) -> HashMap<String, Tensor> {
    let out = f.path("acts.safetensors");
    let args = ["encode", "--sae", sae, "--in", input, "--out", &out];
    succeed(&args, "");
    read(Path::new(&out))
}

/// The largest difference, over the largest number.
fn off(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let pairs = got.iter().zip(expected);
    let off = pairs.fold(0.0f64, |m, (g, e)| m.max((f64::from(*g) - e).abs()));
    off / largest
}

#[test]
fn one_dictionary_encodes_alike_in_every_format() {
    let mut f = Fixture::new();
    let n = 9;
    let x: Vec<f32> = (0..n * HIDDEN)
        .map(|_| f.rng.random_range(-2.0..2.0))
        .collect();
    let input = f.path("x.bin");
    let tensors = HashMap::from([("x".to_string(), (vec![n, HIDDEN], x.clone()))]);
    write(Path::new(&input), &tensors);
    // ReLU's activations and reconstructions in f64.
    let wide = |v: &f32| f64::from(*v);
    let (mut acts, mut recon) = (Vec::new(), Vec::new());
    for row in x.chunks(HIDDEN) {
        let mut y: Vec<f64> = f.sae["b_dec"].1.iter().map(wide).collect();
        let latents = f.sae["encoder.weight"].1.chunks(HIDDEN);
        for (i, weights) in latents.enumerate() {
            let input = row.iter().zip(&f.sae["b_dec"].1);
            let products = weights.iter().zip(input);
            let sum: f64 = products
                .map(|(w, (x, b))| wide(w) * (wide(x) - wide(b)))
                .sum();
            let a = (sum + wide(&f.sae["encoder.bias"].1[i])).max(0.0);
            acts.push(a);
            let d = &f.sae["W_dec"].1[i * HIDDEN..][..HIDDEN];
            y.iter_mut().zip(d).for_each(|(y, d)| *y += a * wide(d));
        }
        recon.extend(y);
    }
    let from = f.path("sae/layers.0");
    let original = encode(&f, &f.path("sae"), &input);
    for (format, topk, file) in FORMATS {
        let out = f.path(format);
        let args = [
            "synth-sae",
            "--format",
            format,
            "--from",
            &from,
            "--out",
            &out,
        ];
        let args = [&args[..], &["--hook", "layers.0"]].concat();
        let folder = succeed(&args, "");
        let file = Path::new(folder.trim()).join(file);
        // By the folder above, and by one of its files.
        for path in [out.as_str(), file.to_str().unwrap()] {
            let got = encode(&f, path, &input);
            if topk {
                let expected: Vec<f64> = original["acts"].1.iter().map(wide).collect();
                assert!(off(&got["acts"].1, &expected) < 1e-5, "{format}");
            } else {
                assert!(off(&got["acts"].1, &acts) < 1e-5, "{format}");
                assert!(off(&got["recon"].1, &recon) < 1e-5, "{format}");
            }
        }
    }
    // The same of random numbers: TopK's list is full, others are partly active.
    for (format, topk, _) in FORMATS {
        let out = f.path("random");
        let width = HIDDEN.to_string();
        let args = ["synth-sae", "--format", format, "--width", &width];
        let args = [&args[..], &["--latents", "300", "--k", "9", "--out", &out]].concat();
        succeed(&args, "");
        let got = encode(&f, &out, &input);
        let active = got["acts"].1.iter().filter(|a| **a != 0.0).count();
        assert!(got["acts"].1.iter().all(|a| a.is_finite()), "{format}");
        match topk {
            true => assert_eq!(active, n * 9, "{format}"),
            false => assert!(active > 0 && active < n * 300, "{format}: {active}"),
        }
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn dictionaries_that_cannot_be_read_are_refused() {
    let f = Fixture::new();
    let (input, out) = (f.path("x.bin"), f.path("acts.safetensors"));
    let tensors = HashMap::from([("x".to_string(), (vec![1, HIDDEN], vec![0.0; HIDDEN]))]);
    write(Path::new(&input), &tensors);
    std::fs::create_dir_all(f.path("torch")).unwrap();
    std::fs::write(f.path("torch/trainer_0.pt"), b"PK").unwrap();
    for (sae, word) in [
        ("torch", "weights_only=True"),
        ("torch/trainer_0.pt", "weights_only=True"),
        ("config.json", "not the file of a dictionary"),
        ("nowhere", "no folder"),
    ] {
        let sae = f.path(sae);
        let args = ["encode", "--sae", &sae, "--in", &input, "--out", &out];
        let output = run(&args, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{sae}");
        assert!(stderr.contains(word), "{sae}: {stderr}");
    }
}

#[test]
fn the_rows_that_are_steered_do_for_steering() {
    let mut f = Fixture::new();
    let ids = f.ids(12);
    let from = f.path("sae/layers.0");
    let out = f.path("relu");
    let args = [
        "synth-sae",
        "--format",
        "saex",
        "--from",
        &from,
        "--out",
        &out,
    ];
    let args = [&args[..], &["--hook", "layers.0"]].concat();
    succeed(&args, "");
    let feature = f.rng.random_range(0..LATENTS);
    let steer = format!("layers.0:{feature}:clamp:3");
    let args = [
        "--quant",
        "none",
        "--residual",
        "0",
        "--sae",
        &out,
        "--steer",
        &steer,
    ];
    let whole = f.logits(&ids, &args);
    let some = f.logits(&ids, &[&args[..], &["--sae-rows"]].concat());
    let expected: Vec<f64> = whole["residual.0"]
        .1
        .iter()
        .map(|v| f64::from(*v))
        .collect();
    assert!(off(&some["residual.0"].1, &expected) < 1e-6);
    // A hook point that the files do not name.
    let elsewhere = steer.replace("layers.0", "layers.1");
    let args = [
        "--quant",
        "none",
        "--residual",
        "1",
        "--sae",
        &out,
        "--steer",
        &elsewhere,
    ];
    let moved = f.logits(&ids, &[&args[..], &["--sae-anywhere"]].concat());
    let base = f.logits(&ids, &["--quant", "none", "--residual", "1"]);
    assert_ne!(moved["residual.1"].1, base["residual.1"].1);
}

#[test]
fn the_nano_dictionary_fits_its_hook_point_and_no_other() {
    let (model, sae) = (nano(""), nano("sae"));
    let (model, sae) = (model.to_str().unwrap(), sae.to_str().unwrap());
    let check = |more: &[&str]| -> Value {
        let args = ["check-sae", "--model", model, "--sae", sae, "--json"];
        serde_json::from_str(&succeed(&[&args[..], more].concat(), "")).unwrap()
    };
    let test = check(&[]);
    assert_eq!(test["verdict"]["kind"], "fits", "{test}");
    assert_eq!(test["fit"]["hook"], "layers.3");
    assert_eq!(test["fit"]["l0"], 24.0);
    let fvu = test["fit"]["fvu"].as_f64().unwrap();
    assert!(fvu > 0.1 && fvu < 0.4, "{fvu}");
    // As the shipped report says, which eval wrote.
    let shipped = std::fs::read(nano("report.json")).unwrap();
    let shipped: Value = serde_json::from_slice(&shipped).unwrap();
    let shipped = &shipped["fit"];
    assert_eq!(shipped["verdict"], test["verdict"]);
    assert_eq!(shipped["sentence"], test["sentence"]);
    assert!(
        (shipped["fit"]["fvu"].as_f64().unwrap() - fvu).abs() < 0.01,
        "{shipped}"
    );
    // Eight bits cost next to nothing.
    let packed = check(&["--storage", "q8"])["fit"]["fvu"].as_f64().unwrap();
    assert!((packed - fvu).abs() < 0.01, "{packed}, {fvu}");
    // Wherever it is put, also far from where it belongs.
    for place in ["layers.4", "layers.0", "layers.1"] {
        let moved = check(&["--at", place]);
        assert_eq!(moved["verdict"]["kind"], "elsewhere", "{place}: {moved}");
        assert_eq!(moved["verdict"]["hook"], "layers.3", "{place}: {moved}");
    }
    // Another dictionary of the same shape fits nowhere.
    let f = Fixture::new();
    let random = f.path("random");
    let args = [
        "synth-sae",
        "--format",
        "saex",
        "--width",
        "192",
        "--latents",
        "400",
    ];
    succeed(
        &[&args[..], &["--hook", "layers.3", "--out", &random]].concat(),
        "",
    );
    let args = ["check-sae", "--model", model, "--sae", &random, "--json"];
    let test: Value = serde_json::from_str(&succeed(&args, "")).unwrap();
    assert_eq!(test["verdict"]["kind"], "nowhere", "{test}");
}

#[test]
fn directions_come_from_a_file_and_need_no_dictionary() {
    let mut f = Fixture::new();
    let ids = f.ids(8);
    let mine: Vec<f32> = (0..HIDDEN).map(|_| f.rng.random_range(-1.0..1.0)).collect();
    let file = f.path("directions.safetensors");
    let one =
        |name: &str, shape: Vec<usize>| HashMap::from([(name.to_string(), (shape, mine.clone()))]);
    write(Path::new(&file), &one("layers.0:mine", vec![HIDDEN]));
    let args = ["--quant", "none", "--residual", "0"];
    let base = f.logits(&ids, &args);
    let steer = [
        "--directions",
        &file,
        "--steer",
        "layers.0:@mine:add:2.5:+bos",
    ];
    let steered = f.logits(&ids, &[&args[..], &steer].concat());
    let pairs = base["residual.0"].1.iter().zip(mine.iter().cycle());
    let expected: Vec<f64> = pairs
        .map(|(h, d)| f64::from(*h) + 2.5 * f64::from(*d))
        .collect();
    assert!(off(&steered["residual.0"].1, &expected) < 1e-6);

    let generate = format!(
        "generate --model {} --prompt a --directions {file}",
        f.model_dir()
    );
    let unknown = refused(&format!("{generate} --steer layers.0:@other:add:1"));
    assert!(unknown.contains("there are layers.0:@mine"), "{unknown}");
    for (name, shape, word) in [
        ("mine", vec![HIDDEN], "called HOOK:NAME"),
        ("mlp.0:mine", vec![HIDDEN], "mlp.0"),
        ("layers.9:mine", vec![HIDDEN], "no block 9"),
        ("layers.0:mine", vec![HIDDEN / 2, 2], "[32, 2]"),
        ("layers.0:a/b", vec![HIDDEN], "a/b"),
    ] {
        write(Path::new(&file), &one(name, shape));
        let message = refused(&format!("{generate} --steer layers.0:@mine:add:1"));
        assert!(
            message.contains("directions.safetensors") && message.contains(word),
            "{message}"
        );
    }
}
