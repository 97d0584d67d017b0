//! The GGUF reader: what is read is what was written, by hand and by candle; hostile and damaged
//! files are refused with a sentence that says what is wrong and where.

use std::collections::BTreeMap;

use crate::file::{File, Stored};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use phi3_steer::checkpoint::*;
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::StdRng};

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn open(bytes: Vec<u8>) -> Result<Gguf, CheckpointError> {
    block_on(Gguf::open(MemorySource::new("model.gguf", bytes).into()))
}

/// The sentence with which a file is refused.
fn refused(bytes: Vec<u8>) -> String {
    match open(bytes) {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn candle_writes_what_is_read() {
    let mut rng = seeded("candle");
    let pairs = [
        (GgmlDType::F32, Encoding::F32),
        (GgmlDType::F16, Encoding::F16),
        (GgmlDType::BF16, Encoding::BF16),
        (GgmlDType::Q4_0, Encoding::Q4_0),
        (GgmlDType::Q4_1, Encoding::Q4_1),
        (GgmlDType::Q5_0, Encoding::Q5_0),
        (GgmlDType::Q5_1, Encoding::Q5_1),
        (GgmlDType::Q8_0, Encoding::Q8_0),
        (GgmlDType::Q4K, Encoding::Q4K),
        (GgmlDType::Q5K, Encoding::Q5K),
        (GgmlDType::Q6K, Encoding::Q6K),
    ];
    assert_eq!(pairs.len(), Encoding::ALL.len());
    let tensors: Vec<(String, QTensor, [usize; 2])> = pairs
        .iter()
        .enumerate()
        .map(|(i, (dtype, _))| {
            let shape = [rng.random_range(1..5), 256 * rng.random_range(1..4)];
            let tensor = Tensor::randn(0f32, 1.0, &shape, &Device::Cpu).unwrap();
            let tensor = QTensor::quantize(&tensor, *dtype).unwrap();
            (format!("t.{i}"), tensor, shape)
        })
        .collect();
    let vector = Tensor::randn(0f32, 1.0, 77, &Device::Cpu).unwrap();
    let vector = QTensor::quantize(&vector, GgmlDType::F32).unwrap();
    let text = gguf_file::Value::String("phi3 ✓".into());
    let (eps, heads) = (
        gguf_file::Value::F32(1e-5),
        gguf_file::Value::U32(rng.random()),
    );
    let list = gguf_file::Value::Array(
        ["a", "", "▁ä"]
            .map(|t| gguf_file::Value::String(t.into()))
            .into(),
    );
    let metadata = [
        ("text", &text),
        ("eps", &eps),
        ("heads", &heads),
        ("list", &list),
    ];
    let mut named: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(n, t, _)| (n.as_str(), t)).collect();
    named.push(("vector", &vector));
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &named).unwrap();
    let bytes = bytes.into_inner();

    let gguf = open(bytes.clone()).unwrap();
    assert_eq!(gguf.names().count(), tensors.len() + 1);
    for ((name, tensor, shape), (_, encoding)) in tensors.iter().zip(pairs) {
        let info = gguf.tensor(name).unwrap();
        assert_eq!((info.encoding, &info.shape[..]), (encoding, &shape[..]));
        let range = info.range.start as usize..info.range.end as usize;
        assert_eq!(bytes[range], tensor.data().unwrap()[..], "{encoding}");
    }
    assert_eq!(gguf.tensor("vector").unwrap().shape, [77]);
    assert!(gguf.tensor("none").is_none());
    let metadata = gguf.metadata();
    let keys: Vec<&str> = metadata.keys().collect();
    assert_eq!(keys, ["eps", "heads", "list", "text"]);
    assert_eq!(metadata.text("text").unwrap(), Some("phi3 ✓"));
    assert_eq!(metadata.number("eps").unwrap(), Some(1e-5));
    assert_eq!(
        metadata.unsigned("heads").unwrap(),
        Some(heads.to_u32().unwrap().into())
    );
    let list: Vec<&str> = metadata.texts("list").unwrap().unwrap().collect();
    assert_eq!(list, ["a", "", "▁ä"]);
}

