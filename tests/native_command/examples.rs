//! The examples of the README and of `--help` run as they are written, and steering shows in them.
#![cfg(unix)]

use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use phi3_steer::lab::Judge;

use crate::fixture::{nano, succeed, write};

/// Commands of a text: lines that begin with one of `starts` after `indent`, with their continuations.
fn commands(text: &str, indent: &str, starts: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix(indent) else {
            open = false;
            continue;
        };
        let more = line.trim_end_matches('\\').trim();
        if let (true, Some(last)) = (open, all.last_mut()) {
            last.push(' ');
            last.push_str(more);
        } else if starts.iter().any(|start| line.starts_with(start)) {
            all.push(more.into());
        } else {
            continue;
        }
        open = line.ends_with('\\');
    }
    all
}

/// A folder with what the examples name, and the command on its own path.
fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    symlink(nano("").parent().unwrap(), at("models")).unwrap();
    symlink(nano("sae"), at("saes")).unwrap();
    let messages = r#"[{"role": "user", "content": "Hi"}]"#;
    std::fs::write(at("chat.json"), messages).unwrap();
    std::fs::write(at("prompts.txt"), "Hi\nWhat is the capital of France?\n").unwrap();
    let x = (
        vec![3, 192],
        (0..3 * 192).map(|i| (i as f32).sin()).collect(),
    );
    write(&at("x.safetensors"), &HashMap::from([("x".to_string(), x)]));
    std::fs::create_dir(at("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\nexec '{}' --cpu-adapter \"$@\"\n",
        env!("CARGO_BIN_EXE_phi3-steer")
    );
    std::fs::write(at("bin/phi3-steer"), script).unwrap();
    std::fs::set_permissions(at("bin/phi3-steer"), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

fn shell(place: &Path, line: &str) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {line}")])
        .current_dir(place)
        .env("PATH", format!("{}:{path}", place.join("bin").display()))
        .output()
        .unwrap()
}

/// What takes long, or needs files that are not here.
fn is_left_out(line: &str) -> bool {
    [
        " eval ",
        " lab ",
        "Phi-3",
        "smollm2",
        "--like",
        "3072",
        "help ",
        "--directions",
    ]
    .iter()
    .any(|part| line.contains(part))
}

#[test]
fn examples_run_and_show_steering() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split("## The native command").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut all = commands(section, "    ", &["phi3-steer"]);
    assert!(all.len() >= 8, "{all:?}");
    let subcommands = [
        "",
        "tokenize",
        "logits",
        "encode",
        "generate",
        "eval",
        "convert",
        "synth",
        "check-sae",
        "synth-sae",
        "train-sae",
    ];
    for name in subcommands {
        let help = succeed(&["help", name][..1 + usize::from(!name.is_empty())], "");
        let examples = help.split("Examples:\n").nth(1).unwrap();
        let found = commands(examples, "  ", &["phi3-steer", "echo"]);
        assert!(!found.is_empty(), "{name}");
        all.extend(found);
    }
    let judge = Judge::shipped().unwrap();
    let place = place();
    let (mut ran, mut steered) = (0, 0);
    for line in &all {
        // Every example that names a feature of the shipped dictionary names the one that refuses.
        if let Some(what) = line.split("layers.3:").nth(1) {
            assert!(what.starts_with("329") || what.starts_with('@'), "{line}");
        }
        if is_left_out(line) {
            continue;
        }
        let output = shell(place.path(), line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        ran += 1;
        let words: Vec<&str> = line.split(' ').collect();
        let steer = words.iter().position(|word| *word == "--steer");
        if let (true, Some(at)) = (line.contains(" generate "), steer) {
            let without = [&words[..at], &words[at + 2..]].concat().join(" ");
            let base = shell(place.path(), &without);
            let refuses = |output: &Output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (judge.refusal(&text).is_some(), text)
            };
            let ((yes, with), (no, without)) = (refuses(&output), refuses(&base));
            assert!(yes && !no, "{line}\nsteered: {with}\nbase: {without}");
            steered += 1;
        }
    }
    println!(
        "{ran} of {} examples ran, {steered} of them steered",
        all.len()
    );
    assert!(ran >= 12 && steered >= 3);
}
