//! Models of GGUF files: their configuration, and which file of a folder is opened.

use crate::file::{File, Stored};
use crate::vocabulary::{NANO, NANO_CONFIG, Vocabulary};
use phi3_steer::checkpoint::{Folder, Gguf, MemorySource};
use phi3_steer::phi3::{Config, ModelError, ModelFiles};
use pollster::block_on;
use rand::Rng;
use serde_json::{Value, json};

/// The keys of Phi-3-mini-4k-instruct as Microsoft published it, before there was one for the window.
fn mini() -> File {
    let mut file = File::default();
    file.key("general.architecture", Stored::text("phi3"));
    for (key, value) in [
        ("context_length", 4096),
        ("embedding_length", 3072),
        ("feed_forward_length", 8192),
        ("block_count", 32),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 32),
        ("rope.dimension_count", 96),
    ] {
        file.key(&format!("phi3.{key}"), Stored::u32(value));
    }
    file.key("phi3.attention.layer_norm_rms_epsilon", Stored::f32(1e-5));
    let tokens: Vec<String> = (0..32_064).map(|id| format!("{id}")).collect();
    file.key("tokenizer.ggml.tokens", Stored::texts(&tokens));
    file.key("tokenizer.ggml.bos_token_id", Stored::u32(1));
    // A head of its own, of no matter what.
    file.tensor("output.weight", &[1], 0, &[0; 4]);
    file
}

fn set(file: &mut File, key: &str, value: Stored) {
    file.keys.retain(|(k, _)| k != key);
    file.key(key, value);
}

fn read(file: &File) -> Result<(Config, String), ModelError> {
    let source = MemorySource::new("model.gguf", file.bytes());
    let gguf = block_on(Gguf::open(source.into())).expect("is a GGUF file");
    block_on(Config::from_gguf(&gguf))
}

/// `config.json` of Phi-3-mini-4k-instruct.
fn mini_json() -> Value {
    json!({
        "model_type": "phi3", "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "sliding_window": 2047, "rope_scaling": null,
        "hidden_act": "silu", "tie_word_embeddings": false,
    })
}

fn same_as(file: &File, json: &Value) {
    let (config, text) = read(file).unwrap();
    let expected = Config::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(config, expected);
    assert_eq!(Config::from_json(text.as_bytes()).unwrap(), expected);
}

#[test]
fn the_configuration_is_that_of_config_json() {
    same_as(&mini(), &mini_json());
    let (_, text) = read(&mini()).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["bos_token_id"], 1);
    assert_eq!(written["rms_norm_eps"], 1e-5);

    let (mut file, mut json) = (mini(), mini_json());
    set(&mut file, "phi3.attention.sliding_window", Stored::u32(0));
    json["sliding_window"] = Value::Null;
    same_as(&file, &json);
    set(&mut file, "phi3.attention.sliding_window", Stored::u32(777));
    json["sliding_window"] = json!(777);
    same_as(&file, &json);

    // Another model's sizes: Phi-4-mini's kind of attention, and a tied head.
    let (mut file, mut json) = (mini(), mini_json());
    for (key, name, value) in [
        ("attention.head_count", "num_attention_heads", 24),
        ("attention.head_count_kv", "num_key_value_heads", 8),
        ("embedding_length", "hidden_size", 24 * 128),
        ("context_length", "max_position_embeddings", 8192),
        ("block_count", "num_hidden_layers", 5),
    ] {
        set(&mut file, &format!("phi3.{key}"), Stored::u32(value));
        json[name] = json!(value);
    }
    set(&mut file, "phi3.rope.freq_base", Stored::f32(12345.5));
    json["rope_theta"] = json!(12345.5);
    json["sliding_window"] = Value::Null;
    json["original_max_position_embeddings"] = json!(8192);
    (file.tensors, file.data) = (Vec::new(), Vec::new());
    file.tensor("token_embd.weight", &[7, 32], 8, &[0; 7 * 34]);
    json["tie_word_embeddings"] = json!(true);
    json["vocab_size"] = json!(7);
    for rotary in (2..=128).step_by(2) {
        set(&mut file, "phi3.rope.dimension_count", Stored::u32(rotary));
        let (config, text) = read(&file).unwrap();
        assert_eq!(config.rotary_dim, rotary as usize);
        json["partial_rotary_factor"] =
            serde_json::from_str::<Value>(&text).unwrap()["partial_rotary_factor"]
                .as_f64()
                .unwrap_or(1.0)
                .into();
        same_as(&file, &json);
    }
}

