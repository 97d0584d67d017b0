//! The `config.json` that Hugging Face has for the model of a GGUF file.

use serde_json::{Map, Value, json};

use super::architecture::{ARCHITECTURES, Architecture, RUNS};
use super::{Config, ModelError};
use crate::checkpoint::{Encoding, Gguf, GgufTensor, Metadata, Value as GgufValue, shown};

/// The most rotary factors that make sense: half a head.
const MAX_FACTORS: usize = 1 << 10;

impl Config {
    /// The configuration of a GGUF file, and the `config.json` that says the same.
    pub async fn from_gguf(gguf: &Gguf) -> Result<(Self, String), ModelError> {
        let json = config_json(gguf).await?.to_string();
        match Self::from_json(json.as_bytes()) {
            Ok(config) => Ok((config, json)),
            Err(ModelError::Config(reason)) => Err(fail(gguf.metadata(), reason)),
            Err(other) => Err(other),
        }
    }
}

fn fail(metadata: &Metadata, reason: String) -> ModelError {
    ModelError::Metadata {
        file: metadata.file().into(),
        reason,
    }
}

/// What `config.json` says of the model of a GGUF file; what can run is not checked yet.
async fn config_json(gguf: &Gguf) -> Result<Value, ModelError> {
    let metadata = gguf.metadata();
    let fail = |reason: String| fail(metadata, reason);
    let own = match metadata.text("general.architecture")? {
        Some(name) => ARCHITECTURES.iter().find(|own| own.name == name).ok_or_else(|| {
            fail(format!(
                "it holds a model of the architecture \"{}\"; {RUNS}: choose a GGUF file of one of them",
                shown(name)
            ))
        })?,
        None => return Err(fail("it has no key general.architecture".into())),
    };
    let parts = metadata.unsigned("split.count")?.unwrap_or(1);
    if parts > gguf.parts() as u64 {
        return Err(fail(format!(
            "it is one of the {parts} files of a model: keep them together, under the names that they came \
             with"
        )));
    }
    let key = |name: &str| format!("{}.{name}", own.name);
    let number = |name: &str| metadata.unsigned(&key(name));
    let required = |name: &str| -> Result<u64, ModelError> {
        number(name)?.ok_or_else(|| fail(format!("it has no key {}", key(name))))
    };
    let (hidden, layers) = (required("embedding_length")?, required("block_count")?);
    let (heads, context) = (
        required("attention.head_count")?,
        required("context_length")?,
    );
    let kv_heads = number("attention.head_count_kv")?.unwrap_or(heads);
    let head_dim = match number("attention.key_length")? {
        Some(width) => width,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let rotary_dim = number("rope.dimension_count")?.unwrap_or(head_dim);
    understood(metadata, own, head_dim)?;
    let window = match number("attention.sliding_window")? {
        Some(window) => Some(window).filter(|window| *window > 0),
        None => (own.window)(layers, context),
    };
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.into(), value);
    set("architectures", json!([own.class]));
    set("model_type", own.name.into());
    set("vocab_size", vocab_size(gguf)?.into());
    set("hidden_size", hidden.into());
    set("intermediate_size", required("feed_forward_length")?.into());
    set("num_hidden_layers", layers.into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", kv_heads.into());
    set("head_dim", head_dim.into());
    set("hidden_act", "silu".into());
    set("max_position_embeddings", context.into());
    let original = number("rope.scaling.original_context_length")?;
    set(
        "original_max_position_embeddings",
        original.unwrap_or(context).into(),
    );
    set("sliding_window", window.into());
    let eps = metadata.number(&key("attention.layer_norm_rms_epsilon"))?;
    let eps = eps.ok_or_else(|| fail("it has no attention.layer_norm_rms_epsilon".into()))?;
    set("rms_norm_eps", eps.into());
    let theta = metadata.number(&key("rope.freq_base"))?;
    set("rope_theta", theta.unwrap_or(10_000.0).into());
    if rotary_dim != head_dim {
        set(
            "partial_rotary_factor",
            rotary_factor(rotary_dim, head_dim).into(),
        );
    }
    set(
        "tie_word_embeddings",
        gguf.tensor("output.weight").is_none().into(),
    );
    set("rope_scaling", rope_scaling(gguf, own).await?);
    for (name, key) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(id) = metadata.unsigned(key)? {
            set(name, id.into());
        }
    }
    Ok(config.into())
}

