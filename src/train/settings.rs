//! What a dictionary is to be and how it is trained.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TrainError;
use crate::sae::{MAX_K, MAX_LATENTS};

/// Which latents are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The k largest of each row.
    #[default]
    TopK,
    /// The k largest of each row on average: the largest of all rows of a step, at most four times as many of one row
    /// (Bussmann et al., 2024, arXiv 2412.06410). Used, it has a threshold: it is a JumpReLU dictionary.
    BatchTopK,
}

/// The size of a dictionary and the course of its training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// Latents.
    pub latents: usize,
    /// Active latents of a token.
    pub k: usize,
    /// Whether of each or on average.
    pub selection: Selection,
    /// Steps.
    pub steps: usize,
    /// Rows of a step.
    pub rows: usize,
    /// Adam's rate at its highest.
    pub rate: f32,
    /// Steps over which the rate rises.
    pub warmup: usize,
    /// The last share of the steps, over which the rate falls to nothing.
    pub decay: f32,
    /// Steps without being active after which a latent is dead.
    pub dead_after: u32,
    /// Dead latents that rebuild what the others leave of a token; 0 for no auxiliary loss.
    pub auxiliary: usize,
    /// The weight of the auxiliary loss.
    pub auxiliary_weight: f32,
    /// Whether the decoder stays the random one that training begins with: a control for what is said of a
    /// trained one (arXiv 2602.14111).
    pub frozen_decoder: bool,
    /// What all random choices come from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latents: 4096,
            k: 32,
            selection: Selection::TopK,
            steps: 500,
            rows: 2048,
            rate: 1e-3,
            warmup: 50,
            decay: 0.4,
            dead_after: 60,
            auxiliary: 64,
            auxiliary_weight: 1.0 / 32.0,
            frozen_decoder: false,
            seed: 1,
        }
    }
}

/// The largest number of listed activations of a step, which a grid of the GPU's folds into two sides.
const MOST_LISTED: usize = 1 << 24;

impl Settings {
    /// Settings of which only some are given, for vectors of `width` elements: eight latents for each, unless it is
    /// said, and the rest as usual. Checked.
    pub fn wished(some: Value, width: usize) -> Result<Self, TrainError> {
        let given = |name: &str| some.get(name).is_some();
        let (latents, warmup) = (given("latents"), given("warmup"));
        let settings = serde_json::from_value(some);
        let mut settings: Self = settings.map_err(|e| TrainError::Setting {
            name: "the settings",
            value: "these".into(),
            rule: e.to_string(),
        })?;
        if !latents {
            settings.latents = 8 * width;
        }
        if !warmup {
            settings.warmup = Self::usual_warmup(settings.steps);
        }
        settings.auxiliary = settings.auxiliary.min(settings.latents);
        settings.check()?;
        Ok(settings)
    }

    /// The steps over which the rate rises, of so many: a tenth, at most 50.
    pub fn usual_warmup(steps: usize) -> usize {
        (steps / 10).min(50)
    }

    /// An error that names the first setting that makes no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        let whole = |name, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(TrainError::Setting {
                name,
                value: value.to_string(),
                rule: format!("{least} to {most} is possible"),
            })
        };
        whole("latents", self.latents, 2, MAX_LATENTS)?;
        whole("k", self.k, 1, MAX_K.min(self.latents))?;
        whole("steps", self.steps, 1, 10_000_000)?;
        whole("rows", self.rows, 1, 65_535)?;
        whole("warmup", self.warmup, 0, self.steps)?;
        whole("auxiliary", self.auxiliary, 0, MAX_K.min(self.latents))?;
        let listed = self.rows * self.slots().max(self.auxiliary);
        whole("rows times active latents", listed, 1, MOST_LISTED)?;
        let number = |name, value: f32, most: f32, open: bool| {
            if value <= most && (value > 0.0 || (value == 0.0 && !open)) {
                return Ok(());
            }
            let from = if open { "above 0" } else { "0" };
            Err(TrainError::Setting {
                name,
                value: value.to_string(),
                rule: format!("{from} to {most} is possible"),
            })
        };
        number("rate", self.rate, 1.0, true)?;
        number("decay", self.decay, 1.0, false)?;
        number("auxiliary weight", self.auxiliary_weight, 1.0, false)
    }

    /// Active latents that are listed of a row, at most.
    pub fn slots(&self) -> usize {
        match self.selection {
            Selection::TopK => self.k,
            Selection::BatchTopK => (4 * self.k).min(MAX_K).min(self.latents),
        }
    }

    /// Adam's rate at a step, counted from 0.
    pub fn rate_at(&self, step: usize) -> f32 {
        let up = (step + 1) as f32 / self.warmup.max(1) as f32;
        let left = (self.steps - step.min(self.steps)) as f32;
        let falling = (self.steps as f32 * self.decay).max(1.0);
        self.rate * up.min(1.0) * (left / falling).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_stays_and_falls() {
        let settings = Settings {
            steps: 100,
            rate: 2.0,
            warmup: 10,
            decay: 0.2,
            ..Settings::default()
        };
        for (step, rate) in [
            (0, 0.2),
            (9, 2.0),
            (50, 2.0),
            (80, 2.0),
            (90, 1.0),
            (99, 0.1),
        ] {
            assert!((settings.rate_at(step) - rate).abs() < 1e-5, "step {step}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = Settings::default();
        good.check().unwrap();
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        for (error, words) in [
            (with(|s| s.k = 0), "k cannot be 0: 1 to 256"),
            (with(|s| s.latents = 1), "latents cannot be 1"),
            (with(|s| s.rows = 70_000), "rows cannot be 70000"),
            (with(|s| s.warmup = 501), "warmup cannot be 501"),
            (with(|s| s.rate = 0.0), "rate cannot be 0: above 0"),
            (with(|s| s.rate = f32::NAN), "rate cannot be NaN"),
            (with(|s| s.decay = 1.5), "decay cannot be 1.5"),
            (with(|s| s.auxiliary = 300), "auxiliary cannot be 300"),
        ] {
            assert!(error.contains(words), "{error}");
        }
    }
}
