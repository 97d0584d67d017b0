//! Ctrl-C and kills in the middle of writing, on Unix.
#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::fixture::*;

/// Starts to write something large, and sends a signal when a part of it is there.
fn interrupted(line: &str, partial: &Path, signal: &str) -> ExitStatus {
    let mut child = command(&words(line))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let some = || {
        let inside = std::fs::read_dir(partial).into_iter().flatten().flatten();
        let mut files = inside
            .map(|entry| entry.path())
            .chain([partial.to_path_buf()]);
        files.any(|file| std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() > 1 << 20))
    };
    while !some() {
        assert!(child.try_wait().unwrap().is_none(), "{line} ended before");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap()
}

#[test]
fn an_interrupt_leaves_nothing_and_a_kill_nothing_that_looks_whole() {
    for (format, out, partial, whole) in [
        (
            "gguf-q4_k_m",
            "big.gguf",
            "big.gguf.phi3-steer-partial",
            "big.gguf",
        ),
        (
            "safetensors",
            "big",
            "big/phi3-steer-partial",
            "big/config.json",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (out, partial) = (dir.path().join(out), dir.path().join(partial));
        let out = out.display();
        let line = format!("synth --like phi-3-mini --format {format} --out {out}");
        for (signal, number) in [("-INT", 2), ("-TERM", 15)] {
            let status = interrupted(&line, &partial, signal);
            assert_eq!(status.signal(), Some(number), "{line}");
            let left = contents(dir.path());
            assert!(left.is_empty(), "{signal}: {:?}", left.keys());
        }
        interrupted(&line, &partial, "-KILL");
        let left: Vec<String> = contents(dir.path()).into_keys().collect();
        assert!(!left.is_empty());
        assert!(
            left.iter().all(|name| name.contains("phi3-steer-")),
            "{left:?}"
        );
        // What a kill left is in nobody's way.
        done(&format!("synth --like nano --format {format} --out {out}"));
        let left: Vec<String> = contents(dir.path()).into_keys().collect();
        assert!(left.contains(&whole.into()), "{left:?}");
        assert!(
            left.iter().all(|name| !name.contains("phi3-steer")),
            "{left:?}"
        );
    }
}

#[test]
fn a_change_that_a_kill_broke_off_is_undone() {
    let f = Fixture::new();
    let (model, out) = (copy(&f, "model"), f.path("out"));
    let line = format!("convert --model {model} --out {out}");
    done(&line);
    let before = contents(Path::new(&out));
    // As it is between the putting aside and the coming of the new.
    let aside = f.path("out/phi3-steer-partial/replaced");
    std::fs::create_dir_all(&aside).unwrap();
    for name in ["config.json", "manifest.json"] {
        std::fs::rename(Path::new(&out).join(name), Path::new(&aside).join(name)).unwrap();
    }
    std::fs::write(f.path("out/config.json"), "of the new one").unwrap();
    assert!(refused(&line).contains("--force"));
    assert!(contents(Path::new(&out)) == before);
    // And when the old ones were not wanted any more.
    let gone = f.path("out/phi3-steer-partial/gone");
    std::fs::create_dir_all(&gone).unwrap();
    std::fs::write(Path::new(&gone).join("config.json"), "of the old one").unwrap();
    assert!(refused(&line).contains("--force"));
    assert!(std::fs::read(f.path("out/config.json")).unwrap() == before["config.json"]);
}
