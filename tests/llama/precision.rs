//! What quantising plain numbers costs a small real model: the figures of BENCHMARKS.md.

use std::io::Write;
use std::path::Path;

use phi3_steer::checkpoint::Folder;
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{ModelFiles, Precision};
use phi3_steer::tokens::{Message, Role};
use pollster::block_on;
use serde_json::{Value, json};

use super::small_model::{Reference, file, folder, user};
use super::{load, logits};

/// Chats that are read; a software adapter takes a while for each.
const CHATS: usize = 1;

/// The model's numbers as Hugging Face publishes such a model: each matrix by itself, in f32.
fn publish(reference: &Reference, out: &Path) {
    let config = &reference.config;
    let json = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size, "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads, "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta, "tie_word_embeddings": true,
        "max_position_embeddings": config.max_position_embeddings
    });
    std::fs::write(out.join("config.json"), json.to_string()).expect("a file");
    let weights = out.join("model.safetensors");
    candle_core::safetensors::save(&reference.tensors, weights).expect("a file");
}

/// Natural logarithms of the probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f64::MIN, |m, v| m.max(f64::from(*v)));
    let sum: f64 = logits.iter().map(|v| (f64::from(*v) - most).exp()).sum();
    let whole = most + sum.ln();
    logits.iter().map(|v| f64::from(*v) - whole).collect()
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len())
        .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
        .unwrap_or(0)
}

/// Nats a token from the unquantised model's distribution, and the share of tokens whose likeliest one is the
/// same.
fn compare(exact: &[Vec<f32>], own: &[Vec<f32>]) -> (f64, f64) {
    let (mut nats, mut same) = (0.0, 0);
    for (exact, own) in exact.iter().zip(own) {
        same += usize::from(likeliest(exact) == likeliest(own));
        let (p, q) = (log_softmax(exact), log_softmax(own));
        nats += p
            .iter()
            .zip(&q)
            .map(|(p, q)| p.exp() * (p - q))
            .sum::<f64>();
    }
    let count = exact.len() as f64;
    (nats / count, same as f64 / count)
}

#[test]
fn a_small_real_model_keeps_its_numbers_at_8_bits_and_not_at_4() {
    let Some(path) = file() else { return };
    let published = tempfile::tempdir().expect("a folder");
    publish(&Reference::open(&path), published.path());
    let plain = Folder::directory(published.path());
    let files = block_on(ModelFiles::open(&folder(&path))).expect("a model");
    let tokenizer = block_on(files.tokenizer()).expect("a tokenizer");
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("sets/real.json");
    let sets: Value = serde_json::from_slice(&std::fs::read(sets).expect("sets")).expect("sets");
    let all = sets["splits"]["test"]["sets"].as_array().expect("sets");
    let replies = all.iter().find(|set| set["name"] == "perplexity");
    let replies = replies
        .and_then(|set| set["items"].as_array())
        .expect("replies");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let chats: Vec<Vec<u32>> = replies[..CHATS]
        .iter()
        .map(|item| {
            let reply = Message {
                role: Role::Assistant,
                content: text(&item["reference"]),
            };
            let asked = user(&text(&item["messages"][0]["content"]));
            tokenizer.chat(&[asked, reply], false).expect("tokens").ids
        })
        .collect();
    let measure = |precision: Precision| {
        let mut model = load(&plain, precision);
        let formats: Vec<&str> = model.formats().iter().map(|f| f.name()).collect();
        let read = chats.iter().flat_map(|ids| logits(&mut model, ids));
        (
            read.collect::<Vec<_>>(),
            formats.join(", "),
            model.gpu_bytes(),
        )
    };
    let (exact, formats, bytes) = measure(Format::F32.into());
    assert_eq!(formats, "f32");
    println!("{} tokens, f32 {bytes} bytes on the GPU", exact.len());
    let [q4, own] = [Format::Q4.into(), Precision::BySize].map(|precision| {
        let (read, formats, bytes) = measure(precision);
        let (nats, same) = compare(&exact, &read);
        println!(
            "{precision:?}: {formats}, {bytes} bytes, {nats:.4} nats, {:.1}%",
            100.0 * same
        );
        std::io::stdout().flush().expect("a terminal");
        (formats, bytes, nats, same)
    });
    // A model of this size is kept at 8 bits, and that is why.
    assert_eq!(own.0, "q8");
    assert!(own.2 < 0.005 && own.3 > 0.95, "{own:?}");
    assert!(q4.2 > 20.0 * own.2 && q4.3 < own.3, "{q4:?}");
}
