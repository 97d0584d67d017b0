//! LongRoPE: rotary frequencies stretched one by one, for the 128k models
//! (<https://arxiv.org/abs/2402.13753>, as in Hugging Face's `Phi3LongRoPEScaledRotaryEmbedding`).

use serde::Deserialize;
use serde_json::Value;

use super::ModelError;

/// `rope_scaling` of `config.json`.
///
/// Frequency i is divided by `short[i]` in sequences of up to `original_max_position_embeddings`
/// positions and by `long[i]` in longer ones, whose keys must all have been turned by the same factors;
/// cosines and sines are multiplied by `attention_factor`.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// `[rotary_dim / 2]`
    pub short: Vec<f64>,
    /// `[rotary_dim / 2]`
    pub long: Vec<f64>,
    /// Positions of pretraining.
    pub original_max_position_embeddings: usize,
    /// What cosines and sines are multiplied by.
    pub attention_factor: f64,
}

#[derive(Deserialize)]
struct Raw {
    short_factor: Vec<f64>,
    long_factor: Vec<f64>,
    original_max_position_embeddings: Option<usize>,
    attention_factor: Option<f64>,
}

impl LongRope {
    /// Checks `value` for `half` frequencies of a model for `positions` positions, `original` of them
    /// pretrained if the configuration says so outside of `rope_scaling`.
    pub(super) fn new(
        value: Value,
        half: usize,
        positions: usize,
        original: Option<usize>,
    ) -> Result<Self, ModelError> {
        let fail = |reason: String| ModelError::Config(format!("rope_scaling: {reason}"));
        let kind = value.get("rope_type").or_else(|| value.get("type"));
        match kind.and_then(Value::as_str) {
            // "su" is the name that the first Phi-3 checkpoints had for it.
            Some("longrope" | "su") => {}
            Some(other) => {
                return Err(fail(format!(
                    "its type is \"{other}\"; Phi-3 models have \"longrope\""
                )));
            }
            None => return Err(fail("it has no type; \"longrope\" is supported".into())),
        }
        let raw: Raw = serde_json::from_value(value).map_err(|e| fail(e.to_string()))?;
        for (name, factors) in [
            ("short_factor", &raw.short_factor),
            ("long_factor", &raw.long_factor),
        ] {
            if factors.len() != half {
                return Err(fail(format!(
                    "{name} has {} factors; the rotary embedding has {half} frequencies",
                    factors.len()
                )));
            }
            if let Some(bad) = factors.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
                return Err(fail(format!("{name} holds {bad}, which is no factor")));
            }
        }
        let original = original.or(raw.original_max_position_embeddings);
        let original = original.filter(|o| *o > 1).ok_or_else(|| {
            fail("original_max_position_embeddings is missing: the positions of pretraining".into())
        })?;
        let attention_factor = match raw.attention_factor {
            Some(factor) if factor.is_finite() && factor > 0.0 => factor,
            Some(factor) => return Err(fail(format!("attention_factor is {factor}"))),
            None => {
                let scale = positions as f64 / original as f64;
                match scale > 1.0 {
                    true => (1.0 + scale.ln() / (original as f64).ln()).sqrt(),
                    false => 1.0,
                }
            }
        };
        Ok(Self {
            short: raw.short_factor,
            long: raw.long_factor,
            original_max_position_embeddings: original,
            attention_factor,
        })
    }

    /// What frequency `i` is divided by.
    pub(super) fn factor(&self, i: usize, long: bool) -> f64 {
        let factors = if long { &self.long } else { &self.short };
        factors.get(i).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<LongRope, ModelError> {
        LongRope::new(value, 2, 131_072, Some(4096))
    }

    #[test]
    fn the_128k_models_attention_factor_is_the_published_one() {
        let value = json!({"type": "su", "short_factor": [1.0, 1.1], "long_factor": [1.5, 60.0]});
        let scaling = parse(value).unwrap();
        // llama.cpp's converter writes 1.1902380714238083 for Phi-3-mini-128k.
        assert!((scaling.attention_factor - 1.190_238_071_423_808_3).abs() < 1e-12);
        assert_eq!(
            (scaling.factor(1, false), scaling.factor(1, true)),
            (1.1, 60.0)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let good =
            json!({"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [2.0, 2.0]});
        assert!(parse(good.clone()).is_ok());
        for (key, value, word) in [
            ("type", json!("yarn"), "yarn"),
            ("type", Value::Null, "no type"),
            ("short_factor", json!([1.0]), "short_factor has 1"),
            ("long_factor", json!([1.0, 0.0]), "long_factor holds 0"),
            ("long_factor", json!("x"), "invalid type"),
            ("attention_factor", json!(-1.0), "attention_factor"),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            let message = parse(bad).unwrap_err().to_string();
            assert!(message.contains(word), "{key}: {message}");
        }
        let message = LongRope::new(good, 2, 131_072, None)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("original_max_position_embeddings"),
            "{message}"
        );
    }
}
