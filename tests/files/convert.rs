//! `phi3-steer convert` and `synth`: the nano model in every format is the same model, what is
//! written says truly what it is, and nothing that is cut off looks whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use phi3_steer::checkpoint::{BLOCK_BYTES, CheckpointError, Folder};
use phi3_steer::phi3::{Config, ModelFiles};
use phi3_steer::quant::{Format, Planes};
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano")
}

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn command(arguments: &[&str], paths: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-steer"));
    command.args(arguments).stdin(Stdio::null());
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    command
}

#[track_caller]
fn run(arguments: &[&str], paths: &[(&str, &Path)]) -> Output {
    let output = command(arguments, paths).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    output
}

/// The sentence with which a command fails.
#[track_caller]
fn refused(arguments: &[&str], paths: &[(&str, &Path)]) -> String {
    let output = command(arguments, paths).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

fn open(path: &Path) -> ModelFiles {
    let folder = if path.is_file() {
        Folder::file(path)
    } else {
        Folder::directory(path)
    };
    block_on(ModelFiles::open(&folder)).unwrap()
}

/// The configuration as a GGUF file has it, which says nothing of what plain numbers become.
fn sizes(files: &ModelFiles) -> Config {
    Config {
        quantization: None,
        ..files.config.clone()
    }
}

/// The shapes of the nano model's tensors.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let nano = open(&nano()).checkpoint;
    let shape = |name: &str| nano.info(name).unwrap().shape.clone();
    nano.names()
        .map(|name| (name.into(), shape(name)))
        .collect()
}

/// A matrix as planes.
fn planes(files: &ModelFiles, name: &str, shape: [usize; 2], format: Format) -> Planes {
    let mut reader = files.checkpoint.planes(name, shape, format).unwrap();
    let mut all = Planes::new(reader.format());
    while let Some((_, planes)) = block_on(reader.next()).unwrap() {
        all.words.extend_from_slice(&planes.words);
        all.side.extend_from_slice(&planes.side);
    }
    all
}

/// A tensor as f32.
fn numbers(files: &ModelFiles, name: &str, shape: &[usize]) -> Vec<f32> {
    let mut all = Vec::new();
    let rows = files.checkpoint.rows(name, shape, BLOCK_BYTES, |_, rows| {
        all.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    });
    block_on(rows).unwrap();
    all
}

#[test]
fn a_converted_model_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    for (quant, format) in [("q4", Format::Q4), ("q8", Format::Q8)] {
        let out = dir.path().join(quant);
        run(
            &["convert", "--quant", quant],
            &[("--model", &nano()), ("--out", &out)],
        );
        let (before, after) = (open(&nano()), open(&out));
        assert_eq!(before.config, after.config);
        for (name, shape) in shapes() {
            match <[usize; 2]>::try_from(shape.clone()) {
                Ok(shape) => {
                    let expected = planes(&before, &name, shape, format);
                    // The file's own format, whichever is asked for.
                    let got = planes(&after, &name, shape, Format::F32);
                    assert_eq!(got, expected, "{name}");
                }
                Err(_) => {
                    let expected = numbers(&before, &name, &shape);
                    assert_eq!(numbers(&after, &name, &shape), expected, "{name}");
                }
            }
        }
        let ids = |files: &ModelFiles| {
            let tokenizer = block_on(files.tokenizer()).unwrap();
            tokenizer.encode("How do I bake bread in Zürich?").unwrap()
        };
        assert_eq!(ids(&before), ids(&after));
    }
}

#[test]
fn the_manifest_tells_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("nano");
    run(&["convert"], &[("--model", &nano()), ("--out", &out)]);
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["format"], "phi3-steer-planes-1");
    let mut listed: Vec<&str> = vec!["manifest.json"];
    for file in manifest["files"].as_array().unwrap() {
        let name = file["name"].as_str().unwrap();
        let bytes = fs::read(out.join(name)).unwrap();
        assert!(bytes.len() <= 64 << 20);
        assert_eq!(file["bytes"], bytes.len(), "{name}");
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(file["sha256"], hash, "{name}");
        listed.push(name);
    }
    listed.sort_unstable();
    let mut there: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort_unstable();
    assert_eq!(there, listed);
}