#[test]
fn long_rope_is_that_of_config_json() {
    let mut rng = rand::rng();
    // Decimals as in `config.json`; the file has the nearest f32.
    let mut draw = || -> Vec<f64> {
        let factors = (0..48).map(|_| f64::from(rng.random_range(100..6500)) / 100.0);
        factors.collect()
    };
    let (long, short) = (draw(), draw());
    println!("factors {long:?} {short:?}");
    let (mut file, mut json) = (mini(), mini_json());
    set(&mut file, "phi3.context_length", Stored::u32(131_072));
    set(
        &mut file,
        "phi3.rope.scaling.original_context_length",
        Stored::u32(4096),
    );
    set(
        &mut file,
        "phi3.attention.sliding_window",
        Stored::u32(262_144),
    );
    for (name, factors) in [("long", &long), ("short", &short)] {
        let bytes = factors.iter().flat_map(|f| (*f as f32).to_le_bytes());
        let bytes: Vec<u8> = bytes.collect();
        file.tensor(&format!("rope_factors_{name}.weight"), &[48], 0, &bytes);
    }
    json["max_position_embeddings"] = json!(131_072);
    json["sliding_window"] = json!(262_144);
    json["rope_scaling"] = json!({"type": "su", "long_factor": long, "short_factor": short});
    same_as(&file, &json);
    // The converter writes the factor that is else computed, as f32.
    let factor = (1.0f64 + 32f64.ln() / 4096f64.ln()).sqrt();
    set(
        &mut file,
        "phi3.rope.scaling.attn_factor",
        Stored::f32(factor as f32),
    );
    let rope = read(&file).unwrap().0.rope_scaling.unwrap();
    assert_eq!((rope.long, rope.short), (long, short));
    assert!((rope.attention_factor - factor).abs() < 1e-7);
    // Factors for another number of frequencies.
    set(&mut file, "phi3.rope.dimension_count", Stored::u32(64));
    let error = read(&file).unwrap_err().to_string();
    assert!(error.starts_with("model.gguf: rope_scaling: "), "{error}");
    let at = file.tensors.len() - 1;
    file.tensors[at].encoding = 1;
    let error = read(&file).unwrap_err().to_string();
    assert!(
        error.contains("\"rope_factors_short.weight\" is F16"),
        "{error}"
    );
}

#[test]
fn configurations_that_cannot_run_are_refused() {
    let refused = |change: &dyn Fn(&mut File)| {
        let mut file = mini();
        change(&mut file);
        read(&file).expect_err("was accepted").to_string()
    };
    type Change = fn(&mut File);
    let cases: [(Change, &str); 9] = [
        (
            |f| set(f, "general.architecture", Stored::text("qwen2")),
            "\"qwen2\"",
        ),
        (
            |f| f.keys.retain(|(k, _)| k != "general.architecture"),
            "general.architecture",
        ),
        (
            |f| f.keys.retain(|(k, _)| k != "phi3.block_count"),
            "phi3.block_count",
        ),
        (
            |f| set(f, "phi3.block_count", Stored::text("32")),
            "is a text, not an integer",
        ),
        (
            |f| set(f, "phi3.attention.head_count", Stored::u32(0)),
            "num_attention_heads is 0",
        ),
        (
            |f| set(f, "phi3.attention.head_count_kv", Stored::u32(5)),
            "evenly",
        ),
        (
            |f| {
                set(
                    f,
                    "phi3.attention.layer_norm_rms_epsilon",
                    Stored::f32(f32::NAN),
                )
            },
            "layer_norm_rms_epsilon\" is a number, not a finite number",
        ),
        (
            |f| set(f, "split.count", Stored::u32(3)),
            "one of the 3 files",
        ),
        (
            |f| f.tensor("rope_factors_long.weight", &[48], 0, &[0; 192]),
            "not both",
        ),
    ];
    for (i, (change, says)) in cases.into_iter().enumerate() {
        let error = refused(&change);
        assert!(error.starts_with("model.gguf: "), "{i}: {error}");
        assert!(error.contains(says), "{i}: {error}");
    }
}

