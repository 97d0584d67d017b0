//! What folders hold, in whatever form: the only model is taken, what is not needed is not missed, what
//! cannot be read is named for what it is, and nothing from a file is shown as it is.

use crate::file::{File, Stored};
use crate::vocabulary::Vocabulary;
use phi3_steer::checkpoint::*;
use phi3_steer::phi3::ModelFiles;
use phi3_steer::tokens::ChatTokenizer;
use pollster::block_on;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

const NANO_TOKENIZER: &[u8] = include_bytes!("../../models/nano/tokenizer.json");

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

fn folder(files: &[(&str, Vec<u8>)]) -> Folder {
    let files = files.iter().map(|(n, b)| (n.to_string(), b.clone()));
    Folder::memory("memory", files.collect())
}

/// A safetensors file of vectors in f32.
fn vectors(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, values)| {
        let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
        (*name, view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The keys of a small model with the nano model's vocabulary.
fn keys(file: &mut File) {
    file.key("general.architecture", Stored::text("phi3"));
    for (key, value) in [
        ("context_length", 512),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("block_count", 1),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 2),
    ] {
        file.key(&format!("phi3.{key}"), Stored::u32(value));
    }
    file.key("phi3.attention.layer_norm_rms_epsilon", Stored::f32(1e-5));
    Vocabulary::nano().write(file);
}

/// A model in parts: vectors under their names, and the parts' files.
struct Parts {
    values: Vec<(String, Vec<f32>)>,
    files: Vec<File>,
}

fn parts(rng: &mut StdRng, count: usize) -> Parts {
    let mut files = vec![File::default(); count];
    keys(&mut files[0]);
    let mut values = Vec::new();
    for i in 0..4 * count {
        let numbers: Vec<f32> = (0..rng.random_range(1..50)).map(|_| rng.random()).collect();
        let name = format!("blk.{i}.attn_norm.weight");
        let part = if i < count {
            i
        } else {
            rng.random_range(0..count)
        };
        files[part].tensor(&name, &[numbers.len()], 0, bytemuck::cast_slice(&numbers));
        values.push((format!("model.layers.{i}.input_layernorm.weight"), numbers));
    }
    let rows: Vec<f32> = (0..3072 * 64).map(|_| rng.random()).collect();
    let last = count - 1;
    files[last].tensor(
        "token_embd.weight",
        &[3072, 64],
        0,
        bytemuck::cast_slice(&rows),
    );
    let tensors = values.len() as i32 + 1;
    for (at, file) in files.iter_mut().enumerate() {
        let number = |n: usize| Stored(2, (n as u16).to_le_bytes().into());
        file.key("split.no", number(at));
        file.key("split.count", number(count));
        file.key(
            "split.tensors.count",
            Stored(5, tensors.to_le_bytes().into()),
        );
    }
    Parts { values, files }
}

impl Parts {
    fn named(&self) -> Vec<(String, Vec<u8>)> {
        let count = self.files.len();
        let files = self.files.iter().enumerate();
        files
            .map(|(at, file)| (format!("m-{:05}-of-{count:05}.gguf", at + 1), file.bytes()))
            .collect()
    }

    fn check(&self, folder: &Folder) {
        let files = block_on(ModelFiles::open(folder)).unwrap();
        assert_eq!(files.config.vocab_size, 3072);
        // The head is nowhere, in no part.
        assert!(files.config.tie_word_embeddings);
        for (name, values) in &self.values {
            let read = block_on(files.checkpoint.vector(name, values.len())).unwrap();
            assert_eq!(&read, values, "{name}");
        }
        assert_eq!(block_on(files.tokenizer()).unwrap().vocab_size(), 3072);
        assert_eq!(
            block_on(ChatTokenizer::open(folder)).unwrap().vocab_size(),
            3072
        );
    }
}

#[test]
fn a_split_gguf_is_read_as_one() {
    let mut rng = seeded("split");
    for count in [2, 3, 7] {
        let model = parts(&mut rng, count);
        let mut files = model.named();
        files.shuffle(&mut rng);
        files.push(("README.md".into(), vec![1]));
        files.push(("mmproj-m.gguf".into(), vec![1]));
        model.check(&Folder::memory("memory", files));
        // From disk: the folder, and any of the files.
        let place = tempfile::tempdir().unwrap();
        for (name, bytes) in model.named() {
            std::fs::write(place.path().join(name), bytes).unwrap();
        }
        model.check(&Folder::directory(place.path()));
        let any = format!("m-{:05}-of-{count:05}.gguf", rng.random_range(1..=count));
        model.check(&Folder::file(place.path().join(&any)));
        // One is missing.
        let gone = format!("m-{:05}-of-{count:05}.gguf", rng.random_range(1..=count));
        std::fs::remove_file(place.path().join(&gone)).unwrap();
        let error = block_on(ModelFiles::open(&Folder::directory(place.path()))).err();
        let error = error.unwrap().to_string();
        assert!(error.contains(&format!("no file \"{gone}\"")), "{error}");
    }
}

#[test]
fn parts_of_different_models_are_refused() {
    let seed = seeded("mixed").random();
    let refused = |change: &dyn Fn(&mut Vec<File>), names: &[&str]| {
        let mut model = parts(&mut StdRng::seed_from_u64(seed), 2);
        change(&mut model.files);
        let files = model.files.iter().zip(names);
        let files = files.map(|(file, name)| (name.to_string(), file.bytes()));
        let folder = Folder::memory("memory", files.collect());
        block_on(ModelFiles::open(&folder))
            .err()
            .unwrap()
            .to_string()
    };
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let set = |file: &mut File, key: &str, value: u16| {
        let place = file.keys.iter_mut().find(|(k, _)| k == key).unwrap();
        place.1 = Stored(2, value.to_le_bytes().into());
    };
    let swapped = refused(&|files| files.swap(0, 1), &names);
    assert!(swapped.contains("\"split.no\" is 1, and 0"), "{swapped}");
    let error = refused(&|files| set(&mut files[1], "split.count", 5), &names);
    assert!(error.contains("\"split.count\" is 5"), "{error}");
    let error = refused(
        &|files| {
            let twice = files[0].tensors[0].name.clone();
            files[1].tensor(&twice, &[1], 0, &[0; 4]);
        },
        &names,
    );
    assert!(error.contains("another of the model's files"), "{error}");
    let error = refused(&|files| files[1].tensors.truncate(1), &names);
    assert!(error.contains("\"split.tensors.count\""), "{error}");
    // Under another name it stands alone, and says that it is not the whole.
    let error = refused(&|_| {}, &["first.gguf"]);
    assert!(error.contains("one of the 2 files"), "{error}");
    // Two models.
    let error = refused(&|_| {}, &["m-00001-of-00002.gguf", "n.gguf"]);
    assert!(error.contains("several GGUF files"), "{error}");
}

#[test]
fn the_only_gguf_rules_with_what_it_says_itself() {
    let mut file = File::default();
    keys(&mut file);
    let rows = vec![1f32; 3072 * 64];
    file.tensor(
        "token_embd.weight",
        &[3072, 64],
        0,
        bytemuck::cast_slice(&rows),
    );
    let gguf = file.bytes();
    let foreign = json!({"model_type": "llama"}).to_string().into_bytes();
    let other = json!({"version": "1.0"}).to_string().into_bytes();
    for beside in [
        vec![("config.json", foreign.clone())],
        vec![("config.json", b"{".to_vec()), ("tokenizer.json", other)],
        vec![("model.safetensors", vectors(&[("x", &[1.0])]))],
        vec![("generation_config.json", b"{}".to_vec())],
    ] {
        let files = [vec![("nano.gguf", gguf.clone())], beside].concat();
        let folder = folder(&files);
        let opened = block_on(ModelFiles::open(&folder)).unwrap();
        assert_eq!(opened.config.hidden_size, 64);
        assert_eq!(block_on(opened.tokenizer()).unwrap().vocab_size(), 3072);
        let tokenizer = block_on(ChatTokenizer::open(&folder)).unwrap();
        assert_eq!(tokenizer.vocab_size(), 3072);
    }
    // One without a vocabulary takes the file beside it.
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    let files = folder(&[
        ("nano.gguf", file.bytes()),
        ("tokenizer.json", NANO_TOKENIZER.to_vec()),
    ]);
    let opened = block_on(ModelFiles::open(&files)).unwrap();
    assert_eq!(block_on(opened.tokenizer()).unwrap().vocab_size(), 3072);
}

#[test]
fn an_index_is_no_more_than_a_hint() {
    let mut rng = seeded("index");
    let mut numbers = |n: usize| (0..n).map(|_| rng.random()).collect::<Vec<f32>>();
    let (a, b, c, old) = (numbers(5), numbers(9), numbers(3), numbers(3));
    let first = vectors(&[("a", &a), ("b", &b)]);
    let second = vectors(&[("c", &c), ("unlisted", &a)]);
    let opened = |map: Value, files: &[(&str, &Vec<u8>)]| {
        // As Python writes it, through an editor.
        let index = json!({"metadata": {"loss": 1.5}, "weight_map": map}).to_string();
        let index = format!("\u{FEFF}{}", index.replace("1.5", "NaN")).into_bytes();
        let mut all = vec![("model.safetensors.index.json", index)];
        all.extend(files.iter().map(|(name, file)| (*name, (*file).clone())));
        block_on(Checkpoint::open(&folder(&all), "model"))
    };
    let both = [("1.safetensors", &first), ("2.safetensors", &second)];
    // A tensor that nobody has, a file that nobody needs, a tensor in another file than it says, one that
    // is not listed.
    let map = json!({
        "a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors",
        "rotary.inv_freq": "1.safetensors", "lm_head.bias": "3.safetensors"
    });
    let c1 = opened(map.clone(), &both).unwrap();
    for (name, values) in [("a", &a), ("b", &b), ("c", &c), ("unlisted", &a)] {
        assert_eq!(&block_on(c1.vector(name, values.len())).unwrap(), values);
    }
    // What is needed of the missing file names the file.
    let error = block_on(c1.vector("lm_head.bias", 3))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no file \"3.safetensors\" in memory"),
        "{error}"
    );
    let error = c1.planes("lm_head", [2, 2], phi3_steer::quant::Format::Q4);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("3.safetensors"), "{error}");
    let error = block_on(c1.vector("rotary.inv_freq", 3))
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"rotary.inv_freq\" is missing"), "{error}");
    // Two files have it: the index says which, or it is refused.
    let third = vectors(&[("c", &old)]);
    let three = [both[0], both[1], ("3.safetensors", &third)];
    let c2 = opened(map, &three).unwrap();
    assert_eq!(block_on(c2.vector("c", 3)).unwrap(), c);
    let error = opened(
        json!({"a": "1.safetensors", "b": "2.safetensors", "x": "3.safetensors"}),
        &three,
    );
    let error = error.err().unwrap().to_string();
    assert!(error.contains("has the right \"c\""), "{error}");
}

