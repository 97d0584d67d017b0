//! Hugging Face's `config.json` of the architectures that run here.

use std::ops::Range;

use serde_json::Value;

use super::fields::Fields;
use super::rope::Rope;
use super::{LongRope, ModelError, architecture, precision};
use crate::checkpoint::json;
use crate::matrix::Format;

/// The sizes of a model, under Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a head that are rotated.
    pub rotary_dim: usize,
    /// RMSNorm's epsilon.
    pub rms_norm_eps: f64,
    /// The rotary embedding's base.
    pub rope_theta: f64,
    /// What the rotary embedding's frequencies are divided by, if by anything.
    pub rope_scaling: Option<LongRope>,
    /// Positions that the model was trained for.
    pub max_position_embeddings: usize,
    /// Positions that a token sees, itself included, if limited.
    pub sliding_window: Option<usize>,
    /// Whether the head shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// The precision that its figures were measured at, if it says so.
    pub quantization: Option<Format>,
}

impl Config {
    /// Parses and checks `config.json`. What would change the numbers and is not understood is an
    /// error that names it; whatever else the file has is of no concern.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        let fail = |reason: String| ModelError::Config(reason);
        let config: Value = json::from_slice(json).map_err(|e| fail(e.to_string()))?;
        let config = config.as_object().ok_or_else(|| {
            fail("it is no JSON object: get the file that belongs to the model again".into())
        })?;
        let quantization = precision::measured(config)?;
        let config = Fields::new(config, "");
        let architecture = architecture::of(&config)?;
        let count = |key: &str| -> Result<usize, ModelError> {
            let missing = || fail(format!("it has no {key}: it is not whole, get it again"));
            config.count(key)?.ok_or_else(missing)
        };
        let hidden_size = count("hidden_size")?;
        let heads = count("num_attention_heads")?;
        let kv_heads = config.count("num_key_value_heads")?.unwrap_or(heads);
        let sizes = [
            ("vocab_size", count("vocab_size")?, 1 << 20),
            ("hidden_size", hidden_size, 1 << 16),
            ("intermediate_size", count("intermediate_size")?, 1 << 18),
            ("num_hidden_layers", count("num_hidden_layers")?, 1 << 10),
            ("num_attention_heads", heads, 1 << 10),
            ("num_key_value_heads", kv_heads, 1 << 10),
            (
                "max_position_embeddings",
                count("max_position_embeddings")?,
                1 << 22,
            ),
        ];
        for (name, value, most) in sizes {
            if value == 0 || value > most {
                return Err(fail(format!("{name} is {value}; 1 to {most} makes sense")));
            }
        }
        let [
            vocab_size,
            _,
            intermediate_size,
            num_hidden_layers,
            _,
            _,
            max_position_embeddings,
        ] = sizes.map(|(_, value, _)| value);
        if !heads.is_multiple_of(kv_heads) {
            return Err(fail(format!(
                "{heads} attention heads cannot share {kv_heads} key-value heads evenly"
            )));
        }
        let head_dim = config.count("head_dim")?.unwrap_or(hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim > 256 {
            return Err(fail(format!(
                "a head of {head_dim} elements: an even number up to 256 is supported"
            )));
        }
        for (name, value) in [
            ("hidden_size", hidden_size),
            ("intermediate_size", intermediate_size),
            ("num_attention_heads * head_dim", heads * head_dim),
        ] {
            if !value.is_multiple_of(4) {
                return Err(fail(format!(
                    "{name} is {value}; a multiple of 4 is needed"
                )));
            }
        }
        let rope = Rope::new(&config, architecture)?;
        let (partial, rope_theta) = (rope.partial, rope.theta);
        let rotary_dim = (head_dim as f64 * partial) as usize;
        if !(0.0..=1.0).contains(&partial) || !rotary_dim.is_multiple_of(2) || rotary_dim == 0 {
            return Err(fail(format!(
                "partial_rotary_factor {partial} rotates {rotary_dim} of {head_dim} elements; an even number is needed"
            )));
        }
        let rms_norm_eps = config
            .number("rms_norm_eps")?
            .unwrap_or(architecture.epsilon);
        if !(rms_norm_eps > 0.0 && rope_theta > 1.0) {
            return Err(fail(
                "rms_norm_eps must be positive and rope_theta above 1".into(),
            ));
        }
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rotary_dim,
            rms_norm_eps,
            rope_theta,
            rope_scaling: rope.scaling(rotary_dim, max_position_embeddings)?,
            max_position_embeddings,
            sliding_window: sliding_window(&config, num_hidden_layers)?,
            tie_word_embeddings: config.flag("tie_word_embeddings")?.unwrap_or(false),
            quantization,
        })
    }

    /// Rows of the fused attention projection: queries, keys and values.
    pub fn qkv_rows(&self) -> usize {
        (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim
    }

    /// Width of the attention's output.
    pub fn attention_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Positions that a token sees, itself included.
    pub fn window(&self) -> usize {
        self.sliding_window.unwrap_or(usize::MAX)
    }

    /// Parameters, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        let (d, inner) = (self.hidden_size, self.intermediate_size);
        let block = self.qkv_rows() * d + self.attention_width() * d + 3 * inner * d + 2 * d;
        let ends = if self.tie_word_embeddings { 1 } else { 2 } * self.vocab_size * d + d;
        (self.num_hidden_layers * block + ends) as u64
    }

    /// `[positions, rotary_dim / 2]` (cos, sin), computed in f64; `long` chooses LongRoPE's long factors,
    /// where the model has them.
    pub fn rotary_table(&self, positions: Range<usize>, long: bool) -> Vec<[f32; 2]> {
        let half = self.rotary_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|i| {
                let power = -2.0 * i as f64 / self.rotary_dim as f64;
                let factor = self
                    .rope_scaling
                    .as_ref()
                    .map_or(1.0, |s| s.factor(i, long));
                self.rope_theta.powf(power) / factor
            })
            .collect();
        let size = self
            .rope_scaling
            .as_ref()
            .map_or(1.0, |s| s.attention_factor);
        let mut table = Vec::with_capacity(positions.len() * half);
        for position in positions {
            for frequency in &frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                table.push([(cos * size) as f32, (sin * size) as f32]);
            }
        }
        table
    }

    /// Whether sequences of `positions` positions take LongRoPE's long factors.
    pub fn is_long(&self, positions: usize) -> bool {
        let scaling = self.rope_scaling.as_ref();
        scaling.is_some_and(|s| positions > s.original_max_position_embeddings)
    }
}

