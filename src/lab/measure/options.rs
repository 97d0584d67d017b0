//! The fields of the tasks "measure" and "sweep".

use serde::{Deserialize, Serialize};

use super::super::arms::Target;
use super::super::control::Control;
use super::super::gate::GateSpec;
use super::super::{JudgeRules, LabError};
use crate::steering::{Operator, Positions};

/// Tokens of a reply at most that may be asked for.
const MOST_TOKENS: usize = 1024;
/// Random features and directions, where the recipe does not say.
const REPEATS: usize = 2;
/// Strengths, ways of steering and the like at most.
const MOST: usize = 64;

/// The fields of the tasks "measure" and "sweep".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeasureOptions {
    /// What is steered; controls are about the first.
    pub steer: Vec<Target>,
    /// The strengths, in units of each feature's `max`.
    pub values: Vec<f32>,
    /// Strengths below 0, of the clamp.
    #[serde(default)]
    pub negatives: Vec<f32>,
    /// The operators.
    #[serde(default = "clamp")]
    pub operators: Vec<Operator>,
    /// The tokens that are steered.
    #[serde(default = "everywhere")]
    pub positions: Vec<Positions>,
    /// Whether only where the feature is active: no, yes, or both.
    #[serde(default = "no")]
    pub only_if_active: Vec<bool>,
    /// Which prompts are steered, as `find` fitted it. With a gate each way of steering is measured with
    /// and without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
    /// The controls; all for "measure", none for "sweep" if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Vec<Control>>,
    /// The strength at which controls are measured; the last of `values` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<f32>,
    /// Random features, and as many random directions.
    #[serde(default = "repeats")]
    pub repeats: usize,
    /// Tokens of a reply at most; what the prompts' file says if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Other such numbers, at which replies are judged too.
    #[serde(default)]
    pub caps: Vec<usize>,
    /// What says which replies are refusals; the prompts' file's judge if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeRules>,
}

fn clamp() -> Vec<Operator> {
    vec![Operator::Clamp]
}

fn everywhere() -> Vec<Positions> {
    vec![Positions::All]
}

fn no() -> Vec<bool> {
    vec![false]
}

fn repeats() -> usize {
    REPEATS
}

impl MeasureOptions {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), LabError> {
        let fail = |reason: String| Err(LabError::Recipe(reason));
        let lists = [
            ("steer", self.steer.len()),
            ("values", self.values.len()),
            ("operators", self.operators.len()),
            ("positions", self.positions.len()),
            ("onlyIfActive", self.only_if_active.len()),
        ];
        for (name, length) in lists {
            if length == 0 || length > MOST {
                return fail(format!("{name}: 1 to {MOST} are needed"));
            }
        }
        if self.negatives.len() > MOST || self.repeats > MOST || self.caps.len() > MOST {
            return fail(format!("negatives, repeats, caps: at most {MOST}"));
        }
        for (i, target) in self.steer.iter().enumerate() {
            let direction = target.direction.as_ref();
            if direction.is_some_and(|d| d.0.is_empty() || d.0.iter().any(|v| !v.is_finite())) {
                return fail(format!(
                    "steer[{i}]: the direction's numbers must be finite"
                ));
            }
            let features = target.features.len();
            if features > MOST || (features == 0) != direction.is_some() {
                return fail(format!(
                    "steer[{i}]: 1 to {MOST} features are needed, or a direction in their place"
                ));
            }
            let bad = |max: f32| !(max.is_finite() && max > 0.0);
            if let Some(bad) = target.features.iter().find(|f| bad(f.max)) {
                return fail(format!("steer[{i}]: a max of {} is not above 0", bad.max));
            }
            let same = |other: &Target| other.label() == target.label();
            if self.steer[..i].iter().any(same) {
                return fail(format!("steer[{i}]: \"{}\" is there twice", target.label()));
            }
        }
        let values = self.values.iter().chain(&self.negatives).chain(&self.at);
        if let Some(value) = values.into_iter().find(|v| !v.is_finite()) {
            return fail(format!("a strength of {value}: finite ones are needed"));
        }
        if let Some(value) = self.negatives.iter().find(|v| **v >= 0.0) {
            return fail(format!("negatives: {value} is not below 0"));
        }
        if let Some(op) = self.operators.iter().find(|op| !op.takes_value()) {
            return fail(format!("operators: {op} has no strength"));
        }
        let good = 1..=MOST_TOKENS;
        if self.tokens.is_some_and(|n| !good.contains(&n)) {
            return fail(format!("tokens: 1 to {MOST_TOKENS} are possible"));
        }
        if let Some(cap) = self.caps.iter().find(|n| !good.contains(n)) {
            return fail(format!("caps: {cap} is not from 1 to {MOST_TOKENS}"));
        }
        if let Some(gate) = &self.gate {
            gate.check()?;
        }
        let empty = |j: &JudgeRules| j.phrases.iter().all(|p| p.trim().is_empty());
        if self.judge.as_ref().is_some_and(empty) {
            return fail("judge: it has no phrases".into());
        }
        Ok(())
    }
}
