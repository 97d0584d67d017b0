//! The `config.json` that Hugging Face has for the model of a GGUF file.

use serde_json::{Map, Value, json};

use super::{Config, ModelError};
use crate::checkpoint::{ByteSource, Encoding, Gguf, GgufTensor, Metadata};

/// The name that GGUF files have for this architecture.
const ARCHITECTURE: &str = "phi3";

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
    match metadata.text("general.architecture")? {
        Some(ARCHITECTURE) => {}
        Some(other) => {
            return Err(fail(format!(
                "it holds a model of the architecture \"{other}\"; this engine runs \
                 \"{ARCHITECTURE}\": choose a GGUF file of a Phi-3 model"
            )));
        }
        None => return Err(fail("it has no key general.architecture".into())),
    }
    let parts = metadata.unsigned("split.count")?.unwrap_or(1);
    if parts > 1 {
        return Err(fail(format!(
            "it is one of {parts} parts of a model: join them first, with llama-gguf-split --merge"
        )));
    }
    let key = |name: &str| format!("{ARCHITECTURE}.{name}");
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
    let window = match number("attention.sliding_window")? {
        Some(window) => Some(window).filter(|window| *window > 0),
        // Files converted before the key existed, Microsoft's own among them: the window of
        // Phi-3-mini-4k and Phi-3-medium-4k, as llama.cpp has it.
        None => (context == 4096 && matches!(layers, 32 | 40)).then_some(2047),
    };
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.into(), value);
    set("architectures", json!(["Phi3ForCausalLM"]));
    set("model_type", ARCHITECTURE.into());
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
    set("rope_scaling", rope_scaling(gguf).await?);
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

/// LongRoPE's factors, which are tensors; null for a model without.
async fn rope_scaling(gguf: &Gguf) -> Result<Value, ModelError> {
    let long = factors(gguf, "rope_factors_long.weight").await?;
    let short = factors(gguf, "rope_factors_short.weight").await?;
    let (long, short) = match (long, short) {
        (None, None) => return Ok(Value::Null),
        (Some(long), Some(short)) => (long, short),
        _ => {
            return Err(fail(
                gguf.metadata(),
                "it has the long or the short rope factors, but not both: it is incomplete".into(),
            ));
        }
    };
    let mut scaling = json!({"type": "longrope", "long_factor": long, "short_factor": short});
    let key = "phi3.rope.scaling.attn_factor";
    if let Some(factor) = gguf.metadata().number(key)? {
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
        encoding,
        shape,
        range,
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
    let bytes = gguf.source().read(range.clone()).await?;
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
