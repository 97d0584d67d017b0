//! The nano model as a GGUF file: the logits and answers of its weights in safetensors, and candle's.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor as Candle};
use candle_transformers::models::quantized_phi3::ModelWeights;
use rand::Rng;
use serde_json::Value;

use crate::file::{File, Stored};
use crate::fixture::{Tensor, nano, read, run, succeed, write};
use crate::vocabulary::Vocabulary;

/// The nano model's weights in f32, and its `config.json`.
fn weights() -> (HashMap<String, Tensor>, Value) {
    let tensors = candle_core::safetensors::load(nano("model.safetensors"), &Device::Cpu).unwrap();
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
        let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        (name, (tensor.dims().to_vec(), values))
    });
    let config = std::fs::read(nano("config.json")).unwrap();
    (tensors.collect(), serde_json::from_slice(&config).unwrap())
}

/// The name that GGUF files have for a tensor.
fn gguf_name(name: &str) -> String {
    let kinds = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    kinds.iter().fold(name.to_string(), |name, (long, short)| {
        name.replace(long, short)
    })
}

/// Writes the nano model to `model.gguf` in `place`, each matrix as `kind` says for its name, and what
/// the file means, in f32, to a folder `same`.
fn write_both(place: &Path, kind: Kind) {
    let (tensors, config) = weights();
    let mut file = File::default();
    file.key("general.architecture", Stored::text("phi3"));
    let number = |name: &str| config[name].as_u64().unwrap() as u32;
    let head = number("hidden_size") / number("num_attention_heads");
    for (key, value) in [
        ("context_length", number("max_position_embeddings")),
        ("embedding_length", number("hidden_size")),
        ("feed_forward_length", number("intermediate_size")),
        ("block_count", number("num_hidden_layers")),
        ("attention.head_count", number("num_attention_heads")),
        ("attention.head_count_kv", number("num_key_value_heads")),
        ("rope.dimension_count", head),
        ("attention.sliding_window", 0),
    ] {
        file.key(&format!("phi3.{key}"), Stored::u32(value));
    }
    let eps = config["rms_norm_eps"].as_f64().unwrap() as f32;
    file.key("phi3.attention.layer_norm_rms_epsilon", Stored::f32(eps));
    Vocabulary::nano().write(&mut file);
    let mut same = HashMap::new();
    for (name, (shape, values)) in tensors {
        let kind = match shape.len() {
            1 => GgmlDType::F32,
            _ => kind(&name),
        };
        let tensor = Candle::from_vec(values, &shape[..], &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, kind).unwrap();
        let number = match kind {
            GgmlDType::F32 => 0,
            GgmlDType::Q8_0 => 8,
            GgmlDType::Q4K => 12,
            GgmlDType::Q6K => 14,
            other => panic!("{other:?}"),
        };
        let data = tensor.data().unwrap();
        file.tensor(&gguf_name(&name), &shape, number, &data);
        let values = tensor.dequantize(&Device::Cpu).unwrap();
        let values = values.flatten_all().unwrap().to_vec1().unwrap();
        same.insert(name, (shape, values));
    }
    std::fs::write(place.join("model.gguf"), file.bytes()).unwrap();
    let folder = place.join("same");
    std::fs::create_dir(&folder).unwrap();
    write(&folder.join("model.safetensors"), &same);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(nano(name), folder.join(name)).unwrap();
    }
}

/// Root of the mean square of the differences, relative to that of `expected`.
fn difference(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square =
        |pairs: &mut dyn Iterator<Item = f32>| -> f64 { pairs.map(|v| f64::from(v).powi(2)).sum() };
    let error = square(&mut got.iter().zip(expected).map(|(g, e)| g - e));
    (error / square(&mut expected.iter().copied())).sqrt()
}

