//! Links, devices, modes, locks: what a place can be, on Unix.
#![cfg(unix)]

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fixture::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn links_into_the_target_are_noticed_and_links_stay() {
    let f = Fixture::new();
    let (model, out) = (copy(&f, "model"), f.path("out"));
    done(&format!(
        "synth --weights {model} --format safetensors --out {out}"
    ));
    let before = contents(Path::new(&out));
    // All files, one file, the folder itself.
    let all = f.path("all");
    std::fs::create_dir(&all).unwrap();
    for name in before.keys() {
        symlink(Path::new(&out).join(name), Path::new(&all).join(name)).unwrap();
    }
    let one = copy(&f, "one");
    let weights = Path::new(&one).join("model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    symlink(Path::new(&out).join("model.safetensors"), &weights).unwrap();
    let whole = f.path("whole");
    symlink(&out, &whole).unwrap();
    for source in [&all, &one, &whole] {
        for target in [&out, &whole] {
            for line in [
                format!("convert --model {source} --force --out {target}"),
                format!("synth --format safetensors --weights {source} --force --out {target}"),
            ] {
                let refusal = refused(&line);
                assert!(refusal.contains("choose another place"), "{refusal}");
                assert!(contents(Path::new(&out)) == before, "{line}");
            }
        }
    }
    // Through a link to a folder, with a link in it that goes: what it leads to stays.
    let aside = f.path("aside.json");
    std::fs::rename(Path::new(&out).join("config.json"), &aside).unwrap();
    symlink(&aside, Path::new(&out).join("config.json")).unwrap();
    done(&format!("convert --model {model} --out {whole} --force"));
    assert!(Path::new(&whole).is_symlink());
    assert!(!Path::new(&out).join("config.json").is_symlink());
    assert_eq!(std::fs::read(&aside).unwrap(), before["config.json"]);

    // A file through a link, relative and over another.
    let (to, link, far) = (f.path("real.gguf"), f.path("link.gguf"), f.path("far.gguf"));
    std::fs::write(&to, "old").unwrap();
    symlink("real.gguf", &link).unwrap();
    symlink(&link, &far).unwrap();
    let synth = format!("synth --weights {model} --format gguf-q8_0 --out");
    assert!(refused(&format!("{synth} {far}")).contains("--force"));
    done(&format!("{synth} {far} --force"));
    assert!(Path::new(&far).is_symlink() && Path::new(&link).is_symlink());
    assert_eq!(&std::fs::read(&to).unwrap()[..4], b"GGUF");
    let dangling = f.path("dangling.gguf");
    symlink(f.path("nothing.gguf"), &dangling).unwrap();
    let refusal = refused(&format!("{synth} {dangling} --force"));
    assert!(refusal.contains("a link to something"), "{refusal}");
    assert!(!Path::new(&f.path("nothing.gguf")).exists());
}

#[test]
fn other_peoples_names_are_left_alone() {
    let f = Fixture::new();
    let (model, out) = (copy(&f, "model"), f.path("a.gguf"));
    let victim = f.path("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::fs::write(f.path("a.gguf.part"), "mine").unwrap();
    symlink(&victim, f.path("a.gguf.phi3-steer-partial")).unwrap();
    let synth = format!("synth --weights {model} --format gguf-q8_0 --out {out}");
    done(&synth);
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    assert_eq!(std::fs::read(f.path("a.gguf.part")).unwrap(), b"mine");
    assert!(!Path::new(&f.path("a.gguf.phi3-steer-partial")).exists());
    // A lock that is a link leads nowhere.
    symlink(f.path("made"), f.path(".a.gguf.phi3-steer-lock")).unwrap();
    assert!(refused(&format!("{synth} --force")).contains("in the way"));
    assert!(!Path::new(&f.path("made")).exists());
}

#[test]
fn new_files_have_the_usual_mode_and_old_ones_keep_theirs() {
    let f = Fixture::new();
    let (model, sae) = (f.model_dir(), f.path("sae"));
    std::fs::write(f.path("usual"), "").unwrap();
    let usual = mode(Path::new(&f.path("usual")));
    let (logits, acts) = (f.path("logits.safetensors"), f.path("acts.safetensors"));
    let (gguf, out) = (f.path("m.gguf"), f.path("out"));
    let line = format!("logits --model {model} --ids 1,5 --residual 0 --out {logits}");
    done(&line);
    done(&format!("encode --sae {sae} --in {logits} --out {acts}"));
    done(&format!(
        "synth --weights {model} --format gguf-q8_0 --out {gguf}"
    ));
    done(&format!("convert --model {model} --out {out}"));
    let mut written: Vec<PathBuf> = [&logits, &acts, &gguf].map(PathBuf::from).into();
    written.extend(std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().path()));
    assert!(written.len() > 6);
    for path in written {
        assert_eq!(mode(&path), usual, "{}", path.display());
    }
    std::fs::set_permissions(&logits, PermissionsExt::from_mode(0o604)).unwrap();
    done(&line);
    assert_eq!(mode(Path::new(&logits)), 0o604);
}

#[test]
fn pipes_and_devices_get_the_bytes_and_stay() {
    let mut f = Fixture::new();
    let (model, sae, ids) = (f.model_dir(), f.path("sae"), f.ids(5));
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let logits = format!("logits --model {model} --ids {ids} --out");
    let file = f.path("logits.safetensors");
    done(&format!("{logits} {file}"));
    let expected = std::fs::read(&file).unwrap();
    for stdout in ["-", "/dev/stdout"] {
        let output = run(&words(&format!("{logits} {stdout}")), "");
        assert!(output.status.success());
        assert!(output.stdout == expected, "{stdout}");
    }
    let fifo = f.path("fifo");
    make_fifo(&fifo);
    let reader = fifo.clone();
    let reader = std::thread::spawn(move || std::fs::read(reader).unwrap());
    done(&format!("{logits} {fifo}"));
    assert!(reader.join().unwrap() == expected);
    let kind = std::fs::metadata(&fifo).unwrap().file_type();
    assert!(kind.is_fifo());
    // Standard output that is a file itself, written on to.
    let log = f.path("log");
    std::fs::write(&log, "before").unwrap();
    let appended = std::fs::OpenOptions::new().append(true).open(&log);
    let line = format!("{logits} /dev/stdout");
    let status = command(&words(&line)).stdout(appended.unwrap()).status();
    assert!(status.unwrap().success());
    assert!(std::fs::read(&log).unwrap() == [b"before", &expected[..]].concat());

    let devices = || {
        ["/dev/null", "/dev/full"].map(|path| {
            let found = std::fs::symlink_metadata(path).unwrap();
            (
                found.ino(),
                found.mode(),
                found.file_type().is_char_device(),
            )
        })
    };
    let before = devices();
    assert!(before[0].2 && before[1].2);
    done(&format!("{logits} /dev/null"));
    let full = refused(&format!("{logits} /dev/full"));
    assert!(
        full.contains("/dev/full cannot be written: No space"),
        "{full}"
    );
    assert_eq!(devices(), before);

    let socket = f.path("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (place, words) in [
        (socket.as_str(), "neither a file nor a pipe"),
        (&sae, "is a folder"),
        (&f.path("nowhere/x"), "cannot be written"),
    ] {
        let refusal = refused(&format!("{logits} {place}"));
        assert!(refusal.contains(words), "{refusal}");
    }
    // A report is added to, and a model is a folder: these are no pipes.
    std::fs::copy(nano("eval.json"), f.path("eval.json")).unwrap();
    let eval = format!("eval --model {model} --sae {sae} --hook layers.0 --feature 1");
    assert!(refused(&format!("{eval} --out /dev/null")).contains("no plain file"));
    refused(&format!("convert --model {model} --out /dev/null --force"));
    assert_eq!(devices(), before);
}

#[test]
fn two_writers_do_not_mix() {
    let f = Fixture::new();
    let (model, out, gguf) = (copy(&f, "model"), f.path("out"), f.path("m.gguf"));
    let convert = format!("convert --model {model} --out {out} --force");
    let synth = format!("synth --weights {model} --format gguf-q8_0 --out {gguf} --force");
    done(&convert);
    done(&synth);
    for (line, lock) in [
        (&convert, f.path("out/.phi3-steer-lock")),
        (&synth, f.path(".m.gguf.phi3-steer-lock")),
    ] {
        let before = contents(f.dir.path());
        let held = std::fs::File::create(&lock).unwrap();
        held.lock().unwrap();
        let refusal = refused(line);
        assert!(refusal.contains("being written by another"), "{refusal}");
        drop(held);
        std::fs::remove_file(&lock).unwrap();
        assert!(contents(f.dir.path()) == before, "{line}");
    }
    // Many at once: each writes all of it or nothing.
    let children = (0..5).map(|_| {
        let mut child = command(&words(&convert));
        child.stdout(Stdio::null()).stderr(Stdio::piped());
        child.spawn().unwrap()
    });
    let mut whole = 0;
    for child in children.collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => whole += 1,
            _ => assert!(stderr.contains("another phi3-steer"), "{stderr}"),
        }
    }
    assert!(whole > 0);
    let names: Vec<String> = contents(Path::new(&out)).into_keys().collect();
    assert!(
        names.iter().all(|name| !name.contains("phi3-steer")),
        "{names:?}"
    );
}

#[test]
fn a_full_disk_leaves_nothing() {
    let f = Fixture::new();
    let (model, old) = (copy(&f, "model"), f.path("old.gguf"));
    std::fs::write(&old, "old").unwrap();
    let before = contents(f.dir.path());
    let (new, out) = (f.path("new.gguf"), f.path("new"));
    for line in [
        format!("synth --weights {model} --format gguf-f32 --out {new}"),
        format!("synth --weights {model} --format gguf-f32 --out {old} --force"),
        format!("synth --weights {model} --format safetensors --out {out}"),
        format!("convert --model {model} --out {out}"),
        format!("synth-sae --format saex --width 512 --latents 2000 --out {out}"),
    ] {
        // Files may have 100 KiB, as on a disk that is nearly full.
        let output = Command::new("bash")
            .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "bash"])
            .arg(env!("CARGO_BIN_EXE_phi3-steer"))
            .args(words(&line))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        assert!(stderr.contains("cannot be written"), "{line}: {stderr}");
        assert!(contents(f.dir.path()) == before, "{line}: {stderr}");
    }
}