/// Rows of the embedding; without one, tokens.
fn vocab_size(gguf: &Gguf) -> Result<u64, ModelError> {
    if let Some(&rows) = gguf
        .tensor("token_embd.weight")
        .and_then(|t| t.shape.first())
    {
        return Ok(rows as u64);
    }
    let metadata = gguf.metadata();
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let tokens =
        tokens.ok_or_else(|| fail(metadata, "it has neither tokens nor weights".into()))?;
    Ok(tokens.len() as u64)
}

/// The factor of which `config.json`'s readers get `rotary` from `head`: they round down.
fn rotary_factor(rotary: u64, head: u64) -> f64 {
    let factor = rotary as f64 / head as f64;
    if ((factor * head as f64) as u64) < rotary {
        factor.next_up()
    } else {
        factor
    }
}

/// Refuses what would change the numbers and is not understood.
fn understood(metadata: &Metadata, own: &Architecture, head_dim: u64) -> Result<(), ModelError> {
    /// Keys that are read, or say nothing of the numbers.
    const KNOWN: [&str; 12] = [
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.attn_factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.sliding_window",
        "attention.layer_norm_rms_epsilon",
    ];
    /// Other keys, with the values that change nothing.
    const NEUTRAL: [(&str, &[f64]); 15] = [
        ("rope.scale_linear", &[0.0, 1.0]),
        ("rope.scaling.yarn_log_multiplier", &[0.0]),
        ("attention.causal", &[1.0]),
        ("attention.clamp_kqv", &[0.0]),
        ("attention.max_alibi_bias", &[0.0]),
        ("attention.logit_softcapping", &[0.0]),
        ("attn_logit_softcapping", &[0.0]),
        ("final_logit_softcapping", &[0.0]),
        ("logit_scale", &[0.0, 1.0]),
        ("embedding_scale", &[0.0, 1.0]),
        ("residual_scale", &[0.0, 1.0]),
        ("use_parallel_residual", &[0.0]),
        ("expert_count", &[0.0]),
        ("expert_used_count", &[0.0]),
        ("expert_shared_count", &[0.0]),
    ];
    let width = head_dim as f64;
    for key in metadata.keys() {
        let Some(name) = key.strip_prefix(own.name) else {
            continue;
        };
        let Some(name) = name.strip_prefix('.').filter(|name| !KNOWN.contains(name)) else {
            continue;
        };
        let value = metadata.get(key);
        let number = match value {
            Some(GgufValue::Bool(flag)) => Some(f64::from(flag)),
            Some(GgufValue::Text(_) | GgufValue::Array(_)) | None => None,
            _ => metadata.number(key)?,
        };
        let neutral = NEUTRAL.iter().find(|(known, _)| *known == name);
        let fine = match (name, neutral) {
            (_, Some((_, values))) => number.is_some_and(|n| values.contains(&n)),
            ("attention.value_length", _) => number == Some(width),
            ("attention.scale", _) => {
                number.is_some_and(|n| n == 0.0 || (n * width.sqrt() - 1.0).abs() < 1e-5)
            }
            // What else there is of these two changes the numbers.
            _ => !name.starts_with("rope.") && !name.starts_with("attention."),
        };
        if !fine {
            return Err(fail(
                metadata,
                format!(
                    "{} is set to what is not a part of {} and may change what the model computes: \
                     choose another file",
                    shown(key),
                    own.words
                ),
            ));
        }
    }
    Ok(())
}

