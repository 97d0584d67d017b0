//! Random small checkpoints in the Hugging Face layout, and what they compute: by candle's Phi-3 and by
//! a plain reference in f64.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::phi3;
use half::{bf16, f16};
use phi3_steer::checkpoint::Folder;
use phi3_steer::matrix::Format;
use rand::rngs::StdRng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::reference::{attend, effective, norm, product, rotate, silu};
use crate::support::normal;

/// The sizes of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub vocab: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Elements of a head that turn.
    pub rotary: usize,
    /// The residual stream's width; candle needs `heads * head_dim`.
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub window: Option<usize>,
    pub tied: bool,
    pub positions: usize,
    /// LongRoPE beyond this many positions.
    pub pretrained: Option<usize>,
}

impl Sizes {
    /// Two blocks of `heads` heads of `head_dim`, fully rotated.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            vocab: 97,
            heads,
            kv_heads,
            head_dim,
            rotary: head_dim,
            hidden: heads * head_dim,
            inner: 132,
            layers: 2,
            window: None,
            tied: false,
            positions: 1024,
            pretrained: None,
        }
    }
}

const THETA: f64 = 10_000.0;
const EPSILON: f64 = 1e-5;

/// LongRoPE's short and long factors for `half` frequencies, neither of them 1.
fn factors(half: usize) -> [Vec<f64>; 2] {
    let of = |a: f64, b: f64| (0..half).map(|i| a + b * i as f64 / half as f64).collect();
    [of(1.05, 0.5), of(1.5, 20.0)]
}

/// A checkpoint, mostly with random weights.
pub struct Random {
    pub sizes: Sizes,
    /// Shape and values of each tensor, as read back from its type.
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    /// The files, `config.json` among them.
    files: Vec<(String, Vec<u8>)>,
}

/// `values` as bytes of `dtype`, and as they read back.
fn stored(values: Vec<f32>, dtype: Dtype) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        Dtype::F16 => {
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            let back = halves.iter().map(|h| h.to_f32()).collect();
            (bytemuck::cast_slice(&halves).to_vec(), back)
        }
        Dtype::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            let back = halves.iter().map(|h| h.to_f32()).collect();
            (bytemuck::cast_slice(&halves).to_vec(), back)
        }
        _ => (bytemuck::cast_slice(&values).to_vec(), values),
    }
}

