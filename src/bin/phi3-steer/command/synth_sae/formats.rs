//! What the files of each format hold.

use phi3_steer::sae::HookPoint;
use serde_json::{Value, json};

use super::Kind;
use super::given::Given;

/// The sizes of a dictionary.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub width: usize,
    pub latents: usize,
    pub k: usize,
}

/// Where the numbers come from.
pub enum Source {
    Random,
    Given(Given),
}

/// The numbers of a tensor.
pub enum Numbers {
    These(Vec<f32>),
    /// Bell-shaped, around a mean with a deviation.
    Random {
        mean: f32,
        deviation: f32,
    },
}

/// A tensor to write.
pub struct Tensor {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub numbers: Numbers,
}

/// The files to write.
pub struct Plan {
    /// The folder's name, or path, in the one given.
    pub folder: String,
    /// Small files, by name.
    pub texts: Vec<(&'static str, String)>,
    /// The file of tensors.
    pub file: &'static str,
    pub tensors: Vec<Tensor>,
}

/// How Llama Scope's inputs are scaled here: the average norm is this times the root of the width.
const LLAMA_NORM: f32 = 2.0;

impl Plan {
    /// The files of a dictionary of `kind` at `hook`.
    pub fn new(kind: Kind, sizes: Sizes, hook: HookPoint, source: &Source) -> Self {
        let Sizes { width, latents, k } = sizes;
        let draw = Draw { sizes, source };
        let layer = hook.layer;
        let lens = |architecture: &str, more: Value| {
            let mut config = json!({
                "d_in": width, "d_sae": latents, "dtype": "float32", "device": "cpu",
                "apply_b_dec_to_input": true, "normalize_activations": "none",
                "reshape_activations": "none", "architecture": architecture,
                "metadata": {
                    "sae_lens_version": "6.54.12",
                    "hook_name": format!("blocks.{layer}.hook_resid_post")
                }
            });
            if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
                config.extend(more);
            }
            config
        };
        let saelens = |config: Value, mut vectors: Vec<Tensor>| {
            vectors.extend([
                draw.encoder("W_enc", true, 1.0),
                draw.decoder("W_dec", false, 1.0),
                draw.b_dec("b_dec", 1.0),
            ]);
            Plan {
                folder: String::new(),
                texts: vec![("cfg.json", config.to_string())],
                file: "sae_weights.safetensors",
                tensors: vectors,
            }
        };
        match kind {
            Kind::Sparsify => Plan {
                folder: hook.to_string(),
                texts: vec![(
                    "cfg.json",
                    json!({
                        "activation": "topk", "expansion_factor": 8, "normalize_decoder": true,
                        "num_latents": latents, "k": k, "multi_topk": false,
                        "skip_connection": false, "transcode": false, "d_in": width
                    })
                    .to_string(),
                )],
                file: "sae.safetensors",
                tensors: vec![
                    draw.encoder("encoder.weight", false, 1.0),
                    draw.bias("encoder.bias"),
                    draw.decoder("W_dec", false, 1.0),
                    draw.b_dec("b_dec", 1.0),
                ],
            },
            Kind::SaelensStandard => saelens(lens("standard", json!({})), vec![draw.bias("b_enc")]),
            Kind::SaelensTopk => {
                let config = json!({"k": k, "rescale_acts_by_decoder_norm": false});
                saelens(lens("topk", config), vec![draw.bias("b_enc")])
            }
            Kind::SaelensJumprelu => saelens(
                lens("jumprelu", json!({})),
                vec![draw.bias("b_enc"), draw.threshold("threshold")],
            ),
            Kind::SaelensGated => saelens(
                lens("gated", json!({})),
                vec![
                    draw.bias("b_gate"),
                    draw.bias("b_mag"),
                    draw.vector("r_mag", 0.0, 0.1, 0.0),
                ],
            ),
            Kind::Saex | Kind::SaexGated => draw.saex(layer, kind == Kind::SaexGated),
            Kind::GemmaScope | Kind::GemmaScope2 => {
                let two = kind == Kind::GemmaScope2;
                let config = json!({
                    "architecture": "jump_relu", "type": "sae", "width": latents,
                    "hf_hook_point_in": format!("model.layers.{layer}.output")
                });
                Plan {
                    folder: format!("layer_{layer}"),
                    texts: match two {
                        true => vec![("config.json", config.to_string())],
                        false => Vec::new(),
                    },
                    file: if two {
                        "params.safetensors"
                    } else {
                        "params.npz"
                    },
                    tensors: vec![
                        draw.encoder(if two { "w_enc" } else { "W_enc" }, true, 1.0),
                        draw.decoder(if two { "w_dec" } else { "W_dec" }, false, 1.0),
                        draw.folded_bias("b_enc"),
                        draw.b_dec("b_dec", 1.0),
                        draw.threshold("threshold"),
                    ],
                }
            }
            Kind::LlamaScope => {
                let norm = LLAMA_NORM * (width as f32).sqrt();
                let place = format!("blocks.{layer}.hook_resid_post");
                let config = json!({
                    "d_model": width, "d_sae": latents, "act_fn": "jumprelu",
                    "jump_relu_threshold": 0.0, "hook_point_in": place, "hook_point_out": place,
                    "dataset_average_activation_norm": {"in": norm, "out": norm}
                });
                // Inputs are divided by the norm, outputs multiplied.
                Plan {
                    folder: String::new(),
                    texts: vec![("hyperparams.json", config.to_string())],
                    file: "checkpoints/final.safetensors",
                    tensors: vec![
                        draw.encoder("encoder.weight", false, LLAMA_NORM),
                        draw.folded_bias("encoder.bias"),
                        draw.decoder("decoder.weight", true, 1.0 / LLAMA_NORM),
                        draw.b_dec("decoder.bias", 1.0 / LLAMA_NORM),
                    ],
                }
            }
        }
    }
}