/// The window of all layers; 0 is none. That of models whose layers differ is refused.
fn sliding_window(config: &Fields<'_>, layers: usize) -> Result<Option<usize>, ModelError> {
    let window = config.count("sliding_window")?.filter(|w| *w > 0);
    let contradiction = |what: &str| {
        let window = window.map_or("no number".into(), |w| w.to_string());
        config.fail(format!(
            "sliding_window is {window} and {what}: which layers have a window is not clear; \
             here all or none have it"
        ))
    };
    if window.is_some() && config.flag("use_sliding_window")? == Some(false) {
        return Err(contradiction("use_sliding_window is false"));
    }
    let from = config.count("max_window_layers")?;
    if let Some(from) = from.filter(|from| window.is_some() && *from > 0) {
        return Err(contradiction(&format!("max_window_layers is {from}")));
    }
    if let Some(kinds) = config.get("layer_types") {
        let alike = match window {
            Some(_) => "sliding_attention",
            None => "full_attention",
        };
        let all = |kinds: &Vec<Value>| kinds.len() == layers && kinds.iter().all(|k| k == alike);
        if !kinds.as_array().is_some_and(all) {
            return Err(contradiction(&format!(
                "layer_types is not \"{alike}\" for each of the {layers} layers"
            )));
        }
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> serde_json::Value {
        json!({
            "model_type": "phi3", "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
            "sliding_window": 2047, "rope_scaling": null, "hidden_act": "silu"
        })
    }

    fn parse(json: &serde_json::Value) -> Result<Config, ModelError> {
        Config::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn phi3_mini_has_its_published_size() {
        let c = parse(&base()).unwrap();
        assert_eq!(
            (c.head_dim, c.rotary_dim, c.sliding_window),
            (96, 96, Some(2047))
        );
        assert_eq!(c.parameters(), 3_821_079_552);
    }

    #[test]
    fn the_rotary_table_turns_by_position() {
        let c = parse(&base()).unwrap();
        let table = c.rotary_table(0..3, false);
        assert_eq!(table.len(), 3 * 48);
        assert_eq!(table[0], [1.0, 0.0]);
        assert_eq!(table[48], [1f64.cos() as f32, 1f64.sin() as f32]);
    }
}