/// The rotary scaling, whose factors are tensors; null for a model without.
async fn rope_scaling(gguf: &Gguf, own: &Architecture) -> Result<Value, ModelError> {
    let metadata = gguf.metadata();
    let number = |name: &str| metadata.number(&format!("{}.rope.scaling.{name}", own.name));
    let kind = metadata.text(&format!("{}.rope.scaling.type", own.name))?;
    let (factor, attention) = (number("factor")?, number("attn_factor")?);
    if !matches!(kind, None | Some("none" | "linear" | "longrope")) {
        return Err(fail(
            metadata,
            format!(
                "rope.scaling.type is \"{}\"; {} models have {}",
                shown(kind.unwrap_or_default()),
                own.words,
                own.scalings()
            ),
        ));
    }
    // llama.cpp takes 0 for none.
    let factor = factor.filter(|f| *f != 0.0 && *f != 1.0);
    let each = factors(gguf, "rope_freqs.weight").await?;
    if own.scalings.contains(&"llama3") {
        let one = attention.is_none_or(|f| f == 1.0);
        return match (kind, factor, each) {
            (None | Some("none" | "linear"), None, None) if one => Ok(Value::Null),
            (None | Some("linear"), Some(factor), None) if one => {
                Ok(json!({"rope_type": "linear", "factor": factor}))
            }
            // Those of Llama 3.1, worked out by the converter, as LongRoPE has them.
            (None | Some("none" | "linear"), None, Some(each)) if one => Ok(json!({
                "rope_type": "longrope", "short_factor": each, "long_factor": each,
                "attention_factor": 1.0,
            })),
            _ => Err(fail(
                metadata,
                "its rope.scaling and its rotary factors together are not understood".into(),
            )),
        };
    }
    if let Some(factor) = factor {
        return Err(fail(
            metadata,
            format!("rope.scaling.factor is {factor}; Phi-3 models have factors of their own or 1"),
        ));
    }
    if each.is_some() {
        return Err(fail(
            metadata,
            "it has a tensor \"rope_freqs.weight\", which is not a part of Phi-3".into(),
        ));
    }
    let long = factors(gguf, "rope_factors_long.weight").await?;
    let short = factors(gguf, "rope_factors_short.weight").await?;
    let (long, short) = match (long, short) {
        (None, None) if kind == Some("longrope") || attention.is_some_and(|f| f != 1.0) => {
            return Err(fail(
                metadata,
                "its rope.scaling is of a model with rope factors, but it has none: it is \
                 incomplete"
                    .into(),
            ));
        }
        (None, None) => return Ok(Value::Null),
        (Some(long), Some(short)) => (long, short),
        _ => {
            return Err(fail(
                metadata,
                "it has the long or the short rope factors, but not both: it is incomplete".into(),
            ));
        }
    };
    let mut scaling = json!({"type": "longrope", "long_factor": long, "short_factor": short});
    if let Some(factor) = attention {
        scaling["attention_factor"] = factor.into();
    }
    Ok(scaling)
}

/// A vector of rotary factors, if it is there.
async fn factors(gguf: &Gguf, name: &str) -> Result<Option<Vec<f64>>, ModelError> {
    let Some(tensor) = gguf.tensor(name) else {
        return Ok(None);
    };
    let GgufTensor {
        encoding, shape, ..
    } = tensor;
    let len: usize = shape.iter().product();
    if *encoding != Encoding::F32 || shape.len() != 1 || len > MAX_FACTORS {
        return Err(fail(
            gguf.metadata(),
            format!(
                "tensor \"{name}\" is {encoding} of shape {shape:?}; a vector of F32, up to \
                 {MAX_FACTORS}, is needed"
            ),
        ));
    }
    let bytes = gguf.read(tensor).await?;
    let fours = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    // The decimals of `config.json`, of which these are the nearest f32.
    let factors = fours.map(|b| f32::from_le_bytes(b).to_string().parse());
    let factors = factors.collect::<Result<Vec<f64>, _>>();
    let factors = factors.ok().filter(|f| f.iter().all(|f| f.is_finite()));
    match factors {
        Some(factors) => Ok(Some(factors)),
        None => Err(fail(
            gguf.metadata(),
            format!("tensor \"{name}\" holds what is no number: the file is corrupt, get it again"),
        )),
    }
}
