//! What the quantiser's search for scales buys over plain rounding, on the nano model's logits.

use std::path::Path;

use half::f16;
use phi3_steer::checkpoint::{BLOCK_BYTES, CheckpointError, Folder};
use phi3_steer::phi3::{CacheFormat, ModelFiles};
use phi3_steer::quant::{Format, GROUP, dequantize, quantize};
use phi3_steer::tokens::Message;
use pollster::block_on;
use serde_json::{Value, json};

use crate::support::checkpoint::{RandomModel, Tensor};
use crate::support::reference;

/// Prompts of the evaluation set that are run.
const PROMPTS: usize = 12;

fn nano() -> (ModelFiles, RandomModel) {
    let folder = Folder::directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano"));
    let files = block_on(ModelFiles::open(&folder)).unwrap();
    let mut model = RandomModel {
        json: json!({}),
        config: files.config.clone(),
        tensors: Default::default(),
    };
    let names: Vec<String> = files.checkpoint.names().map(String::from).collect();
    for name in names {
        let shape = files.checkpoint.info(&name).unwrap().shape.clone();
        let mut values = Vec::new();
        let rows = files
            .checkpoint
            .rows(&name, &shape, BLOCK_BYTES, |_, rows| {
                values.extend_from_slice(rows);
                Ok::<_, CheckpointError>(())
            });
        block_on(rows).unwrap();
        model.tensors.insert(name, Tensor { shape, values });
    }
    (files, model)
}

/// The model with its matrices changed, row by row.
fn with(model: &RandomModel, change: impl Fn(&[f32], usize) -> Vec<f32>) -> RandomModel {
    let mut changed = model.clone();
    for tensor in changed.tensors.values_mut() {
        if let [_, k] = tensor.shape[..] {
            tensor.values = change(&tensor.values, k);
        }
    }
    changed
}

/// Groups of 32 rounded to levels `scale * l`, `l` from -8 to 7, with the scale that `rule` makes of
/// a group's weight of largest magnitude.
fn plain(values: &[f32], rule: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for group in values.chunks(GROUP) {
        let larger = |m: f32, v: &f32| if v.abs() > m.abs() { *v } else { m };
        let scale = f16::from_f32(rule(group.iter().fold(0.0, larger))).to_f32();
        let level = |v: f32| (v / scale).round().clamp(-8.0, 7.0);
        let rounded = group
            .iter()
            .map(|v| if scale == 0.0 { 0.0 } else { scale * level(*v) });
        out.extend(rounded);
    }
    out
}

/// Token sequences of chats.
fn prompts(files: &ModelFiles) -> Vec<Vec<u32>> {
    let eval = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/nano/eval.json");
    let eval: Value = serde_json::from_slice(&std::fs::read(eval).unwrap()).unwrap();
    let tokenizer = block_on(files.tokenizer()).unwrap();
    let sets = eval["splits"]["test"]["sets"].as_array().unwrap();
    let items = sets
        .iter()
        .map(|set| &set["items"][0])
        .cycle()
        .take(PROMPTS);
    let prompts = items.map(|item| {
        let messages: Vec<Message> = serde_json::from_value(item["messages"].clone()).unwrap();
        tokenizer.chat(&messages, true).unwrap().ids
    });
    prompts.collect()
}

/// The logits of all tokens of all prompts.
fn logits(model: &RandomModel, prompts: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let pass = |ids: &Vec<u32>| reference::plain(model, CacheFormat::F32, ids).logits;
    prompts.iter().flat_map(pass).collect()
}

/// What rounding weights does to logits.
struct Loss {
    /// Root mean square of the change, of the logits' standard deviation.
    logits: f64,
    /// Kullback-Leibler divergence from the unrounded distribution, in nats a token.
    divergence: f64,
    /// Share of tokens whose likeliest successor stays.
    agreement: f64,
}

fn loss(before: &[Vec<f64>], after: &[Vec<f64>]) -> Loss {
    let (mut off, mut size, mut divergence, mut same) = (0.0, 0.0, 0.0, 0);
    for (p, q) in before.iter().zip(after) {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (p_mean, q_mean) = (mean(p), mean(q));
        let total = |x: &[f64]| x.iter().map(|x| x.exp()).sum::<f64>().ln();
        let (p_total, q_total) = (total(p), total(q));
        for (p, q) in p.iter().zip(q) {
            off += ((p - p_mean) - (q - q_mean)).powi(2);
            size += (p - p_mean).powi(2);
            divergence += (p - p_total).exp() * ((p - p_total) - (q - q_total));
        }
        same += usize::from(reference::likeliest(p) == reference::likeliest(q));
    }
    let tokens = before.len() as f64;
    Loss {
        logits: (off / size).sqrt(),
        divergence: divergence / tokens,
        agreement: same as f64 / tokens,
    }
}

#[test]
fn searching_for_scales_is_better_than_rounding() {
    let (files, model) = nano();
    let prompts = prompts(&files);
    let before = logits(&model, &prompts);
    println!("{} tokens of {} prompts", before.len(), prompts.len());
    let measure = |what: &str, changed: &RandomModel| {
        let loss = loss(&before, &logits(changed, &prompts));
        println!(
            "{what}: logits {:.4}, divergence {:.5} nats, agreement {:.4}",
            loss.logits, loss.divergence, loss.agreement
        );
        loss
    };
    let searched = with(&model, |w, k| dequantize(&quantize(w, k, Format::Q4), k));
    let searched = measure("searched, Q4", &searched);
    let even = with(&model, |w, _| plain(w, |extreme| extreme.abs() / 7.0));
    let even = measure("largest on 7", &even);
    let ggml = with(&model, |w, _| plain(w, |extreme| extreme / -8.0));
    let ggml = measure("largest on -8 (Q4_0)", &ggml);
    let eight = with(&model, |w, k| dequantize(&quantize(w, k, Format::Q8), k));
    let eight = measure("Q8", &eight);
    assert!(searched.logits < even.logits && searched.logits < ggml.logits);
    assert!(searched.divergence < even.divergence);
    assert!(searched.divergence < ggml.divergence);
    assert!(eight.logits < searched.logits / 4.0);
    assert!(searched.agreement > 0.9);
}
