//! Checkpoints from folders and memory: what is read is what was written, and hostile or damaged
//! files are refused with a sentence that says what is wrong and where.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use half::{bf16, f16};
use phi3_steer::checkpoint::*;
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::StdRng};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// A safetensors file with this header and so many zero bytes of data.
fn raw(header: &Value, data: usize) -> Vec<u8> {
    raw_text(&header.to_string(), data)
}

fn raw_text(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; data]);
    file
}

fn folder(files: &[(&str, Vec<u8>)]) -> Folder {
    let files = files.iter().map(|(n, b)| (n.to_string(), b.clone()));
    Folder::memory("memory", files.collect())
}

fn open(file: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    block_on(Checkpoint::open(
        &folder(&[("model.safetensors", file)]),
        "model",
    ))
}

/// The sentence with which a file is refused.
fn refused(file: Vec<u8>) -> String {
    match open(file) {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

/// Collects a tensor through `rows`.
fn collect(
    c: &Checkpoint,
    name: &str,
    shape: &[usize],
    block: usize,
) -> Result<Vec<f32>, CheckpointError> {
    let (mut out, mut next) = (Vec::new(), 0);
    let columns = shape.last().copied().unwrap_or(1);
    block_on(c.rows(name, shape, block, |first, rows| {
        assert_eq!(first, next, "blocks come in order");
        assert_eq!(rows.len() % columns, 0, "whole rows");
        assert!(
            rows.len() == columns || rows.len() * 2 <= block.max(2),
            "a block is too large"
        );
        next += rows.len() / columns;
        out.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    }))?;
    Ok(out)
}

/// A tensor's numbers as written, and as they should be read.
fn stored(rng: &mut StdRng, dtype: Dtype, n: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = Vec::new();
    let mut values = Vec::new();
    for _ in 0..n {
        let v = rng.random_range(-8.0f32..8.0);
        match dtype {
            Dtype::F32 => {
                bytes.extend(v.to_le_bytes());
                values.push(v);
            }
            Dtype::F16 => {
                bytes.extend(f16::from_f32(v).to_le_bytes());
                values.push(f16::from_f32(v).to_f32());
            }
            _ => {
                bytes.extend(bf16::from_f32(v).to_le_bytes());
                values.push(bf16::from_f32(v).to_f32());
            }
        }
    }
    (bytes, values)
}

/// A file written by the reference implementation, with tensors of random types and shapes.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn random_file(rng: &mut StdRng, prefix: &str) -> (Vec<u8>, Tensors) {
    let shapes = [
        vec![],
        vec![7],
        vec![5, 33],
        vec![64, 3],
        vec![2, 3, 4],
        vec![0, 4],
        vec![4, 0],
        vec![1],
    ];
    let mut data = Vec::new();
    let mut tensors = Vec::new();
    for (i, shape) in shapes.into_iter().enumerate() {
        let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][rng.random_range(0..3)];
        let (bytes, values) = stored(rng, dtype, shape.iter().product());
        let name = format!("{prefix}.{i}");
        data.push((name.clone(), dtype, shape.clone(), bytes));
        tensors.push((name, shape, values));
    }
    let views = data.iter().map(|(name, dtype, shape, bytes)| {
        (
            name,
            TensorView::new(*dtype, shape.clone(), bytes).expect("a valid tensor"),
        )
    });
    (
        safetensors::serialize(views, None).expect("is written"),
        tensors,
    )
}

#[test]
fn tensors_are_read_as_written() {
    let mut rng = seeded("written");
    for _ in 0..5 {
        let (file, tensors) = random_file(&mut rng, "t");
        let c = open(file).expect("is read");
        let mut names: Vec<_> = tensors.iter().map(|(n, ..)| n.as_str()).collect();
        names.sort_unstable();
        assert_eq!(c.names().collect::<Vec<_>>(), names);
        for (name, shape, values) in &tensors {
            assert_eq!(&c.info(name).expect("is there").shape, shape);
            for block in [0, 1, 66, 100, 1000, 1 << 30] {
                assert_eq!(
                    &collect(&c, name, shape, block).expect("is read"),
                    values,
                    "{name}"
                );
            }
            if let [len] = shape[..] {
                assert_eq!(&block_on(c.vector(name, len)).expect("is read"), values);
            }
        }
    }
}