#[test]
fn the_only_weights_are_taken() {
    let mut rng = seeded("only");
    let values: Vec<f32> = (0..7).map(|_| rng.random()).collect();
    let file = |name: &str| vectors(&[(name, &values[..])]);
    let open =
        |files: &[(&str, Vec<u8>)], base: &str| block_on(Checkpoint::open(&folder(files), base));
    for (files, base) in [
        (vec![("phi-3.safetensors", file("x"))], "model"),
        (
            vec![
                ("phi-3.safetensors", file("x")),
                ("adapter_model.safetensors", file("y")),
                ("sae/sae.safetensors", file("z")),
            ],
            "model",
        ),
        (
            vec![
                ("layers.3/weights.safetensors", file("x")),
                ("layers.3/sparsity.safetensors", file("y")),
                ("layers.4/weights.safetensors", file("y")),
            ],
            "layers.3/sae_weights",
        ),
        (
            vec![
                ("m-00001-of-00002.safetensors", file("x")),
                ("m-00002-of-00002.safetensors", file("y")),
            ],
            "model",
        ),
    ] {
        let c = open(&files, base).unwrap();
        assert_eq!(block_on(c.vector("x", 7)).unwrap(), values, "{files:?}");
    }
    let several = [("a.safetensors", file("x")), ("b.safetensors", file("x"))];
    assert!(matches!(
        open(&several, "model"),
        Err(CheckpointError::NoWeights { .. })
    ));
    let part = [("m-00002-of-00003.safetensors", file("x"))];
    let error = open(&part, "model").err().unwrap().to_string();
    assert!(error.contains("m-00001-of-00003.safetensors"), "{error}");
    let twice = [
        ("m-00001-of-00002.safetensors", file("x")),
        ("m-00002-of-00002.safetensors", file("x")),
    ];
    let error = open(&twice, "model").err().unwrap().to_string();
    assert!(error.contains("which of"), "{error}");
}

