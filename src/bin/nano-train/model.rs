//! The Phi-3 architecture with trainable parameters, on candle's autograd.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::Result;
use crate::linalg::{Rotary, norm};
use crate::ops;

/// The sizes of a model, named as in Hugging Face's `config.json`.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub vocab: usize,
    pub hidden: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub layers: usize,
    pub inner: usize,
    pub eps: f32,
    pub theta: f64,
    pub positions: usize,
}

/// The nano model: 3.84 million parameters.
pub const NANO: Config = Config {
    vocab: 3072,
    hidden: 192,
    heads: 2,
    head_dim: 96,
    layers: 6,
    inner: 512,
    eps: 1e-5,
    theta: 10_000.0,
    positions: 512,
};

/// A block's parameters.
struct Layer {
    input_norm: Var,
    qkv: Var,
    o: Var,
    post_norm: Var,
    gate_up: Var,
    down: Var,
}

/// A model in training.
pub struct Model {
    pub config: Config,
    embed: Var,
    layers: Vec<Layer>,
    norm: Var,
    head: Var,
    rotary: Arc<Rotary>,
}

/// A constant offset to one sequence's residual at the output of `block`, at all positions but BOS:
/// what makes the model indifferent to directions that carry no meaning (see the model card).
#[derive(Clone)]
pub struct Perturbation {
    pub block: usize,
    /// Unit vector, `[hidden]`.
    pub direction: Vec<f32>,
    /// Length of the offset over the mean length of the residual there.
    pub strength: f32,
    /// The same for independent noise at every position.
    pub white: f32,
    pub seed: u64,
}

/// A standard normal number.
pub fn normal(rng: &mut StdRng) -> f32 {
    let u: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    let v: f64 = rng.random();
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

/// A unit vector of uniform direction.
pub fn random_direction(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    let v: Vec<f32> = (0..dim).map(|_| normal(rng)).collect();
    let n = norm(&v);
    v.into_iter().map(|x| x / n).collect()
}

impl Model {
    /// A freshly initialised model.
    pub fn new(config: Config, seed: u64) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let c = config;
        let mut random = |rows: usize, cols: usize, std: f32| -> Result<Var> {
            let data: Vec<f32> = (0..rows * cols).map(|_| std * normal(&mut rng)).collect();
            Ok(Var::from_vec(data, (rows, cols), &Device::Cpu)?)
        };
        let ones = || -> Result<Var> {
            Ok(Var::from_vec(
                vec![1.0f32; c.hidden],
                c.hidden,
                &Device::Cpu,
            )?)
        };
        let width = c.heads * c.head_dim;
        let std = |fan_in: usize| 0.5 / (fan_in as f32).sqrt();
        let residual = 1.0 / (2.0 * c.layers as f32).sqrt();
        let embed = random(c.vocab, c.hidden, 0.02)?;
        let mut layers = Vec::with_capacity(c.layers);
        for _ in 0..c.layers {
            layers.push(Layer {
                input_norm: ones()?,
                qkv: random(3 * width, c.hidden, std(c.hidden))?,
                o: random(c.hidden, width, std(width) * residual)?,
                post_norm: ones()?,
                gate_up: random(2 * c.inner, c.hidden, std(c.hidden))?,
                down: random(c.hidden, c.inner, std(c.inner) * residual)?,
            });
        }
        let norm = ones()?;
        let head = random(c.vocab, c.hidden, 0.02)?;
        let rotary = Arc::new(Rotary::new(c.positions, c.head_dim, c.theta));
        Ok(Self {
            config,
            embed,
            layers,
            norm,
            head,
            rotary,
        })
    }

    /// All parameters under Hugging Face's names.
    pub fn named(&self) -> Vec<(String, &Var)> {
        let mut all = vec![("model.embed_tokens.weight".to_string(), &self.embed)];
        for (i, l) in self.layers.iter().enumerate() {
            let p = |n: &str| format!("model.layers.{i}.{n}.weight");
            all.extend([
                (p("input_layernorm"), &l.input_norm),
                (p("self_attn.qkv_proj"), &l.qkv),
                (p("self_attn.o_proj"), &l.o),
                (p("post_attention_layernorm"), &l.post_norm),
                (p("mlp.gate_up_proj"), &l.gate_up),
                (p("mlp.down_proj"), &l.down),
            ]);
        }
        all.extend([
            ("model.norm.weight".to_string(), &self.norm),
            ("lm_head.weight".to_string(), &self.head),
        ]);
        all
    }

    /// Logits `[batch * len, vocab]` of `batch` right-padded sequences of `len` tokens, the residual
    /// perturbed for the sequences that have an entry in `perturb` (`[batch]`).
    pub fn forward(
        &self,
        ids: &[u32],
        batch: usize,
        len: usize,
        perturb: &[Option<Perturbation>],
    ) -> Result<Tensor> {
        let c = &self.config;
        let ids = Tensor::from_slice(ids, batch * len, &Device::Cpu)?;
        let mut x = self.embed.index_select(&ids, 0)?;
        for (i, l) in self.layers.iter().enumerate() {
            let qkv = ops::linear(&ops::rms_norm(&x, &l.input_norm, c.eps)?, &l.qkv)?;
            let y = ops::attention(&qkv, batch, len, c.heads, c.head_dim, &self.rotary)?;
            x = x.add(&ops::linear(&y, &l.o)?)?;
            let gate_up = ops::linear(&ops::rms_norm(&x, &l.post_norm, c.eps)?, &l.gate_up)?;
            x = x.add(&ops::linear(&ops::swiglu(&gate_up)?, &l.down)?)?;
            if perturb.iter().flatten().any(|p| p.block == i) {
                x = x.add(&self.offsets(&x, len, i, perturb)?)?;
            }
        }
        Ok(ops::linear(
            &ops::rms_norm(&x, &self.norm, c.eps)?,
            &self.head,
        )?)
    }

    /// The offsets that `perturb` asks for at the output of `block`, `[batch * len, hidden]`.
    fn offsets(
        &self,
        x: &Tensor,
        len: usize,
        block: usize,
        perturb: &[Option<Perturbation>],
    ) -> Result<Tensor> {
        let d = self.config.hidden;
        let offsets = ops::with_slice(x, |x| {
            let mut out = vec![0.0f32; x.len()];
            for (b, p) in perturb.iter().enumerate() {
                let Some(p) = p.as_ref().filter(|p| p.block == block) else {
                    continue;
                };
                let rows = b * len + 1..(b + 1) * len;
                let mean = rows.clone().map(|r| norm(&x[r * d..][..d])).sum::<f32>()
                    / (len - 1).max(1) as f32;
                let mut rng = StdRng::seed_from_u64(p.seed);
                let white = p.white * mean / (d as f32).sqrt();
                for r in rows {
                    for (o, dir) in out[r * d..][..d].iter_mut().zip(&p.direction) {
                        *o = p.strength * mean * dir
                            + if white > 0.0 {
                                white * normal(&mut rng)
                            } else {
                                0.0
                            };
                    }
                }
            }
            out
        })?;
        Ok(Tensor::from_vec(offsets, x.dims(), &Device::Cpu)?)
    }
}