impl Random {
    /// Weights of the type `dtype`, in `shards` files.
    pub fn new(rng: &mut StdRng, sizes: Sizes, dtype: Dtype, shards: usize) -> Self {
        let s = sizes;
        let mut shapes = vec![("model.embed_tokens".to_string(), vec![s.vocab, s.hidden])];
        for i in 0..s.layers {
            let name = |n: &str| format!("model.layers.{i}.{n}");
            shapes.extend([
                (name("input_layernorm"), vec![s.hidden]),
                (
                    name("self_attn.qkv_proj"),
                    vec![(s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden],
                ),
                (
                    name("self_attn.o_proj"),
                    vec![s.hidden, s.heads * s.head_dim],
                ),
                (name("post_attention_layernorm"), vec![s.hidden]),
                (name("mlp.gate_up_proj"), vec![2 * s.inner, s.hidden]),
                (name("mlp.down_proj"), vec![s.hidden, s.inner]),
            ]);
        }
        shapes.push(("model.norm".into(), vec![s.hidden]));
        if !s.tied {
            shapes.push(("lm_head".into(), vec![s.vocab, s.hidden]));
        }
        let mut tensors = HashMap::new();
        let mut bytes = Vec::new();
        for (name, shape) in shapes {
            let name = format!("{name}.weight");
            let count: usize = shape.iter().product();
            let values = match shape[..] {
                [_] => normal(rng, count, 0.2).iter().map(|v| 1.0 + v).collect(),
                // Queries and keys large enough for attention to choose.
                _ if name.contains("qkv") => normal(rng, count, 1.6 / (s.hidden as f32).sqrt()),
                [_, k] if !name.contains("embed") => normal(rng, count, (k as f32).sqrt().recip()),
                _ => normal(rng, count, 0.7),
            };
            let (raw, values) = stored(values, dtype);
            bytes.push((name.clone(), shape.clone(), raw));
            tensors.insert(name, (shape, values));
        }
        let mut files = vec![("config.json".into(), Self::config(&sizes).into_bytes())];
        let file = |i: usize| match shards {
            1 => "model.safetensors".to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        for shard in 0..shards {
            // Dealt out, so that a block's tensors lie in different files.
            let of_shard = bytes.iter().skip(shard).step_by(shards);
            let views = of_shard.map(|(name, shape, raw)| {
                let view = TensorView::new(dtype, shape.clone(), raw).unwrap();
                (name.as_str(), view)
            });
            files.push((file(shard), safetensors::serialize(views, None).unwrap()));
        }
        if shards > 1 {
            let map: HashMap<_, _> = bytes
                .iter()
                .enumerate()
                .map(|(i, (name, ..))| (name, file(i % shards)))
                .collect();
            let index = serde_json::json!({"metadata": {}, "weight_map": map});
            files.push((
                "model.safetensors.index.json".into(),
                index.to_string().into_bytes(),
            ));
        }
        Self {
            sizes,
            tensors,
            files,
        }
    }

    /// The checkpoint in a folder on disk, of one file.
    pub fn read(folder: &str) -> Self {
        let bytes = |name: &str| std::fs::read(format!("{folder}/{name}")).expect(name);
        let config: serde_json::Value = serde_json::from_slice(&bytes("config.json")).unwrap();
        let number = |key: &str| config[key].as_u64().expect(key) as usize;
        let (heads, hidden) = (number("num_attention_heads"), number("hidden_size"));
        let sizes = Sizes {
            vocab: number("vocab_size"),
            inner: number("intermediate_size"),
            layers: number("num_hidden_layers"),
            positions: number("max_position_embeddings"),
            ..Sizes::new(heads, number("num_key_value_heads"), hidden / heads)
        };
        let file = bytes("model.safetensors");
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let read = |(name, view): (String, TensorView<'_>)| {
            assert_eq!(view.dtype(), Dtype::BF16, "{name}");
            let halves: Vec<bf16> = bytemuck::pod_collect_to_vec(view.data());
            let values = halves.iter().map(|half| half.to_f32()).collect();
            (name, (view.shape().to_vec(), values))
        };
        Self {
            sizes,
            tensors: tensors.tensors().into_iter().map(read).collect(),
            files: Vec::new(),
        }
    }

    /// `config.json`.
    fn config(s: &Sizes) -> String {
        let mut config = serde_json::json!({
            "model_type": "phi3", "vocab_size": s.vocab, "hidden_size": s.hidden,
            "intermediate_size": s.inner, "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
            "rms_norm_eps": EPSILON, "rope_theta": THETA, "rope_scaling": null,
            "max_position_embeddings": s.positions, "sliding_window": s.window,
            "hidden_act": "silu", "tie_word_embeddings": s.tied,
            "bos_token_id": 1, "eos_token_id": 2
        });
        if let Some(pretrained) = s.pretrained {
            let [short, long] = factors(s.rotary / 2);
            config["original_max_position_embeddings"] = pretrained.into();
            config["rope_scaling"] = serde_json::json!({
                "type": "longrope", "short_factor": short, "long_factor": long
            });
        }
        if s.rotary != s.head_dim {
            config["partial_rotary_factor"] = (s.rotary as f64 / s.head_dim as f64).into();
        }
        if s.hidden != s.heads * s.head_dim {
            config["head_dim"] = s.head_dim.into();
        }
        config.to_string()
    }

    /// The files.
    pub fn folder(&self) -> Folder {
        Folder::memory("a random checkpoint", self.files.clone())
    }

    /// The weights that a model of `format` computes with.
    fn weight(&self, name: &str, format: Format) -> Vec<f64> {
        let (shape, values) = &self.tensors[&format!("{name}.weight")];
        match shape[..] {
            [_, k] => effective(values, k, format),
            _ => values.iter().copied().map(f64::from).collect(),
        }
    }

    /// candle's Phi-3 with the weights that a model of `format` computes with.
    pub fn candle(&self, format: Format) -> phi3::Model {
        let tensors = self.tensors.iter().map(|(name, (shape, _))| {
            let values = self.weight(name.trim_end_matches(".weight"), format);
            let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
            let tensor = Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap();
            (name.clone(), tensor)
        });
        let config: phi3::Config = serde_json::from_str(&Self::config(&self.sizes)).unwrap();
        let weights = VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
        phi3::Model::new(&config, weights).unwrap()
    }

    /// The forward pass in f64 over `tokens`: the residual stream after each block, and the logits,
    /// `[tokens, ...]` each.
    pub fn forward(&self, tokens: &[u32], format: Format) -> (Vec<Vec<f64>>, Vec<f64>) {
        let s = &self.sizes;
        let [short, long] = factors(s.rotary / 2);
        let (stretch, size) = match s.pretrained {
            None => (vec![1.0; s.rotary / 2], 1.0),
            Some(p) => {
                let stretch = if tokens.len() > p { long } else { short };
                let scale = s.positions as f64 / p as f64;
                (stretch, (1.0 + scale.ln() / (p as f64).ln()).sqrt())
            }
        };
        let embed = self.weight("model.embed_tokens", format);
        let mut x: Vec<f64> = tokens
            .iter()
            .flat_map(|t| &embed[*t as usize * s.hidden..][..s.hidden])
            .copied()
            .collect();
        let mut after = Vec::new();
        for i in 0..s.layers {
            let weight = |n: &str| self.weight(&format!("model.layers.{i}.{n}"), format);
            let normed = norm(&x, &weight("input_layernorm"), EPSILON);
            let mut qkv = product(&weight("self_attn.qkv_proj"), &normed, s.hidden);
            let row = (s.heads + 2 * s.kv_heads) * s.head_dim;
            for (position, of_row) in qkv.chunks_exact_mut(row).enumerate() {
                let turning = &mut of_row[..(s.heads + s.kv_heads) * s.head_dim];
                for head in turning.chunks_exact_mut(s.head_dim) {
                    rotate(head, THETA, position, &stretch, size);
                }
            }
            let mut attended = Vec::new();
            for position in 0..tokens.len() {
                let first = (position + 1).saturating_sub(s.window.unwrap_or(usize::MAX));
                for head in 0..s.heads {
                    let kv_head = head / (s.heads / s.kv_heads);
                    let of = |slot: usize, position: usize| {
                        &qkv[position * row + slot * s.head_dim..][..s.head_dim]
                    };
                    let gather = |slot: usize| -> Vec<f64> {
                        let seen = first..position + 1;
                        seen.flat_map(|p| of(slot, p)).copied().collect()
                    };
                    attended.extend(attend(
                        of(head, position),
                        &gather(s.heads + kv_head),
                        &gather(s.heads + s.kv_heads + kv_head),
                    ));
                }
            }
            let add = |x: &mut Vec<f64>, y: Vec<f64>| {
                x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            };
            let width = s.heads * s.head_dim;
            add(
                &mut x,
                product(&weight("self_attn.o_proj"), &attended, width),
            );
            let normed = norm(&x, &weight("post_attention_layernorm"), EPSILON);
            let gate_up = product(&weight("mlp.gate_up_proj"), &normed, s.hidden);
            let inner: Vec<f64> = gate_up
                .chunks_exact(2 * s.inner)
                .flat_map(|y| (0..s.inner).map(|j| silu(y[j]) * y[s.inner + j]))
                .collect();
            add(&mut x, product(&weight("mlp.down_proj"), &inner, s.inner));
            after.push(x.clone());
        }
        let head = if s.tied {
            "model.embed_tokens"
        } else {
            "lm_head"
        };
        let normed = norm(&x, &self.weight("model.norm", format), EPSILON);
        (
            after,
            product(&self.weight(head, format), &normed, s.hidden),
        )
    }
}

/// The logits that candle gives for the last of `tokens`, which follow on `held` others.
pub fn candle_logits(model: &mut phi3::Model, tokens: &[u32], held: usize) -> Vec<f64> {
    let input = Tensor::new(tokens, &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let logits = model.forward(&input, held).unwrap();
    let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    logits.into_iter().map(f64::from).collect()
}
