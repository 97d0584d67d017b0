//! Random checkpoints of the Phi-3 architecture.

use std::collections::BTreeMap;

use half::bf16;
use phi3_steer::checkpoint::Folder;
use phi3_steer::phi3::Config;
use phi3_steer::quant::{self, Format};
use rand::Rng;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::numbers;

/// A tensor of bf16 numbers, held as f32.
#[derive(Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A model of random weights.
#[derive(Clone)]
pub struct RandomModel {
    pub json: Value,
    pub config: Config,
    pub tensors: BTreeMap<String, Tensor>,
}

/// `config.json` of a small model; `change` replaces entries.
pub fn config(change: Value) -> Value {
    let mut config = json!({
        "model_type": "phi3", "vocab_size": 333, "hidden_size": 96, "intermediate_size": 160,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 48,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256,
        "sliding_window": null, "rope_scaling": null, "hidden_act": "silu", "tie_word_embeddings": false
    });
    if let (Some(all), Value::Object(change)) = (config.as_object_mut(), change) {
        all.extend(change);
    }
    config
}

/// Sizes that fit nothing: GQA, a rotated part of the head, a window, K and N off the tiles.
pub fn odd_config() -> Value {
    config(json!({
        "hidden_size": 100, "intermediate_size": 148, "num_attention_heads": 6, "num_key_value_heads": 2,
        "head_dim": 22, "partial_rotary_factor": 0.75, "sliding_window": 6, "vocab_size": 301,
        "num_hidden_layers": 3
    }))
}

/// A tied head, and the head size of Phi-3.
pub fn tied_config() -> Value {
    config(json!({
        "hidden_size": 192, "head_dim": 96, "tie_word_embeddings": true, "vocab_size": 257
    }))
}

impl RandomModel {
    /// Weights that keep the size of what passes through them, under the configuration `json`.
    pub fn new(rng: &mut StdRng, json: Value) -> Self {
        let config = Config::from_json(json.to_string().as_bytes()).expect("a configuration");
        let c = &config;
        let d = c.hidden_size;
        let mut shapes = vec![
            (
                "model.embed_tokens.weight".to_string(),
                vec![c.vocab_size, d],
            ),
            ("model.norm.weight".to_string(), vec![d]),
        ];
        if !c.tie_word_embeddings {
            shapes.push(("lm_head.weight".into(), vec![c.vocab_size, d]));
        }
        for i in 0..c.num_hidden_layers {
            let own = [
                ("input_layernorm", vec![d]),
                ("self_attn.qkv_proj", vec![c.qkv_rows(), d]),
                ("self_attn.o_proj", vec![d, c.attention_width()]),
                ("post_attention_layernorm", vec![d]),
                ("mlp.gate_up_proj", vec![2 * c.intermediate_size, d]),
                ("mlp.down_proj", vec![d, c.intermediate_size]),
            ];
            let own = own.map(|(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape));
            shapes.extend(own);
        }
        let mut tensors = BTreeMap::new();
        for (name, shape) in shapes {
            let n = shape.iter().product();
            let values: Vec<f32> = match shape[..] {
                [_] => (0..n).map(|_| rng.random_range(0.5..1.5)).collect(),
                _ if name.contains("embed") => numbers(rng, n, 1.7),
                _ => numbers(rng, n, (3.0 / shape[1] as f32).sqrt()),
            };
            let values = values
                .into_iter()
                .map(|v| bf16::from_f32(v).to_f32())
                .collect();
            tensors.insert(name, Tensor { shape, values });
        }
        Self {
            json,
            config,
            tensors,
        }
    }

    /// The model as 4 bits leave it.
    pub fn quantised(&self) -> Self {
        let mut after = self.clone();
        for tensor in after.tensors.values_mut() {
            if let [_, k] = tensor.shape[..] {
                let planes = quant::quantize(&tensor.values, k, Format::Q4);
                tensor.values = quant::dequantize(&planes, k);
            }
        }
        after
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> &[f32] {
        &self.tensors[name].values
    }

    /// `model.safetensors`, in bf16.
    pub fn safetensors(&self) -> Vec<u8> {
        let bytes: Vec<(&String, &Tensor, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, t)| {
                let halves = t.values.iter().map(|v| bf16::from_f32(*v).to_le_bytes());
                (name, t, halves.flatten().collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, tensor, data)| {
            let view = TensorView::new(Dtype::BF16, tensor.shape.clone(), data);
            (name, view.expect("shape and bytes agree"))
        });
        safetensors::serialize(views, None).expect("a file")
    }

    /// `config.json` and `model.safetensors`.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        vec![
            ("config.json".into(), self.json.to_string().into_bytes()),
            ("model.safetensors".into(), self.safetensors()),
        ]
    }

    /// The model's files, in memory.
    pub fn folder(&self) -> Folder {
        Folder::memory("a random model", self.files())
    }

    /// `n` random tokens.
    pub fn tokens(&self, rng: &mut StdRng, n: usize) -> Vec<u32> {
        let vocab = self.config.vocab_size as u32;
        (0..n).map(|_| rng.random_range(0..vocab)).collect()
    }
}