/// The last logits of candle's own quantised Phi-3.
fn candle(path: &Path, ids: &[u32]) -> Vec<f32> {
    let mut file = std::fs::File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut model = ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu).unwrap();
    let ids = Candle::new(ids, &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let logits = model.forward(&ids, 0).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

/// How a matrix is stored, by its name.
type Kind = fn(&str) -> GgmlDType;

#[test]
fn a_gguf_file_is_the_model_that_it_was_made_of() {
    let mixes: [(&str, Kind); 2] = [
        ("Q8_0", |_| GgmlDType::Q8_0),
        // K-quants where rows are whole blocks of 256, as llama.cpp does.
        ("Q4_K and Q6_K", |name| match name {
            name if name.contains("layers.1.mlp.down") => GgmlDType::Q6K,
            name if name.contains("mlp.down") => GgmlDType::Q4K,
            _ => GgmlDType::Q8_0,
        }),
    ];
    for (mix, kind) in mixes {
        let place = tempfile::tempdir().unwrap();
        write_both(place.path(), kind);
        let path = |name: &str| place.path().join(name).to_str().unwrap().to_string();
        let (gguf, same) = (path("model.gguf"), path("same"));
        let ids: Vec<u32> = std::iter::once(1)
            .chain((0..40).map(|_| rand::rng().random_range(259..3066)))
            .collect();
        println!("{mix}: tokens {ids:?}");
        let list: Vec<String> = ids.iter().map(u32::to_string).collect();
        let logits = |model: &str| {
            let out = path("logits.safetensors");
            let mut args = vec!["logits", "--model", model, "--quant", "none", "--out", &out];
            let list = list.join(",");
            args.extend(["--ids", &list]);
            succeed(&args, "");
            read(Path::new(&out)).remove("logits").unwrap()
        };
        let (shape, got) = logits(&gguf);
        let (_, expected) = logits(&same);
        let error = difference(&got, &expected);
        let vocab = shape[1];
        let last = &got[got.len() - vocab..];
        let reference = candle(Path::new(&gguf), &ids);
        let by_candle = difference(last, &reference);
        println!("{mix}: {error:.2e} from the same weights, {by_candle:.2e} from candle");
        // Scales of K-quants are rounded to f16; candle rounds activations to 8 bits.
        assert!(error < 2e-3, "{mix}: {error}");
        assert!(by_candle < 0.1, "{mix}: {by_candle}");

        // It answers, from a file, from a folder, and as the same weights do.
        let prompt = [
            "--prompt",
            "What is the capital of France?",
            "--max-tokens",
            "16",
        ];
        let answer = |model: &str, quant: &str| {
            let start = ["generate", "--model", model, "--quant", quant];
            succeed(&[&start[..], &prompt].concat(), "")
        };
        assert_eq!(answer(&gguf, "none"), answer(&same, "none"));
        let text = answer(&gguf, "q4");
        assert!(text.contains("Paris"), "{mix}: {text}");
        std::fs::remove_dir_all(&same).unwrap();
        assert_eq!(answer(place.path().to_str().unwrap(), "q4"), text);

        let text = "How do I bake <|end|>  bread?\n";
        let tokens = |model: &str| succeed(&["tokenize", "--model", model], text);
        assert_eq!(tokens(&gguf), tokens(nano("").to_str().unwrap()));
    }
}

#[test]
fn a_vocabulary_alone_makes_tokens_but_no_model() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("vocabulary.gguf");
    std::fs::write(&path, Vocabulary::nano().file().bytes()).unwrap();
    let path = path.to_str().unwrap();
    let tokens = |model: &str| {
        let args = ["tokenize", "--chat", "--model", model];
        succeed(&args, r#"[{"role": "user", "content": "Hi"}]"#)
    };
    assert_eq!(tokens(path), tokens(nano("").to_str().unwrap()));
    let refused = |model: &str| {
        let output = run(&["generate", "--model", model, "--prompt", "Hi"], "");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    let error = refused(path);
    assert!(
        error.contains("vocabulary.gguf") && error.contains("phi3."),
        "{error}"
    );
    // What is no model at all, as a file or in a folder.
    let pickle = place.path().join("old/pytorch_model.bin");
    std::fs::create_dir(pickle.with_file_name("")).unwrap();
    std::fs::write(&pickle, b"PK").unwrap();
    for place in [&pickle, &pickle.with_file_name("")] {
        let error = refused(place.to_str().unwrap());
        assert!(
            error.contains("\"pytorch_model.bin\" is a PyTorch file"),
            "{error}"
        );
    }
}
