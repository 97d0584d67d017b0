//! Gates: whether a lane's interventions hold for the answer that comes.

use serde::{Deserialize, Serialize};

use super::SteeringError;
use crate::sae::HookPoint;

/// Decides at every turn, on the residual stream at the prompt's last token as it is without steering, whether
/// the lane is steered.
///
/// In JSON `{"hook": "layers.3", "weights": [...], "bias": -1.5, "threshold": 0.6}` or `{"hook": "layers.3",
/// "feature": 329, "threshold": 2}`; what else the object has is not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Plain", try_from = "Plain")]
pub struct Gate {
    /// Where it looks.
    pub hook: HookPoint,
    /// What it looks at.
    pub kind: GateKind,
    /// The score from which on the lane is steered.
    pub threshold: f32,
}

/// What a gate looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum GateKind {
    /// A linear probe; its score is the logistic probability 1 / (1 + exp(-(<weights, h> + bias))).
    Probe {
        /// `[hidden]`
        weights: Vec<f32>,
        /// The bias.
        bias: f32,
    },
    /// A feature of the dictionary at the hook point; its score is the activation.
    Feature {
        /// The feature.
        feature: u32,
    },
}

/// A gate in JSON.
#[derive(Serialize, Deserialize)]
struct Plain {
    hook: HookPoint,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feature: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bias: Option<f32>,
    threshold: f32,
}

impl GateKind {
    /// What is looked at, where a feature is named or a probe given.
    pub fn of(
        feature: Option<u32>,
        weights: Option<Vec<f32>>,
        bias: Option<f32>,
    ) -> Result<Self, SteeringError> {
        let bad = |field, reason: &str| {
            Err(SteeringError::BadGate {
                field,
                reason: reason.into(),
            })
        };
        match (feature, weights, bias) {
            (Some(feature), None, None) => Ok(GateKind::Feature { feature }),
            (None, Some(weights), Some(bias)) => Ok(GateKind::Probe { weights, bias }),
            (None, Some(_), None) => bad("bias", "a probe has a bias beside its weights"),
            (Some(_), ..) => bad("feature", "it has a feature or a probe's weights, not both"),
            (None, None, _) => bad(
                "weights",
                "it needs a feature, or a probe's weights and bias",
            ),
        }
    }
}

impl From<Gate> for Plain {
    fn from(gate: Gate) -> Self {
        let (feature, weights, bias) = match gate.kind {
            GateKind::Feature { feature } => (Some(feature), None, None),
            GateKind::Probe { weights, bias } => (None, Some(weights), Some(bias)),
        };
        Self {
            hook: gate.hook,
            feature,
            weights,
            bias,
            threshold: gate.threshold,
        }
    }
}

impl TryFrom<Plain> for Gate {
    type Error = SteeringError;

    fn try_from(p: Plain) -> Result<Self, SteeringError> {
        Ok(Self {
            hook: p.hook,
            kind: GateKind::of(p.feature, p.weights, p.bias)?,
            threshold: p.threshold,
        })
    }
}

impl Gate {
    /// The probe's score on a residual stream of the hook, `[hidden]`; none if it looks at a feature.
    pub fn probability(&self, residual: &[f32]) -> Option<f32> {
        let GateKind::Probe { weights, bias } = &self.kind else {
            return None;
        };
        let product = |(w, h): (&f32, &f32)| f64::from(*w) * f64::from(*h);
        let sum: f64 = weights.iter().zip(residual).map(product).sum();
        Some((1.0 / (1.0 + (-(sum + f64::from(*bias))).exp())) as f32)
    }

    /// Checks a probe for a stream `width` wide, and the threshold.
    pub(super) fn check(&self, width: usize) -> Result<(), SteeringError> {
        let bad = |field, reason: String| Err(SteeringError::BadGate { field, reason });
        if !self.threshold.is_finite() {
            return bad("threshold", format!("it is {}, not finite", self.threshold));
        }
        let GateKind::Probe { weights, bias } = &self.kind else {
            return Ok(());
        };
        if weights.len() != width {
            let count = weights.len();
            return bad(
                "weights",
                format!("there are {count}, and the residual stream has {width} elements"),
            );
        }
        if let Some(at) = weights.iter().position(|w| !w.is_finite()) {
            return bad("weights", format!("number {at} is not finite"));
        }
        if !bias.is_finite() {
            return bad("bias", format!("it is {bias}, not finite"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_there_and_back() {
        for (json, kind) in [
            (
                r#"{"hook":"layers.3","weights":[0.5,-1.0],"bias":0.25,"threshold":0.5}"#,
                GateKind::Probe {
                    weights: vec![0.5, -1.0],
                    bias: 0.25,
                },
            ),
            (
                r#"{"hook":"layers.3","feature":329,"threshold":0.5}"#,
                GateKind::Feature { feature: 329 },
            ),
        ] {
            let gate: Gate = serde_json::from_str(json).unwrap();
            let hook = HookPoint::block(3);
            assert_eq!(
                gate,
                Gate {
                    hook,
                    kind,
                    threshold: 0.5
                }
            );
            assert_eq!(serde_json::to_string(&gate).unwrap(), json);
        }
        for (json, word) in [
            (r#"{"hook": "layers.3", "threshold": 1}"#, "weights: "),
            (
                r#"{"hook": "layers.3", "weights": [1], "threshold": 1}"#,
                "bias: ",
            ),
            (
                r#"{"hook": "layers.3", "weights": [1], "bias": 0, "feature": 1, "threshold": 1}"#,
                "feature: ",
            ),
            (r#"{"hook": "layers.3", "feature": 1}"#, "threshold"),
            (
                r#"{"hook": "mlp.3", "feature": 1, "threshold": 1}"#,
                "mlp.3",
            ),
        ] {
            let message = serde_json::from_str::<Gate>(json).unwrap_err().to_string();
            assert!(message.contains(word), "{json}: {message}");
        }
    }

    #[test]
    fn the_probability_is_the_logistic_functions() {
        let gate = |weights, bias| Gate {
            hook: HookPoint::block(0),
            kind: GateKind::Probe { weights, bias },
            threshold: 0.5,
        };
        let p = gate(vec![1.0, -2.0], 0.5).probability(&[2.0, 1.0]).unwrap();
        assert!((f64::from(p) - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-7);
        assert_eq!(gate(vec![1e30], 0.0).probability(&[1e30]), Some(1.0));
        assert_eq!(gate(vec![-1e30], 0.0).probability(&[1e30]), Some(0.0));
        assert!(
            gate(vec![1.0], 0.0)
                .probability(&[f32::NAN])
                .unwrap()
                .is_nan()
        );
    }
}