#[test]
fn a_converted_model_has_the_same_logits() {
    let mut rng = seeded("logits");
    let dir = tempfile::tempdir().unwrap();
    let gguf = dir.path().join("nano.gguf");
    let synth = ["synth", "--format", "gguf-q4_k_m"];
    run(&synth, &[("--weights", &nano()), ("--out", &gguf)]);
    let ids: Vec<String> = (0..9)
        .map(|_| rng.random_range(0..3072).to_string())
        .collect();
    let ids = ids.join(",");
    let logits = |model: &Path| {
        let out = dir.path().join("logits.safetensors");
        let arguments = ["logits", "--cpu-adapter", "--ids", &ids];
        run(&arguments, &[("--model", model), ("--out", &out)]);
        fs::read(out).unwrap()
    };
    let originals = [nano(), gguf].map(|model| {
        let out = dir.path().join("planes");
        run(
            &["convert", "--force"],
            &[("--model", &model), ("--out", &out)],
        );
        let before = logits(&model);
        assert_eq!(logits(&out), before, "{}", model.display());
        before
    });
    assert_ne!(originals[0], originals[1], "both are the same model");
}

#[test]
fn converting_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = dir.path().join("nano.gguf");
    let synth = ["synth", "--like", "nano", "--format", "gguf-q4_k_m"];
    run(&synth, &[("--out", &gguf)]);
    let [once, twice] = ["once", "twice"].map(|name| dir.path().join(name));
    run(&["convert"], &[("--model", &gguf), ("--out", &once)]);
    run(&["convert"], &[("--model", &once), ("--out", &twice)]);
    let manifest = |out: &Path| fs::read_to_string(out.join("manifest.json")).unwrap();
    assert_eq!(manifest(&once), manifest(&twice));
}

#[test]
fn nothing_is_written_over_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("nano");
    let nano = nano();
    let paths = [("--model", nano.as_path()), ("--out", out.as_path())];
    run(&["convert"], &paths);
    assert!(refused(&["convert"], &paths).contains("--force"));
    run(&["convert", "--force", "--quant", "q8"], &paths);
    assert!(open(&out).checkpoint.names().count() > 10);
    let own = [("--model", out.as_path()), ("--out", out.as_path())];
    assert!(refused(&["convert", "--force"], &own).contains("choose another place"));
    let file = dir.path().join("nano.gguf");
    let synth = ["synth", "--like", "nano", "--format", "gguf-q4_0"];
    run(&synth, &[("--out", &file)]);
    assert!(refused(&synth, &[("--out", &file)]).contains("--force"));
    let unknown = ["synth", "--like", "nano", "--format", "gguf-q3_k"];
    assert!(refused(&unknown, &[("--out", &file)]).contains("gguf-q4_k_m"));
}