#[test]
fn rows_are_where_the_files_have_them() {
    let mut rng = seeded("runs");
    let mut file = File::default();
    let widths = [3usize, 1, 2];
    // Parts of one matrix, in another order than its rows.
    let names = ["attn_v", "attn_q", "attn_k"];
    let order = [1usize, 2, 0];
    for (name, rows) in names.iter().zip(widths) {
        let numbers: Vec<f32> = (0..rows * 32).map(|_| rng.random()).collect();
        let name = format!("blk.0.{name}.weight");
        file.tensor(&name, &[rows, 32], 0, bytemuck::cast_slice(&numbers));
    }
    let source = MemorySource::new("model.gguf", file.bytes());
    let c = Checkpoint::from_gguf(block_on(Gguf::open(source.into())).unwrap()).unwrap();
    let name = "model.layers.0.self_attn.qkv_proj.weight";
    let runs = c.runs(name);
    let rows: Vec<usize> = runs.iter().map(|run| run.rows.len()).collect();
    assert_eq!(rows, order.map(|at| widths[at]));
    // Read in the order of the file, each run is what it is in the whole.
    let mut whole = Vec::new();
    block_on(c.rows(name, &[6, 32], 1 << 20, |_, rows| {
        whole.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    }))
    .unwrap();
    let mut sorted = runs;
    sorted.sort_by_key(|run| (run.file, run.start));
    assert!(sorted.windows(2).all(|w| w[0].start < w[1].start));
    for run in sorted {
        let reader = c.reader(name, &[6, 32], 1 << 20).unwrap();
        let mut reader = reader.only(run.rows.clone());
        let mut next = run.rows.start;
        while let Some((first, rows)) = block_on(reader.next()).unwrap() {
            assert_eq!(first, next);
            assert_eq!(rows, &whole[first * 32..][..rows.len()]);
            next += rows.len() / 32;
        }
        assert_eq!(next, run.rows.end);
    }
    assert!(c.runs("none").is_empty());
}

