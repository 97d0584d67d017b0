//! The metadata and names of a GGUF file, from a `config.json`.

use serde_json::{Map, Value as Json};

use super::gguf::Value;

/// The GGUF name of a tensor, and the block that it is in.
pub fn name(hugging_face: &str) -> (String, Option<usize>) {
    let whole = match hugging_face {
        "model.embed_tokens.weight" => "token_embd.weight",
        "model.norm.weight" => "output_norm.weight",
        "lm_head.weight" => "output.weight",
        other => other,
    };
    let inner = whole.strip_prefix("model.layers.").and_then(|rest| {
        let (layer, own) = rest.split_once('.')?;
        let own = match own {
            "input_layernorm.weight" => "attn_norm",
            "self_attn.qkv_proj.weight" => "attn_qkv",
            "self_attn.o_proj.weight" => "attn_output",
            "post_attention_layernorm.weight" => "ffn_norm",
            "mlp.gate_up_proj.weight" => "ffn_up",
            "mlp.down_proj.weight" => "ffn_down",
            _ => return None,
        };
        Some((format!("blk.{layer}.{own}.weight"), layer.parse().ok()?))
    });
    match inner {
        Some((name, layer)) => (name, Some(layer)),
        None => (whole.into(), None),
    }
}

/// The keys that say what the model is, under the names of llama.cpp's converter.
pub fn keys(config: &Map<String, Json>, title: &str, file_type: u32) -> Vec<(String, Value)> {
    let number = |name: &str| config.get(name).and_then(Json::as_f64).filter(|x| *x > 0.0);
    let heads = number("num_attention_heads").unwrap_or(1.0);
    let width = number("head_dim").or(number("hidden_size").map(|d| (d / heads).floor()));
    let rotated = number("partial_rotary_factor").unwrap_or(1.0);
    let rotary = width.map(|width| width * rotated);
    let own = [
        ("context_length", number("max_position_embeddings")),
        (
            "rope.scaling.original_context_length",
            number("original_max_position_embeddings"),
        ),
        ("embedding_length", number("hidden_size")),
        ("feed_forward_length", number("intermediate_size")),
        ("block_count", number("num_hidden_layers")),
        ("attention.head_count", number("num_attention_heads")),
        (
            "attention.head_count_kv",
            number("num_key_value_heads").or(number("num_attention_heads")),
        ),
        ("attention.key_length", number("head_dim")),
        ("rope.dimension_count", rotary),
        ("attention.sliding_window", number("sliding_window")),
    ];
    let own = own
        .into_iter()
        .filter_map(|(key, value)| Some((format!("phi3.{key}"), Value::U32(value? as u32))));
    let text = |text: &str| Value::Text(text.into());
    let mut keys = vec![
        ("general.architecture".to_string(), text("phi3")),
        ("general.name".into(), text(title)),
        ("general.file_type".into(), Value::U32(file_type)),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    keys.extend(own);
    for (key, name) in [
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("rope.freq_base", "rope_theta"),
    ] {
        if let Some(value) = number(name) {
            keys.push((format!("phi3.{key}"), Value::F32(value as f32)));
        }
    }
    keys
}

/// The factors of LongRoPE under GGUF's names, if the model has them.
pub fn rope_factors(config: &Map<String, Json>) -> Vec<(&'static str, Vec<f32>)> {
    let factors = |name: &str| {
        let all = config.get("rope_scaling")?.get(name)?.as_array()?;
        all.iter()
            .map(|x| Some(x.as_f64()? as f32))
            .collect::<Option<Vec<f32>>>()
    };
    let named = [
        ("rope_factors_long.weight", factors("long_factor")),
        ("rope_factors_short.weight", factors("short_factor")),
    ];
    named
        .into_iter()
        .filter_map(|(name, factors)| Some((name, factors?)))
        .collect()
}