#[test]
fn a_conversion_that_is_killed_leaves_nothing_that_looks_whole() {
    let mut rng = seeded("killed");
    let dir = tempfile::tempdir().unwrap();
    let mut cut = 0;
    for i in 0..12 {
        let out = dir.path().join(i.to_string());
        let mut child = command(&["convert"], &[("--model", &nano()), ("--out", &out)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        child.kill().unwrap();
        child.wait().unwrap();
        if out.join("config.json").exists() {
            // Whole, then: every tensor is there.
            let files = open(&out);
            for (name, shape) in shapes() {
                assert!(!numbers(&files, &name, &shape).is_empty());
            }
        } else {
            assert!(!out.join("manifest.json").exists());
            let folder = Folder::directory(&out);
            assert!(block_on(ModelFiles::open(&folder)).is_err());
            cut += 1;
        }
    }
    println!("{cut} of 12 were cut off");
}

/// The largest error of each encoding, of the root mean square of a tensor.
fn tolerances() -> BTreeMap<&'static str, f64> {
    BTreeMap::from([
        ("safetensors", 0.0),
        ("gguf-f32", 0.0),
        ("gguf-bf16", 0.0),
        ("gguf-f16", 1e-3),
        ("gguf-q8_0", 0.01),
        ("gguf-q6_k", 0.04),
        ("gguf-q5_1", 0.08),
        ("gguf-q5_0", 0.08),
        ("gguf-q5_k", 0.08),
        ("gguf-q4_1", 0.15),
        ("gguf-q4_0", 0.15),
        ("gguf-q4_k", 0.15),
        ("gguf-q4_k_m", 0.15),
        ("planes", 0.15),
    ])
}

#[test]
fn the_nano_model_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let before = open(&nano());
    let text = "Tell me about <tea> & Zürich's  lake.\n\tÇa va? 你好";
    let tokenizer = |files: &ModelFiles| block_on(files.tokenizer()).unwrap();
    let ids = tokenizer(&before).encode(text).unwrap();
    for (format, tolerance) in tolerances() {
        let out = dir.path().join(format);
        run(
            &["synth", "--format", format],
            &[("--weights", &nano()), ("--out", &out)],
        );
        let out = match format.starts_with("gguf") {
            true => {
                let named = out.with_extension("gguf");
                fs::rename(&out, &named).unwrap();
                named
            }
            false => out,
        };
        let after = open(&out);
        assert_eq!(sizes(&after), sizes(&before), "{format}");
        assert_eq!(tokenizer(&after).encode(text).unwrap(), ids, "{format}");
        for (name, shape) in shapes() {
            let expected = numbers(&before, &name, &shape);
            let got = numbers(&after, &name, &shape);
            let square = |all: &mut dyn Iterator<Item = f64>| all.map(|x| x * x).sum::<f64>();
            let off = expected.iter().zip(&got).map(|(a, b)| f64::from(a - b));
            let (off, size) = (
                square(&mut { off }),
                square(&mut expected.iter().map(|x| f64::from(*x))),
            );
            let error = (off / size).sqrt();
            assert!(error <= tolerance, "{format}, {name}: {error}");
        }
    }
}

#[test]
fn long_rotary_factors_travel() {
    let mut rng = seeded("factors");
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long");
    fs::create_dir(&long).unwrap();
    for name in [
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(nano().join(name), long.join(name)).unwrap();
    }
    let config = fs::read(nano().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    // Factors that f32 holds exactly, as GGUF has them.
    let mut factors = || -> Vec<f64> {
        let mut factor = || f64::from(rng.random_range(64..600)) / 64.0;
        (0..48).map(|_| factor()).collect()
    };
    config["max_position_embeddings"] = 4096.into();
    config["rope_scaling"] = serde_json::json!({
        "type": "longrope", "short_factor": factors(), "long_factor": factors()
    });
    fs::write(long.join("config.json"), config.to_string()).unwrap();
    let before = open(&long);
    assert_ne!(before.config, open(&nano()).config);
    let gguf = dir.path().join("long.gguf");
    let synth = ["synth", "--format", "gguf-q8_0"];
    run(&synth, &[("--weights", &long), ("--out", &gguf)]);
    assert_eq!(sizes(&open(&gguf)), sizes(&before));
    let planes = dir.path().join("planes");
    run(&["convert"], &[("--model", &gguf), ("--out", &planes)]);
    assert_eq!(sizes(&open(&planes)), sizes(&before));
}

#[test]
fn random_models_are_whole_and_repeat() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["safetensors", "planes", "gguf-q4_k_m", "gguf-f16"] {
        let [one, two] = ["one.gguf", "two.gguf"].map(|name| dir.path().join(format).join(name));
        fs::create_dir(dir.path().join(format)).unwrap();
        let arguments = ["synth", "--like", "nano", "--format", format, "--seed", "7"];
        run(&arguments, &[("--out", &one)]);
        run(&arguments, &[("--out", &two)]);
        let [first, second] = [&one, &two].map(|path| open(path));
        assert_eq!(first.config.vocab_size, 3072);
        for (name, shape) in shapes() {
            let values = numbers(&first, &name, &shape);
            assert!(values.iter().any(|v| *v != values[0]), "{format}: {name}");
            assert_eq!(values, numbers(&second, &name, &shape), "{format}: {name}");
        }
        let tokenizer = block_on(first.tokenizer()).unwrap();
        let ids = tokenizer.encode("Hello").unwrap();
        assert!(!ids.is_empty() && ids.iter().all(|id| *id < 3072));
    }
}