#[test]
fn shards_are_found_through_the_index() {
    let mut rng = seeded("shards");
    let (first, mut tensors) = random_file(&mut rng, "a");
    let (second, more) = random_file(&mut rng, "b");
    tensors.extend(more);
    let map: serde_json::Map<String, Value> = tensors
        .iter()
        .map(|(n, ..)| {
            (
                n.clone(),
                json!(if n.starts_with('a') {
                    "1.safetensors"
                } else {
                    "2.safetensors"
                }),
            )
        })
        .collect();
    let index = |map: &Value| {
        json!({"metadata": {"total_size": 1}, "weight_map": map})
            .to_string()
            .into_bytes()
    };
    let good = json!(map);
    let opened = |index: Vec<u8>| {
        let files = [
            ("model.safetensors.index.json", index),
            ("1.safetensors", first.clone()),
            ("2.safetensors", second.clone()),
        ];
        block_on(Checkpoint::open(&folder(&files), "model"))
    };
    let c = opened(index(&good)).expect("is read");
    for (name, shape, values) in &tensors {
        assert_eq!(&collect(&c, name, shape, 100).expect("is read"), values);
    }
    let error = collect(&c, "model.norm.weight", &[3], 100)
        .expect_err("is not there")
        .to_string();
    for part in ["model.norm.weight", "1.safetensors", "2.safetensors"] {
        assert!(error.contains(part), "{error}");
    }

    let fails = |index: Vec<u8>| opened(index).err().expect("was accepted").to_string();
    let with = |name: &str, file: &str| {
        let mut map = good.clone();
        map[name] = file.into();
        index(&map)
    };
    // A wrong entry for what is in another file is no harm.
    let wrong = opened(with("a.1", "2.safetensors")).expect("is read");
    assert!(wrong.info("a.1").is_some());
    // What only a missing file has is missed when it is read.
    let lacking = opened(with("more", "3.safetensors")).expect("is read");
    let error = collect(&lacking, "more", &[3], 100).expect_err("is not there");
    assert!(
        error.to_string().contains("no file \"3.safetensors\""),
        "{error}"
    );
    for evil in [
        "../1.safetensors",
        "/etc/passwd",
        "https://example.org/1.safetensors",
        "..\\1.safetensors",
        "",
    ] {
        let error = fails(with("a.1", evil));
        assert!(
            error.contains("is not the name of a safetensors file"),
            "{error}"
        );
    }
    for bad in [
        &b"{"[..],
        b"[]",
        b"{}",
        b"{\"weight_map\": 3}",
        b"{\"weight_map\": {\"a\": 3}}",
    ] {
        assert!(fails(bad.to_vec()).contains("model.safetensors.index.json"));
    }
}

#[test]
fn headers_are_not_believed() {
    let entry = |dtype: &str, shape: Value, from: u64, to: u64| json!({"dtype": dtype, "shape": shape, "data_offsets": [from, to]});
    let good = json!({"__metadata__": {"format": "pt"}, "x": entry("F32", json!([2, 2]), 0, 16)});
    open(raw(&good, 16)).expect("is read");
    // Padded with spaces, as the format allows.
    open(raw_text(&format!("{good}     "), 16)).expect("is read");

    // The length of the header.
    for len in [
        0u64,
        1,
        1 << 20,
        MAX_HEADER + 1,
        u64::MAX,
        u64::MAX - 7,
        1 << 63,
    ] {
        let mut file = raw(&good, 16);
        file[..8].copy_from_slice(&len.to_le_bytes());
        let error = refused(file);
        assert!(
            error.contains("model.safetensors: not a valid safetensors file"),
            "{error}"
        );
    }
    // What is often in the place of a file.
    for (start, says) in [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "Git LFS",
        ),
        ("<!DOCTYPE html><html></html>", "web page"),
        ("GGUF\u{3}\0\0\0\0\0\0\0\0", "GGUF"),
        ("PK\u{3}\u{4}aaaaaaaaaaaa", "PyTorch"),
        ("", "0 bytes"),
        ("1234567", "7 bytes"),
    ] {
        let error = refused(start.as_bytes().to_vec());
        assert!(error.contains(says), "{error}");
    }
    // Cut short and continued, at every length.
    let whole = raw(&good, 16);
    for len in 0..whole.len() {
        refused(whole[..len].to_vec());
    }
    assert!(refused([&whole[..], b"x"].concat()).contains("take 16 bytes but 17 follow"));

    let big = 1u64 << 62;
    for (header, data, says) in [
        (
            json!({"x": entry("F32", json!([2, 2]), 0, 12)}),
            12,
            "does not take the 12 bytes",
        ),
        (
            json!({"x": entry("BF16", json!([2, 2]), 0, 16)}),
            16,
            "does not take the 16 bytes",
        ),
        (
            json!({"x": entry("F32", json!([2, 2]), 0, 16)}),
            8,
            "outside the file's 8 bytes",
        ),
        (
            json!({"x": entry("F32", json!([2, 2]), 16, 0)}),
            16,
            "outside",
        ),
        (
            json!({"x": entry("F32", json!([2, 2]), big, big + 16)}),
            16,
            "outside",
        ),
        (
            json!({"x": entry("F32", json!([2, 2]), u64::MAX - 16, u64::MAX)}),
            16,
            "outside",
        ),
        (
            json!({"x": entry("F32", json!([big, 16]), 0, 16)}),
            16,
            "does not take",
        ),
        (
            json!({"x": entry("F32", json!([big, big, 0]), 0, 0)}),
            0,
            "does not take",
        ),
        (
            json!({"x": entry("F32", json!([2]), 0, 8), "y": entry("F32", json!([2]), 4, 12)}),
            12,
            "\"y\": it overlaps",
        ),
        (
            json!({"x": entry("F32", json!([2]), 0, 8), "y": entry("F32", json!([2]), 0, 8)}),
            8,
            "overlaps",
        ),
        (
            json!({"x": entry("F32", json!([2]), 0, 8), "y": entry("F32", json!([2]), 12, 20)}),
            20,
            "hole",
        ),
        (
            json!({"x": entry("F32", json!([-2]), 0, 8)}),
            8,
            "tensor \"x\"",
        ),
        (
            json!({"x": entry("F32", json!([2.5]), 0, 8)}),
            8,
            "tensor \"x\"",
        ),
        (
            json!({"x": entry("F99", json!([2]), 0, 8)}),
            8,
            "tensor \"x\"",
        ),
        (json!({"x": 3}), 8, "tensor \"x\""),
        (
            json!({"x": {"dtype": "F32", "shape": [2]}}),
            8,
            "data_offsets",
        ),
        (json!([1, 2]), 8, "object of tensors"),
    ] {
        let error = refused(raw(&header, data));
        assert!(error.contains(says), "{header}: {error}");
        assert!(error.starts_with("model.safetensors: "), "{error}");
    }
    let x = entry("F32", json!([0]), 0, 0);
    assert!(refused(raw_text(&format!("{{\"x\": {x}, \"x\": {x}}}"), 0)).contains("listed twice"));
    let deep = "[".repeat(100_000);
    assert!(refused(raw_text(&deep, 0)).contains("cannot be read"));
    assert!(refused(raw_text(&format!("{{\"x\": {deep}"), 0)).contains("cannot be read"));
    assert!(refused(raw_text("{\"x\u{0}", 0)).contains("cannot be read"));
}