#[test]
fn other_forms_are_named_for_what_they_are() {
    let config = json!({
        "model_type": "phi3", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64
    })
    .to_string()
    .into_bytes();
    for (files, words) in [
        (
            &["mlc-chat-config.json", "params_shard_0.bin"][..],
            ["MLC", ".gguf"],
        ),
        (
            &["ndarray-cache.json", "params_shard_0.bin"],
            ["MLC", ".gguf"],
        ),
        (
            &[
                "adapter_config.json",
                "adapter_model.safetensors",
                "tokenizer.json",
            ],
            ["LoRA", "merge_and_unload"],
        ),
        (&["adapter_model.bin"], ["LoRA", "merge_and_unload"]),
        (
            &["genai_config.json", "phi3.onnx", "phi3.onnx.data"],
            ["ONNX", ".gguf"],
        ),
        (&["onnx/model_q4.onnx"], ["ONNX", ".gguf"]),
        (&["pytorch_model.bin"], ["PyTorch", "safe_serialization"]),
        (
            &["pytorch_model-00001-of-00002.bin"],
            ["PyTorch", "safe_serialization"],
        ),
        (&["consolidated.00.PTH"], ["PyTorch", "safe_serialization"]),
        (&["tf_model.h5"], ["another framework", ".gguf"]),
        (
            &["openvino_model.xml", "openvino_model.bin"],
            ["another framework", ".gguf"],
        ),
    ] {
        for with_config in [false, true] {
            let mut all: Vec<(&str, Vec<u8>)> = files.iter().map(|f| (*f, vec![1])).collect();
            if with_config {
                all.push(("config.json", config.clone()));
            }
            let error = block_on(ModelFiles::open(&folder(&all)))
                .err()
                .unwrap()
                .to_string();
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{files:?}: {error}"
            );
            assert!(error.contains(files[0]), "{files:?}: {error}");
        }
    }
    // What another folder holds is another thing.
    let error = block_on(ModelFiles::open(&folder(&[("sae/ae.pt", vec![1])]))).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("no model in memory"), "{error}");
}