/// A file with random keys of every type, and what they should be read as.
fn random_keys(rng: &mut StdRng) -> (File, BTreeMap<String, String>) {
    let (mut file, mut expected) = (File::default(), BTreeMap::new());
    for i in 0..rng.random_range(0..60) {
        let key = format!("general.{i}.{}", rng.random_range(0..9));
        let kind = rng.random_range(0..13);
        let (stored, value) = random_value(rng, kind, 3);
        file.key(&key, stored);
        expected.insert(key, value);
    }
    (file, expected)
}

/// A random value of type `kind`, and how it is printed.
fn random_value(rng: &mut StdRng, kind: u32, depth: usize) -> (Stored, String) {
    macro_rules! number {
        ($type:ty, $print:expr) => {{
            let n: $type = rng.random();
            (n.to_le_bytes().to_vec(), $print(n))
        }};
    }
    let (bytes, printed) = match kind {
        0 => number!(u8, |n| format!("Unsigned({n})")),
        1 => number!(i8, |n| format!("Signed({n})")),
        2 => number!(u16, |n| format!("Unsigned({n})")),
        3 => number!(i16, |n| format!("Signed({n})")),
        4 => number!(u32, |n| format!("Unsigned({n})")),
        5 => number!(i32, |n| format!("Signed({n})")),
        6 => number!(f32, |n| format!("F32({n:?})")),
        7 => {
            let flag: bool = rng.random();
            (vec![flag.into()], format!("Bool({flag})"))
        }
        8 => {
            let chars = (0..rng.random_range(0..9)).map(|_| rng.random::<char>());
            let text: String = chars.collect();
            (crate::file::text(&text), format!("Text({text:?})"))
        }
        10 => number!(u64, |n| format!("Unsigned({n})")),
        11 => number!(i64, |n| format!("Signed({n})")),
        12 => number!(f64, |n| format!("F64({n:?})")),
        _ => {
            let inner = match rng.random_range(0..13) {
                9 if depth == 0 => 8,
                inner => inner,
            };
            let n = rng.random_range(0..6);
            let values: Vec<_> = (0..n)
                .map(|_| random_value(rng, inner, depth.saturating_sub(1)))
                .collect();
            let bytes = values.iter().flat_map(|(s, _)| s.1.clone()).collect();
            let printed: Vec<&str> = values.iter().map(|(_, p)| p.as_str()).collect();
            let array = Stored::array(inner, n, bytes);
            return (array, format!("[{}]", printed.join(", ")));
        }
    };
    (Stored(kind, bytes), printed)
}