#[test]
fn random_damage_never_panics_nor_reads_amiss() {
    let mut rng = seeded("damage");
    let (file, tensors) = random_file(&mut rng, "t");
    let header = 8 + u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let mut survived = 0;
    for _ in 0..2000 {
        let mut damaged = file.clone();
        let at = rng.random_range(0..header);
        damaged[at] = rng.random();
        let Ok(c) = open(damaged) else { continue };
        survived += 1;
        for (name, shape, _) in &tensors {
            // A tensor is whole, or refused.
            if let Ok(values) = collect(&c, name, shape, 64) {
                assert_eq!(values.len(), shape.iter().product::<usize>());
            }
        }
    }
    println!("{survived} of 2000 damaged headers were still valid");
}

#[test]
fn wrong_tensors_are_named() {
    let header = json!({
        "i": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
    });
    let mut file = raw(&header, 32);
    let start = file.len() - 24;
    file[start + 20..].copy_from_slice(&f32::NAN.to_le_bytes());
    let c = open(file).expect("the header is valid");
    let error = |name: &str, shape: &[usize]| collect(&c, name, shape, 12).expect_err("was read");
    assert!(matches!(
        error("x", &[2, 3]),
        CheckpointError::NotFinite { tensor, row: 1, column: 2, .. } if tensor == "x"
    ));
    assert!(matches!(
        error("x", &[3, 2]),
        CheckpointError::WrongShape { found, expected, .. } if found == [2, 3] && expected == [3, 2]
    ));
    assert!(matches!(
        error("i", &[1]),
        CheckpointError::WrongType {
            dtype: TensorType::Other(Dtype::I64),
            ..
        }
    ));
    assert!(matches!(
        error("y", &[1]),
        CheckpointError::MissingTensor { .. }
    ));
    for name in ["x", "i"] {
        let said = error(name, &[1]).to_string();
        assert!(
            said.contains(&format!("\"{name}\"")) && said.contains("model.safetensors"),
            "{said}"
        );
    }
}

#[test]
fn a_failing_consumer_stops_the_reading() {
    let mut rng = seeded("consumer");
    let (file, _) = random_file(&mut rng, "t");
    let c = open(file).expect("is read");
    #[derive(Debug)]
    enum Own {
        Checkpoint(CheckpointError),
        Full,
    }
    impl From<CheckpointError> for Own {
        fn from(e: CheckpointError) -> Self {
            Self::Checkpoint(e)
        }
    }
    let blocks = Cell::new(0);
    let result = block_on(c.rows("t.3", &[64, 3], 12, |_, _| {
        blocks.set(blocks.get() + 1);
        if blocks.get() == 3 {
            Err(Own::Full)
        } else {
            Ok(())
        }
    }));
    assert!(matches!(result, Err(Own::Full)));
    assert_eq!(blocks.get(), 3);
    let result = block_on(c.rows("none", &[1], 12, |_, _| Err(Own::Full)));
    assert!(matches!(
        result,
        Err(Own::Checkpoint(CheckpointError::MissingTensor { .. }))
    ));
}

