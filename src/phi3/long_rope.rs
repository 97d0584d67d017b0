//! LongRoPE: rotary frequencies stretched one by one, for the 128k models
//! (<https://arxiv.org/abs/2402.13753>, as in Hugging Face's `Phi3LongRoPEScaledRotaryEmbedding`).

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

impl LongRope {
    /// Frequencies that are always divided by the same `factors`, in a model for `positions` positions.
    pub(super) fn always(factors: Vec<f64>, positions: usize) -> Self {
        Self {
            short: factors.clone(),
            long: factors,
            original_max_position_embeddings: positions,
            attention_factor: 1.0,
        }
    }

    /// The published factor of cosines and sines of a model for `scale` times the positions that it
    /// was pretrained for, `original`.
    pub(super) fn attention_factor(scale: f64, original: usize) -> f64 {
        match scale > 1.0 {
            true => (1.0 + scale.ln() / (original as f64).ln()).sqrt(),
            false => 1.0,
        }
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

    #[test]
    fn the_128k_models_attention_factor_is_the_published_one() {
        // llama.cpp's converter writes 1.1902380714238083 for Phi-3-mini-128k.
        let factor = LongRope::attention_factor(32.0, 4096);
        assert!((factor - 1.190_238_071_423_808_3).abs() < 1e-12);
        assert_eq!(LongRope::attention_factor(0.5, 4096), 1.0);
    }
}
