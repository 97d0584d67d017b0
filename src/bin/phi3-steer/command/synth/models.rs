//! The configurations of the models that are imitated, as published.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// A model of the Phi-3 architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Like {
    /// Phi-3-mini-4k-instruct.
    #[value(name = "phi-3-mini")]
    Phi3Mini,
    /// Phi-3-mini-128k-instruct: long rotary factors.
    #[value(name = "phi-3-mini-128k")]
    Phi3Mini128k,
    /// Phi-4-mini-instruct: grouped queries, a tied head, a large vocabulary (here one of random
    /// SentencePiece tokens).
    #[value(name = "phi-4-mini")]
    Phi4Mini,
    /// The size of the nano model.
    Nano,
}

impl Like {
    /// Its `config.json`.
    pub fn config(self) -> Map<String, Value> {
        let mut config = entries(json!({
            "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
            "attention_bias": false, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
            "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
            "sliding_window": 2047, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
        }));
        let own = match self {
            Self::Phi3Mini => json!({}),
            Self::Phi3Mini128k => json!({
                "max_position_embeddings": 131072, "sliding_window": 262144,
                "rope_scaling": rope_scaling(48)
            }),
            Self::Phi4Mini => json!({
                "vocab_size": 200064, "num_attention_heads": 24, "num_key_value_heads": 8,
                "partial_rotary_factor": 0.75, "max_position_embeddings": 131072,
                "sliding_window": 262144, "tie_word_embeddings": true,
                "rope_scaling": rope_scaling(48), "eos_token_id": 200000, "pad_token_id": 200000
            }),
            Self::Nano => json!({
                "vocab_size": 3072, "hidden_size": 192, "intermediate_size": 512,
                "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 2,
                "max_position_embeddings": 512, "original_max_position_embeddings": 512,
                "sliding_window": null, "eos_token_id": 3008, "pad_token_id": 3008
            }),
        };
        config.extend(entries(own));
        config
    }
}

/// LongRoPE factors that grow over the head as the published ones do: short ones to 2, long ones to
/// 64.
fn rope_scaling(pairs: usize) -> Value {
    let factors = |most: f64| -> Vec<f64> {
        let power = |i: usize| most.powf(i as f64 / (pairs - 1) as f64);
        (0..pairs)
            .map(|i| (power(i) * 100.0).round() / 100.0)
            .collect()
    };
    json!({"type": "longrope", "short_factor": factors(2.0), "long_factor": factors(64.0)})
}

fn entries(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use phi3_steer::phi3::Config;

    use super::*;

    #[test]
    fn models_have_their_published_sizes() {
        for (like, parameters) in [
            (Like::Phi3Mini, 3_821_079_552),
            (Like::Phi3Mini128k, 3_821_079_552),
            (Like::Phi4Mini, 3_836_021_760),
        ] {
            let json = Value::from(like.config()).to_string();
            let config = Config::from_json(json.as_bytes()).unwrap();
            assert_eq!(config.parameters(), parameters, "{like:?}");
        }
    }
}