fn print(value: Value<'_>) -> String {
    match value {
        Value::Array(array) => {
            let values: Vec<String> = array.iter().map(print).collect();
            assert_eq!(values.len(), array.len());
            format!("[{}]", values.join(", "))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn every_type_of_value_is_read() {
    let mut rng = seeded("values");
    for _ in 0..300 {
        let (mut file, expected) = random_keys(&mut rng);
        file.version = rng.random_range(2..=3);
        let gguf = open(file.bytes()).unwrap();
        let keys: BTreeMap<String, String> = gguf
            .metadata()
            .keys()
            .map(|key| (key.to_string(), print(gguf.metadata().get(key).unwrap())))
            .collect();
        assert_eq!(keys, expected);
        assert_eq!(gguf.names().count(), 0);
    }
}

#[test]
fn wrong_types_are_named() {
    let mut file = File::default();
    file.key("a", Stored::u32(3));
    file.key("b", Stored::text("x"));
    file.key("c", Stored::i32s(&[-1, 5]));
    file.key("d", Stored(5, (-4i32).to_le_bytes().into()));
    let gguf = open(file.bytes()).unwrap();
    let m = gguf.metadata();
    assert_eq!(m.unsigned("none").unwrap(), None);
    assert_eq!(m.number("a").unwrap(), Some(3.0));
    assert_eq!(
        m.integers("c").unwrap().unwrap().collect::<Vec<_>>(),
        [-1, 5]
    );
    assert_eq!(
        m.numbers("c").unwrap().unwrap().collect::<Vec<_>>(),
        [-1.0, 5.0]
    );
    for (error, says) in [
        (m.text("a").err(), "the key \"a\" is an integer, not a text"),
        (m.unsigned("b").err(), "\"b\" is a text, not an integer"),
        (
            m.unsigned("d").err(),
            "\"d\" is an integer, not an integer, 0 or more",
        ),
        (
            m.texts("c").err(),
            "\"c\" is an array, not an array of texts",
        ),
        (m.flag("a").err(), "not a truth value"),
        (m.numbers("b").map(|_| ()).err(), "not an array of numbers"),
    ] {
        let error = error.expect("was accepted").to_string();
        assert!(error.starts_with("model.gguf: "), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

/// A small file of two tensors.
fn small() -> File {
    let mut file = File::default();
    file.key("general.architecture", Stored::text("phi3"));
    file.key("list", Stored::texts(&["a", "b"]));
    file.tensor("x", &[2, 3], 0, &[1; 24]);
    file.tensor("y", &[2, 64], 8, &[2; 2 * 2 * 34]);
    file
}

#[test]
fn files_that_are_none_are_refused() {
    let good = small().bytes();
    assert_eq!(
        open(good.clone()).unwrap().tensor("y").unwrap().shape,
        [2, 64]
    );
    for len in 0..good.len() {
        let error = refused(good[..len].to_vec());
        assert!(error.starts_with("model.gguf: "), "{error}");
    }
    for (start, says) in [
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("<!DOCTYPE html><html></html>", "web page"),
        ("PK\u{3}\u{4}aaaaaaaaaaaa", "PyTorch"),
        ("GGML\u{3}\0\0\0aaaaaaaaaaaaaaaaaaaaaaaa", "does not begin"),
        ("", "file of 0"),
        ("GGUF\u{1}\0\0\0aaaaaaaaaaaaaaaaaaaaaaaa", "version 1"),
        ("GGUF\0\0\0\u{3}aaaaaaaaaaaaaaaaaaaaaaaa", "big-endian"),
        ("GGUF\u{4}\0\0\0aaaaaaaaaaaaaaaaaaaaaaaa", "version 4"),
        ("GGUF\u{3}\0\0\0aaaaaaaaaaaaaaaaaaaaaaaa", "tensors"),
    ] {
        let error = refused(start.as_bytes().to_vec());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn wrong_entries_are_named() {
    let refused_with = |change: &dyn Fn(&mut File)| {
        let mut file = small();
        change(&mut file);
        refused(file.bytes())
    };
    type Change = fn(&mut File);
    let cases: [(Change, &str); 20] = [
        (|f| f.tensors[0].offset = 8, "\"x\": it starts at byte 8"),
        (|f| f.tensors[1].offset = 0, "it overlaps"),
        (
            |f| f.tensors[1].offset = 64,
            "\"y\": shape [64, 2] from byte 64",
        ),
        (|f| f.tensors[1].offset = u64::MAX - 31, "beyond the file"),
        (|f| f.tensors[1].dimensions[1] = 1 << 62, "beyond the file"),
        (|f| f.tensors[1].dimensions[0] = 63, "whole blocks of 32"),
        (|f| f.tensors[1].dimensions = vec![64; 5], "5 dimensions"),
        (
            |f| f.tensors[1].encoding = 23,
            "\"y\": its encoding (IQ4_XS, number 23) is not read; F32",
        ),
        (|f| f.tensors[1].encoding = u32::MAX, "unknown"),
        (
            |f| f.tensors[1].name = "x".into(),
            "\"x\": it is listed twice",
        ),
        (
            |f| f.keys[1].0 = f.keys[0].0.clone(),
            "\"general.architecture\" is there twice",
        ),
        (|f| f.keys[1].1.0 = 13, "\"list\" has type 13"),
        (|f| f.keys[1].1.1[0] = 99, "\"list\" has type 99"),
        (|f| f.keys[1].1.1[4..12].fill(0xFF), "\"list\" claims"),
        (|f| f.keys[1].1.1[12..20].fill(0xFF), "\"list\" claims"),
        (
            |f| f.keys[1].1.1[20] = 0xFF,
            "\"list\" holds text that is not UTF-8",
        ),
        (
            |f| f.key("general.alignment", Stored::u32(24)),
            "\"general.alignment\" is 24",
        ),
        (
            |f| f.key("general.alignment", Stored::text("8")),
            "is a text",
        ),
        (
            |f| {
                f.key(
                    "deep",
                    Stored(
                        9,
                        [9u32.to_le_bytes(), [1, 0, 0, 0], [0; 4]]
                            .concat()
                            .repeat(9),
                    ),
                )
            },
            "\"deep\" holds arrays in arrays",
        ),
        (
            |f| f.key("many", Stored::array(9, usize::MAX / 8, Vec::new())),
            "\"many\" claims",
        ),
    ];
    for (i, (change, says)) in cases.into_iter().enumerate() {
        let error = refused_with(&change);
        assert!(error.contains(says), "{i}: {error}");
        assert!(error.starts_with("model.gguf: "), "{error}");
    }
    // An empty tensor, another alignment and one dimension are fine.
    let mut file = small();
    file.alignment = 128;
    file.key("general.alignment", Stored::u32(128));
    (file.tensors, file.data) = (Vec::new(), Vec::new());
    file.tensor("x", &[2, 3], 0, &[1; 24]);
    file.tensor("empty", &[0, 5], 0, &[]);
    file.tensor("scalar", &[], 0, &[7; 4]);
    let gguf = open(file.bytes()).unwrap();
    assert_eq!(gguf.tensor("empty").unwrap().shape, [0, 5]);
    assert_eq!(gguf.tensor("scalar").unwrap().range.start % 128, 0);
}

#[test]
fn only_the_header_is_read_and_all_of_it() {
    let mut rng = seeded("prefix");
    // Longer than several of the reader's first steps.
    let tokens: Vec<String> = (0..120_000).map(|i| format!("token {i}")).collect();
    let mut file = small();
    file.key("tokens", Stored::texts(&tokens));
    file.data.resize(8 << 20, 3);
    let mut bytes = file.bytes();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let read = std::rc::Rc::new(std::cell::Cell::new(0));
    let told = read.clone();
    let folder = Folder::directory(place.path()).on_progress(move |p| told.set(p.loaded));
    let gguf = block_on(Gguf::open(block_on(folder.require("model.gguf")).unwrap())).unwrap();
    let header = file.header().len() as u64;
    assert!(read.get() >= header && read.get() <= 2 * header, "{read:?}");
    let read: Vec<&str> = gguf.metadata().texts("tokens").unwrap().unwrap().collect();
    assert_eq!(read, tokens);
    // A claim that leads beyond the longest header ends there.
    let at = 24 + 8 + "general.architecture".len() + 4;
    bytes[at..at + 8].copy_from_slice(&(101u64 << 20).to_le_bytes());
    bytes.resize((102 << 20) + rng.random_range(0..100), 0);
    assert!(refused(bytes).contains("more than 100000000 bytes"));
}

#[test]
fn random_damage_never_panics_nor_reads_amiss() {
    let mut rng = seeded("damage");
    let (mut survived, rounds) = (0, 20_000);
    let mut bytes = Vec::new();
    for round in 0..rounds {
        if round % 500 == 0 {
            let (mut file, _) = random_keys(&mut rng);
            file.tensor("x", &[2, 3], 0, &[1; 24]);
            file.tensor("y", &[2, 64], 8, &[2; 2 * 2 * 34]);
            bytes = file.bytes();
        }
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..damaged.len());
            damaged[at] = rng.random();
        }
        let len = damaged.len() as u64;
        let Ok(gguf) = open(damaged) else { continue };
        survived += 1;
        for key in gguf.metadata().keys() {
            print(gguf.metadata().get(key).expect("is there"));
        }
        for name in gguf.names() {
            assert!(gguf.tensor(name).unwrap().range.end <= len);
        }
    }
    println!("{survived} of {rounds} damaged files were still valid");
}
