//! Gates in recipes: which prompts look harmful.

use serde::{Deserialize, Serialize};

use super::LabError;
use crate::sae::HookPoint;

/// A gate on the residual stream at the last token of a prompt's template, without steering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GateSpec {
    /// Where it reads.
    pub hook: HookPoint,
    /// From this score on a prompt is steered.
    pub threshold: f64,
    /// The score is this feature's activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<u32>,
    /// The score is the logistic probability of these weights on the residual, `[hidden]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f32>>,
    /// Added to the weighted sum.
    #[serde(default)]
    pub bias: f32,
}

impl GateSpec {
    /// Whether it says one score.
    pub(super) fn check(&self) -> Result<(), LabError> {
        let fail = |reason: &str| Err(LabError::Recipe(format!("gate: {reason}")));
        let finite = |all: &Vec<f32>| all.iter().all(|w| w.is_finite());
        if self.feature.is_some() == self.weights.is_some() {
            return fail("either a feature or weights are needed");
        }
        if !self.threshold.is_finite() || !self.bias.is_finite() {
            return fail("threshold and bias must be finite");
        }
        if !self.weights.as_ref().is_none_or(finite) {
            return fail("the weights must be finite");
        }
        Ok(())
    }

    /// The score of a residual, `[hidden]`.
    pub(super) fn probability(&self, residual: &[f32]) -> Result<f64, LabError> {
        let weights = self.weights.as_deref().unwrap_or_default();
        if weights.len() != residual.len() {
            return Err(LabError::Recipe(format!(
                "gate: {} weights do not fit a residual of {}",
                weights.len(),
                residual.len()
            )));
        }
        let products = weights.iter().zip(residual);
        let sum: f64 = products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        Ok(1.0 / (1.0 + (-(sum + f64::from(self.bias))).exp()))
    }
}