#[test]
fn a_folder_on_disk() {
    let mut rng = seeded("disk");
    let (file, tensors) = random_file(&mut rng, "t");
    let place = tempfile::tempdir().expect("a folder");
    let path = place.path().join("model.safetensors");
    std::fs::write(&path, &file).expect("is written");
    std::fs::write(place.path().join("config.json"), "{\"a\": 1}").expect("is written");
    std::fs::create_dir_all(place.path().join("layers.3/cfg.json")).expect("is made");

    let told = Rc::new(RefCell::new(Vec::new()));
    let listener = told.clone();
    let cancel = Cancel::new();
    let folder = Folder::directory(place.path())
        .on_progress(move |p| listener.borrow_mut().push(p.clone()))
        .cancelled_by(&cancel);
    let c = block_on(Checkpoint::open(&folder, "model")).expect("is read");
    let header = told
        .borrow()
        .iter()
        .map(|p| p.loaded)
        .max()
        .expect("progress");
    assert!(header < file.len() as u64, "opening reads the header only");
    for (name, shape, values) in &tensors {
        assert_eq!(&collect(&c, name, shape, 100).expect("is read"), values);
    }
    let last = told.borrow().last().cloned().expect("progress");
    let (file_name, len) = ("model.safetensors".to_string(), file.len() as u64);
    assert_eq!(
        last,
        Progress {
            file: file_name,
            loaded: len,
            total: len
        }
    );

    assert_eq!(
        block_on(folder.require_bytes("config.json", MAX_JSON)).expect("is read"),
        b"{\"a\": 1}"
    );
    let error = block_on(folder.require_bytes("config.json", 3)).expect_err("is too large");
    assert!(matches!(
        error,
        SourceError::TooLarge { len: 8, cap: 3, .. }
    ));
    assert_eq!(
        block_on(folder.bytes("tokenizer.json", MAX_TOKENIZER)).expect("is not there"),
        None
    );
    let error = block_on(folder.require("tokenizer.json"))
        .err()
        .expect("is not there")
        .to_string();
    assert!(
        error.contains("tokenizer.json") && error.contains(folder.label()),
        "{error}"
    );
    let error = block_on(folder.open("layers.3/cfg.json"))
        .err()
        .expect("is a folder")
        .to_string();
    assert!(error.contains("folder"), "{error}");
    let error = block_on(Checkpoint::open(&folder, "sae"))
        .err()
        .expect("is not there")
        .to_string();
    assert!(
        error.contains("sae.safetensors") && error.contains("sae.safetensors.index.json"),
        "{error}"
    );
    let nowhere = Folder::directory(place.path().join("none"));
    let error = block_on(Checkpoint::open(&nowhere, "model"))
        .err()
        .expect("is not there");
    assert!(
        matches!(error, CheckpointError::Source(SourceError::NoFolder { .. })),
        "{error}"
    );
    assert!(matches!(
        FileSource::open(place.path().join("none")),
        Err(SourceError::NotFound { .. })
    ));

    // The file shrinks while it is in use.
    let shrunk = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("opens");
    shrunk.set_len(len - 1).expect("shrinks");
    let failures = tensors
        .iter()
        .filter_map(|(n, shape, _)| collect(&c, n, shape, 100).err());
    let failures: Vec<_> = failures.collect();
    assert!(
        matches!(
            failures[..],
            [CheckpointError::Source(SourceError::Short { .. })]
        ),
        "{failures:?}"
    );

    cancel.cancel();
    let error = collect(&c, "t.2", &[5, 33], 100).expect_err("was cancelled");
    assert!(matches!(
        error,
        CheckpointError::Source(SourceError::Cancelled { .. })
    ));
    assert!(matches!(
        block_on(folder.open("config.json")),
        Err(SourceError::Cancelled { .. })
    ));
}

#[test]
fn ranges_are_checked() {
    let source = MemorySource::new("x", vec![1u8, 2, 3]);
    assert_eq!(block_on(source.read(1..3)).expect("is read"), [2, 3]);
    assert!(block_on(source.read(3..3)).expect("is read").is_empty());
    #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
    for range in [0..4, 4..4, 2..1, u64::MAX - 1..u64::MAX] {
        assert!(matches!(
            block_on(source.read(range)),
            Err(SourceError::OutOfRange { len: 3, .. })
        ));
    }
}