/// A model so small that it is a vocabulary with a configuration.
fn nano() -> File {
    let mut file = mini();
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    Vocabulary::nano().write(&mut file);
    file
}

fn folder(files: &[(&str, Vec<u8>)]) -> Folder {
    let files = files.iter().map(|(n, b)| (n.to_string(), b.clone()));
    Folder::memory("memory", files.collect())
}

fn refused(files: &[(&str, Vec<u8>)]) -> String {
    match block_on(ModelFiles::open(&folder(files))) {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn whatever_a_folder_holds_is_opened() {
    let gguf = nano().bytes();
    let (json, tensors) = (mini_json().to_string().into_bytes(), {
        let mut file = 2u64.to_le_bytes().to_vec();
        file.extend(b"{}");
        file
    });
    let files = block_on(ModelFiles::open(&folder(&[
        ("README.md", vec![1]),
        ("Phi-3.Q4.GGUF", gguf.clone()),
    ])))
    .unwrap();
    assert_eq!(files.config.vocab_size, 3072);
    let tokenizer = block_on(files.tokenizer()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 3072);
    let written = files.tokenizer_files().unwrap().unwrap();
    let again = phi3_steer::tokens::ChatTokenizer::from_files(&written);
    assert_eq!(
        again.unwrap().encode("Hello").unwrap(),
        tokenizer.encode("Hello").unwrap()
    );
    // A configuration goes first.
    let both = [
        ("config.json", json.clone()),
        ("model.safetensors", tensors),
        ("a.gguf", gguf.clone()),
        ("b.gguf", gguf.clone()),
        ("tokenizer.json", NANO.to_vec()),
        ("tokenizer_config.json", NANO_CONFIG.to_vec()),
    ];
    let files = block_on(ModelFiles::open(&folder(&both))).unwrap();
    assert_eq!(files.config.vocab_size, 32064);
    assert_eq!(files.config_json().as_bytes(), json);
    assert!(files.tokenizer_files().unwrap().is_none());
    assert_eq!(block_on(files.tokenizer()).unwrap().vocab_size(), 3072);

    let error = refused(&[("b.gguf", gguf.clone()), ("a.gguf", gguf.clone())]);
    assert!(
        error.contains("memory holds several GGUF files (a.gguf, b.gguf)"),
        "{error}"
    );
    let error = refused(&[("sub/a.gguf", gguf.clone()), ("model.safetensors", vec![])]);
    assert!(
        error.contains("config.json") && error.contains(".gguf"),
        "{error}"
    );
    for pickle in ["pytorch_model.bin", "model.PT"] {
        let error = refused(&[(pickle, vec![])]);
        assert!(
            error.contains(pickle) && error.contains("safetensors"),
            "{error}"
        );
        let error = refused(&[("config.json", json.clone()), (pickle, vec![])]);
        assert!(error.contains(pickle), "{error}");
    }
    let error = refused(&[("config.json", json)]);
    assert!(error.contains("model.safetensors.index.json"), "{error}");
}

#[test]
fn files_on_disk_are_listed_and_stand_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let all = Folder::directory(place.path());
    for (name, bytes) in [("b.gguf", nano().bytes()), ("a.txt", vec![1, 2])] {
        std::fs::write(path(name), bytes).unwrap();
    }
    std::fs::create_dir(path("c.gguf")).unwrap();
    let names = all.names().unwrap();
    assert_eq!(names, Some(vec!["a.txt".into(), "b.gguf".into()]));
    let files = block_on(ModelFiles::open(&all)).unwrap();
    assert_eq!(files.config.hidden_size, 3072);

    let one = Folder::file(path("b.gguf"));
    assert_eq!(one.names().unwrap(), Some(vec!["b.gguf".into()]));
    assert_eq!(
        block_on(ModelFiles::open(&one)).unwrap().config.hidden_size,
        3072
    );
    assert!(block_on(one.open("a.txt")).unwrap().is_none());
    let text = Folder::file(path("a.txt"));
    assert_eq!(block_on(text.require_bytes("a.txt", 9)).unwrap(), [1, 2]);
    let error = block_on(ModelFiles::open(&text)).err().unwrap().to_string();
    assert!(error.contains("a.txt: looked for config.json"), "{error}");
    let nowhere = Folder::directory(path("none"));
    assert!(
        nowhere
            .names()
            .unwrap_err()
            .to_string()
            .contains("no folder")
    );
}
