//! Standard output, standard error and what may come in.
#![cfg(unix)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::*;

/// A line for each way in which the command prints.
fn printing<'a>(model: &'a str, sae: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["--help"],
        vec!["logits", "--help"],
        vec!["tokenize", "--model", model],
        vec![
            "generate",
            "--model",
            model,
            "--prompt",
            "Hi",
            "--max-tokens",
            "5",
        ],
        vec![
            "generate",
            "--model",
            model,
            "--prompt",
            "Hi",
            "--max-tokens",
            "5",
            "--json",
        ],
        vec!["check-sae", "--model", model, "--sae", sae],
        vec!["check-sae", "--model", model, "--sae", sae, "--json"],
    ]
}

#[test]
fn a_reader_that_has_gone_is_no_mistake() {
    let f = Fixture::new();
    let (model, sae) = (f.model_dir(), f.path("sae"));
    for args in printing(&model, &sae) {
        let mut child = command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}");
    }
    let logits = ["logits", "--model", &model, "--ids", "1,5", "--out", "-"];
    let mut child = command(&logits)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_full_device_is_said() {
    let f = Fixture::new();
    let (model, sae) = (f.model_dir(), f.path("sae"));
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for args in printing(&model, &sae).split_off(2) {
        let child = command(&args)
            .stdin(Stdio::null())
            .stdout(full())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8(child.stderr).unwrap();
        assert_eq!(child.status.code(), Some(1), "{args:?}: {stderr}");
        let expected = "phi3-steer: standard output cannot be written: No space left on device";
        assert!(stderr.starts_with(expected), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    // Nobody to tell it to.
    let status = command(&["tokenize", "--model", &f.path("nowhere")])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_vulkan_driver_says_nothing_of_its_own() {
    let f = Fixture::new();
    let model = f.model_dir();
    for folder in [None, Some(""), Some("/nonexistent")] {
        let args = [
            "generate",
            "--model",
            &model,
            "--prompt",
            "Hi",
            "--max-tokens",
            "2",
        ];
        let mut command = command(&args);
        if let Some(folder) = folder {
            command.env("XDG_RUNTIME_DIR", folder);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        // Where the visitor names a folder that is not there, that is the visitor's to hear of.
        if folder != Some("/nonexistent") {
            assert_eq!(stderr, "", "{folder:?}");
        }
    }
}

#[test]
fn names_from_outside_do_not_steer_the_terminal() {
    let f = Fixture::new();
    let model = f.model_dir();
    let hostile = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{202e}y";
    std::fs::create_dir_all(f.path(&format!("saes/{hostile}"))).unwrap();
    std::fs::write(f.path(&format!("saes/{hostile}/cfg.json")), "{").unwrap();
    std::fs::write(
        f.path("cfg.json"),
        json!({"hook_name": hostile, "k": 1}).to_string(),
    )
    .unwrap();
    let sae = f.path("sae/layers.0");
    std::fs::rename(f.path("cfg.json"), format!("{sae}/cfg.json")).unwrap();
    let (strange, saes) = (f.path(hostile), f.path("saes"));
    let long = f.path(&"n".repeat(100_000));
    let steer = format!("layers.0:1:{hostile}");
    for args in [
        vec!["tokenize", "--model", &strange],
        vec!["tokenize", "--model", &long],
        vec!["convert", "--model", &model, "--out", &strange, "--hidden"],
        vec!["convert", "--model", &strange, "--out", &strange],
        vec!["check-sae", "--model", &model, "--sae", &saes],
        vec!["check-sae", "--model", &model, "--sae", &sae],
        vec![
            "generate", "--model", &model, "--prompt", "a", "--sae", &sae, "--steer", &steer,
        ],
    ] {
        let output = run(&args, "");
        assert_eq!(output.status.code(), Some(1), "{args:.60?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!stderr.contains(bad), "{stderr:?}");
        assert!(stderr.len() < 20_000, "{} bytes", stderr.len());
    }
}

/// A pipe in the place of a file is an error or is read; it never makes the command wait for ever.
#[test]
fn a_pipe_where_a_file_should_be_is_no_trap() {
    let f = Fixture::new();
    let (model, sae, fifo, out) = (f.model_dir(), f.path("sae"), f.path("fifo"), f.path("out"));
    make_fifo(&fifo);
    let ends = |line: &str| {
        let mut child = command(&words(line))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("{line} waits for ever");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(1), "{line}");
    };
    let check = format!("check-sae --model {model} --sae");
    let convert = format!("convert --model {model} --out {out}");
    ends(&format!("convert --model {fifo} --out {out}"));
    ends(&format!("tokenize --model {fifo}"));
    ends(&format!("encode --sae {sae} --in {fifo} --out {out}"));
    ends(&format!("{check} {fifo}"));
    for (name, line) in [
        ("config.json", &convert),
        ("tokenizer.json", &convert),
        ("model.safetensors", &convert),
        ("sae/layers.0/cfg.json", &format!("{check} {sae}")),
    ] {
        let (place, aside) = (f.path(name), f.path("aside"));
        std::fs::rename(&place, &aside).unwrap();
        std::fs::rename(&fifo, &place).unwrap();
        ends(line);
        std::fs::rename(&place, &fifo).unwrap();
        std::fs::rename(&aside, &place).unwrap();
    }
    // One with a writer is a file of messages as any other.
    let writer = fifo.clone();
    let writing = std::thread::spawn(move || {
        let message = json!([{"role": "user", "content": "Hi"}]);
        std::fs::write(writer, message.to_string()).unwrap();
    });
    done(&format!(
        "generate --model {model} --max-tokens 2 --messages {fifo}"
    ));
    writing.join().unwrap();
}