/// Makes tensors.
struct Draw<'a> {
    sizes: Sizes,
    source: &'a Source,
}

impl Draw<'_> {
    fn saex(&self, layer: usize, gated: bool) -> Plan {
        let Sizes { width, latents, .. } = self.sizes;
        let config = json!({
            "d_in": width, "dtype": "float32", "expansion_factor": latents / width.max(1),
            "l1_coefficient": 1e-6, "train_batch_size": 2048, "dead_feature_window": 10_000,
            "use_ghost_grads": true, "d_sae": latents
        });
        // With s_gate 1, what multiplies the products is softplus(1) scaling_factor.
        let softplus = 1f32.exp().ln_1p();
        let zeros = |name| Tensor {
            name,
            shape: vec![latents],
            numbers: Numbers::These(vec![0.0; latents]),
        };
        let (factor, s_gate, b_gate) = match gated {
            true => (
                1.0 / softplus,
                self.vector("s_gate", 1.0, 0.1, 1.0),
                self.folded_bias("b_gate"),
            ),
            false => (1.0, zeros("s_gate"), zeros("b_gate")),
        };
        Plan {
            // The input of the block after.
            folder: format!("l{}-test-run-6-1e-06", layer + 1),
            texts: vec![("cfg.json", config.to_string())],
            file: "sae_weights.safetensors",
            tensors: vec![
                self.encoder("W_enc", true, 1.0),
                self.folded_bias("b_enc"),
                self.vector("scaling_factor", factor, 0.05, factor),
                self.decoder("W_dec", false, 1.0),
                self.b_dec("b_dec", 1.0),
                s_gate,
                b_gate,
            ],
        }
    }

    fn matrix(
        &self,
        name: &'static str,
        transposed: bool,
        scale: f32,
        of: impl Fn(&Given) -> &[f32],
    ) -> Tensor {
        let Sizes { width, latents, .. } = self.sizes;
        let numbers = match self.source {
            Source::Random => Numbers::Random {
                mean: 0.0,
                deviation: scale / (width as f32).sqrt(),
            },
            Source::Given(given) => {
                let values = of(given);
                let scaled = |row: usize, column: usize| scale * values[row * width + column];
                let mut out = Vec::with_capacity(values.len());
                if transposed {
                    for column in 0..width {
                        out.extend((0..latents).map(|row| scaled(row, column)));
                    }
                } else {
                    out.extend(values.iter().map(|v| scale * v));
                }
                Numbers::These(out)
            }
        };
        Tensor {
            name,
            shape: match transposed {
                true => vec![width, latents],
                false => vec![latents, width],
            },
            numbers,
        }
    }

    fn encoder(&self, name: &'static str, transposed: bool, scale: f32) -> Tensor {
        self.matrix(name, transposed, scale, |given| &given.encoder)
    }

    fn decoder(&self, name: &'static str, transposed: bool, scale: f32) -> Tensor {
        self.matrix(name, transposed, scale, |given| &given.decoder)
    }

    /// A vector of one number a latent: random, or all `exact`.
    fn vector(&self, name: &'static str, mean: f32, deviation: f32, exact: f32) -> Tensor {
        let latents = self.sizes.latents;
        Tensor {
            name,
            shape: vec![latents],
            numbers: match self.source {
                Source::Random => Numbers::Random { mean, deviation },
                Source::Given(_) => Numbers::These(vec![exact; latents]),
            },
        }
    }

    fn threshold(&self, name: &'static str) -> Tensor {
        self.vector(name, 0.5, 0.1, 0.0)
    }

    fn bias_of(&self, name: &'static str, of: impl Fn(&Given) -> Vec<f32>) -> Tensor {
        let mut tensor = self.vector(name, -1.0, 0.3, 0.0);
        if let Source::Given(given) = self.source {
            tensor.numbers = Numbers::These(of(given));
        }
        tensor
    }

    fn bias(&self, name: &'static str) -> Tensor {
        self.bias_of(name, |given| given.bias.clone())
    }

    fn folded_bias(&self, name: &'static str) -> Tensor {
        self.bias_of(name, Given::folded_bias)
    }

    fn b_dec(&self, name: &'static str, scale: f32) -> Tensor {
        let numbers = match self.source {
            Source::Random => Numbers::Random {
                mean: 0.0,
                deviation: scale * 0.1,
            },
            Source::Given(given) => Numbers::These(given.b_dec.iter().map(|v| scale * v).collect()),
        };
        Tensor {
            name,
            shape: vec![self.sizes.width],
            numbers,
        }
    }
}
