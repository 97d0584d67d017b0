//! The gate that a search fits in passing: a probe of harmful prompts at the hook.

use serde_json::{Value, json};

use super::super::probe::{Samples, cross_validate, fit};
use super::super::stats::RocPoint;
use super::super::{LabError, Run};
use super::asks::{Ask, Class};
use super::gate::above_most;
use super::reading::{Reading, batches, last_residuals};
use crate::generate::Chat;
use crate::sae::HookPoint;
use crate::steering::{Gate, GateKind};
use crate::tokens::Prompt;

/// The probe's ridge, folds, and the share of each harmless set's prompts below its threshold.
pub const RIDGE: f64 = 1.0;
pub const FOLDS: usize = 5;
pub const PERCENTILE: f64 = 0.95;

/// A gate fitted to the prompts `asks` that were searched with, and what is told of it.
pub fn fitted(asks: &[Ask], readings: &[Reading], hook: HookPoint, seed: u64) -> (Gate, Value) {
    let labels: Vec<bool> = asks.iter().map(|a| a.class != Class::Harmless).collect();
    let vectors: Vec<f32> = readings
        .iter()
        .flat_map(|r| r.last.iter().copied())
        .collect();
    let samples = Samples {
        vectors: &vectors,
        labels: &labels,
    };
    let validated = cross_validate(samples, RIDGE, FOLDS, seed);
    let probe = fit(samples, RIDGE);
    let harmless = asks.iter().zip(&validated.scores);
    let harmless = harmless.filter(|(ask, _)| ask.class == Class::Harmless);
    let threshold = above_most(harmless.map(|(ask, s)| (&ask.set[..], *s)), PERCENTILE);
    // In the middle where there is nothing that it must not open for.
    let threshold = threshold.unwrap_or(0.5);
    let told = json!({
        "hook": hook,
        "kind": "probe",
        "weights": probe.weights,
        "bias": probe.bias,
        "threshold": threshold,
        "auc": validated.auc,
        "roc": roc_json(&validated.roc),
    });
    let gate = Gate {
        hook,
        kind: GateKind::Probe {
            weights: probe.weights,
            bias: probe.bias,
        },
        threshold: threshold as f32,
    };
    (gate, told)
}

/// Whether `gate`, a probe, opens for each of `asks`.
pub async fn opens(
    chat: &mut Chat,
    run: &mut Run<'_>,
    gate: &Gate,
    asks: &[Ask],
) -> Result<Vec<bool>, LabError> {
    let lengths: Vec<usize> = asks.iter().map(|ask| ask.prompt.ids.len()).collect();
    let mut all = vec![false; asks.len()];
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let prompts: Vec<Prompt> = batch.iter().map(|&i| asks[i].prompt.clone()).collect();
        let scores = run
            .step(&format!("confirm/gate/{number}"), async {
                let last = last_residuals(chat, &[gate.hook.layer], &prompts).await?;
                let scores = last.iter().map(|residual| gate.probability(residual));
                Ok(scores.collect::<Vec<Option<f32>>>())
            })
            .await?;
        for (&i, score) in batch.iter().zip(scores) {
            all[i] = score >= Some(gate.threshold);
        }
    }
    Ok(all)
}

/// A ROC curve as `[false positives, true positives, threshold]`.
pub fn roc_json(curve: &[RocPoint]) -> Vec<Value> {
    let point = |p: &RocPoint| json!([p.false_positive, p.true_positive, p.threshold]);
    curve.iter().map(point).collect()
}