#[test]
fn nothing_from_a_file_is_shown_as_it_is() {
    let mut rng = seeded("shown");
    for _ in 0..20 {
        let size = [9, 300, 100_000, 5 << 20][rng.random_range(0..4)];
        let bad = [
            "\x1b[2J",
            "\u{202e}",
            "\u{7}",
            "\r\n",
            "\u{200b}",
            "\u{9b}31m",
        ];
        let [one, two, three] = [0; 3].map(|_| bad[rng.random_range(0..bad.len())]);
        let n = "n".repeat(size);
        let name = format!("{one}{n}{two}{n}{three}");
        let quoted = serde_json::to_string(&name).unwrap();
        let entry = |at: usize| {
            format!(
                "{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[{at},{}]}}",
                at + 4
            )
        };
        let safetensors = |header: String| {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.extend([0; 8]);
            file
        };
        let good = vectors(&[("x", &[1.0])]);
        let mut gguf = File::default();
        gguf.key(&name, Stored::text("x"));
        gguf.tensor(&name, &[3], 99, &[0; 12]);
        let mut twice = File::default();
        twice.key(&name, Stored::u32(1));
        twice.key(&name, Stored::u32(1));
        let index = format!("{{\"weight_map\":{{\"a\":{quoted}}}}}").into_bytes();
        let wrong = format!("{{\"weight_map\":{quoted}}}").into_bytes();
        let missing = name.replace(['/', '\\', ':', '?', '#', '%'], "x") + ".safetensors";
        let named = json!({"weight_map": {&name: missing}})
            .to_string()
            .into_bytes();
        let errors = [
            block_on(Checkpoint::open(
                &folder(&[(
                    "model.safetensors",
                    safetensors(format!("{{{quoted}:{}}}", entry(4))),
                )]),
                "model",
            ))
            .err(),
            block_on(Checkpoint::open(
                &folder(&[("model.safetensors", safetensors(format!("{{{quoted}:3}}")))]),
                "model",
            ))
            .err(),
            block_on(Checkpoint::open(
                &folder(&[("model.safetensors.index.json", index)]),
                "model",
            ))
            .err(),
            block_on(Checkpoint::open(
                &folder(&[("model.safetensors.index.json", wrong)]),
                "model",
            ))
            .err(),
            block_on(Checkpoint::open(
                &folder(&[("model.safetensors.index.json", named)]),
                "model",
            ))
            .and_then(|c| block_on(c.vector(&name, 1)))
            .err(),
            block_on(Checkpoint::open(
                &folder(&[("model.safetensors", good)]),
                "model",
            ))
            .and_then(|c| block_on(c.vector(&name, 1)))
            .err(),
            block_on(Gguf::open(
                MemorySource::new(name.clone(), gguf.bytes()).into(),
            ))
            .err(),
            block_on(Gguf::open(MemorySource::new("x", twice.bytes()).into())).err(),
            block_on(Gguf::find(&Folder::memory(
                &name,
                vec![
                    (format!("{name}1.gguf").replace('/', "x"), vec![]),
                    (format!("{name}2.gguf").replace('/', "x"), vec![]),
                ],
            )))
            .err(),
        ];
        for (i, error) in errors.into_iter().enumerate() {
            let message = error
                .unwrap_or_else(|| panic!("{i} was accepted"))
                .to_string();
            assert!(
                message.chars().count() < 2000,
                "{i}: {} characters",
                message.len()
            );
            let plain = |c: char| !c.is_control() && !"\u{202e}\u{200b}".contains(c);
            assert!(message.chars().all(plain), "{i}: {message:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_does_not_hang() {
    let place = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.gguf"] {
        let made = std::process::Command::new("mkfifo")
            .arg(place.path().join(name))
            .status();
        assert!(made.unwrap().success());
    }
    let error = block_on(ModelFiles::open(&Folder::directory(place.path()))).err();
    let error = error.unwrap().to_string();
    assert!(error.contains("no plain file"), "{error}");
    let error = FileSource::open(place.path().join("model.gguf"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("no plain file"), "{error}");
    let error = FileSource::open("/dev/zero").err().unwrap();
    assert!(error.to_string().contains("a device"), "{error}");
}
