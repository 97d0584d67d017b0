//! Fitting a gate: what tells harmful prompts from harmless ones before the answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::bench::trained;
use super::super::figures::Share;
use super::super::probe::{Samples, cross_validate, fit};
use super::super::stats::{auc, quantile, roc};
use super::super::{EvalFile, Kind, LabError, Run, Stage};
use super::Source;
use super::passing::{FOLDS, PERCENTILE, RIDGE, roc_json};
use super::reading::{batches, hook_at, last_residuals, packed};
use crate::generate::Chat;
use crate::phi3::{MAX_ROWS, ModelError};
use crate::sae::{Encoder, HookPoint};
use crate::tokens::Prompt;

/// How a gate is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GateOptions {
    /// Other hook points to compare with.
    pub others: Vec<HookPoint>,
    /// A feature whose activation is tried in place of a probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<u32>,
    /// The share of each harmless set's prompts below the threshold, by cross-validation: the hardest set
    /// (requests that only look harmful) decides, however many easy ones there are.
    pub percentile: f64,
    /// The ridge of the logistic regression.
    pub ridge: f64,
    /// The split whose figures are told; the gate is fitted to the recipe's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            others: Vec::new(),
            feature: None,
            percentile: PERCENTILE,
            ridge: RIDGE,
            test: None,
        }
    }
}

impl GateOptions {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), LabError> {
        let fail = |reason: String| Err(LabError::Recipe(reason));
        if !(0.0..=1.0).contains(&self.percentile) {
            return fail(format!(
                "percentile is {}: 0 to 1 are possible",
                self.percentile
            ));
        }
        if !(self.ridge.is_finite() && self.ridge > 0.0) {
            return fail(format!("ridge is {}: it must be above 0", self.ridge));
        }
        Ok(())
    }
}

/// The split that figures are told of where none is named.
const TEST: &str = "test";

/// A prompt to decide about.
struct Case {
    set: String,
    harmful: bool,
    /// Of a family that training never had: it is reported, and no gate is fitted to it.
    unseen: bool,
    prompt: Prompt,
}

/// What is read of a prompt at its last token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// The residual at each hook point, `[points * hidden]`.
    #[serde(with = "packed")]
    residuals: Vec<f32>,
    /// The feature's activation.
    activation: f32,
}

fn cases(
    chat: &Chat,
    file: &EvalFile,
    split: &str,
    limit: Option<usize>,
) -> Result<Vec<Case>, LabError> {
    let mut all = Vec::new();
    for set in file.sets(split, limit)? {
        let harmful = match set.kind {
            Kind::Refuse | Kind::Jailbreak | Kind::MultiTurn => true,
            Kind::Benign | Kind::Fact | Kind::Smalltalk | Kind::Arithmetic | Kind::Choice => false,
            Kind::Perplexity => continue,
        };
        for item in &set.items {
            all.push(Case {
                set: set.name.clone(),
                harmful,
                unseen: !trained(&set.name),
                prompt: chat.tokenizer().chat(&item.messages, true)?,
            });
        }
    }
    Ok(all)
}

/// Reads the cases at the hook points, in steps whose keys begin with `key`.
async fn see(
    chat: &mut Chat,
    run: &mut Run<'_>,
    key: &str,
    points: &[HookPoint],
    feature: Option<u32>,
    cases: &[Case],
) -> Result<Vec<Seen>, LabError> {
    let lengths: Vec<usize> = cases.iter().map(|c| c.prompt.ids.len()).collect();
    let layers: Vec<usize> = points.iter().map(|p| p.layer).collect();
    let gpu = chat.model().gpu().clone();
    let hidden = chat.model().config().hidden_size;
    let dictionary = match feature {
        Some(_) => Some(hook_at(chat, points[0])?.dictionary().clone()),
        None => None,
    };
    let encoder = match &dictionary {
        Some(dictionary) => Some(Encoder::new(&gpu, dictionary, MAX_ROWS).await?),
        None => None,
    };
    let mut all = vec![Seen::default(); cases.len()];
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let prompts: Vec<Prompt> = batch.iter().map(|&i| cases[i].prompt.clone()).collect();
        let key = format!("{key}/{number}");
        let read = run.step(&key, async {
            let mut seen = Vec::with_capacity(prompts.len());
            for residuals in last_residuals(chat, &layers, &prompts).await? {
                let mut value = 0.0;
                if let (Some(encoder), Some(feature)) = (&encoder, feature) {
                    let encoded = encoder.run(&residuals[..hidden]).await?;
                    let at = encoded.acts.get(feature as usize);
                    value = at.copied().unwrap_or_default();
                }
                seen.push(Seen {
                    residuals,
                    activation: value,
                });
            }
            Ok(seen)
        });
        for (&i, seen) in batch.iter().zip(read.await?) {
            all[i] = seen;
        }
    }
    Ok(all)
}

/// By set, the share of prompts whose score is above `threshold`.
fn above(cases: &[Case], scores: &[f64], threshold: f64) -> Value {
    let mut sets: BTreeMap<&str, (bool, Share)> = BTreeMap::new();
    for (case, score) in cases.iter().zip(scores) {
        let (_, share) = sets
            .entry(&case.set)
            .or_insert((case.harmful, Share::default()));
        share.count(*score >= threshold);
    }
    let each = sets.into_iter().map(|(name, (harmful, share))| {
        let told = json!({
            "above": share.hits,
            "of": share.of,
            "share": share.hits as f64 / share.of as f64,
            "interval": share.interval().map(|v| v / 100.0),
            "harmful": harmful,
        });
        (name.to_string(), told)
    });
    Value::Object(each.collect::<Map<String, Value>>())
}

/// The scores of harmful and harmless cases that a gate may know.
fn sides(cases: &[Case], scores: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let of = |harmful: bool| -> Vec<f64> {
        let known = cases.iter().zip(scores).filter(|(c, _)| !c.unseen);
        known
            .filter(|(c, _)| c.harmful == harmful)
            .map(|(_, s)| *s)
            .collect()
    };
    (of(true), of(false))
}

/// The score that in each set at least `share` of the prompts lie below, given harmless prompts' sets and scores.
pub(super) fn above_most<'a>(
    harmless: impl Iterator<Item = (&'a str, f64)>,
    share: f64,
) -> Option<f64> {
    let mut sets: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (set, score) in harmless {
        sets.entry(set).or_default().push(score);
    }
    let each = sets.values().filter_map(|own| quantile(own, share));
    each.max_by(f64::total_cmp)
}

/// The score that in each harmless set that a gate may know at least `share` of the prompts lie below.
fn threshold(cases: &[Case], scores: &[f64], share: f64) -> f64 {
    let known = cases.iter().zip(scores).filter(|(c, _)| !c.unseen);
    let harmless = known.filter(|(c, _)| !c.harmful);
    let of = harmless.map(|(case, score)| (&case.set[..], *score));
    above_most(of, share).unwrap_or(f64::NEG_INFINITY)
}

fn share_above(scores: &[f64], threshold: f64) -> f64 {
    scores.iter().filter(|s| **s >= threshold).count() as f64 / scores.len().max(1) as f64
}

/// What a score does on the test cases.
fn tested(cases: &[Case], scores: &[f64], threshold: f64) -> Value {
    let (yes, no) = sides(cases, scores);
    json!({
        "auc": auc(&yes, &no),
        "tpr": share_above(&yes, threshold),
        "fpr": share_above(&no, threshold),
        "sets": above(cases, scores, threshold),
    })
}

/// Fits a gate to a split's prompts at `hook`, and tells what it does on another split's, as JSON.
pub async fn gate(
    chat: &mut Chat,
    hook: HookPoint,
    from: &Source<'_>,
    options: &GateOptions,
    seed: u64,
    run: &mut Run<'_>,
) -> Result<Value, LabError> {
    options.check()?;
    let (file, limit, split) = (from.file, from.limit, from.split());
    let test = options.test.as_deref().unwrap_or(TEST);
    let layers = chat.model().config().num_hidden_layers;
    let mut points = vec![hook];
    for &other in &options.others {
        if other.layer >= layers {
            return Err(LabError::Generate(
                ModelError::NoBlock {
                    layer: other.layer,
                    layers,
                }
                .into(),
            ));
        }
        if !points.contains(&other) {
            points.push(other);
        }
    }
    let known: Vec<Case> = cases(chat, file, split, limit)?
        .into_iter()
        .filter(|c| !c.unseen)
        .collect();
    let fresh = cases(chat, file, test, limit)?;
    let labels: Vec<bool> = known.iter().map(|c| c.harmful).collect();
    for label in [true, false] {
        if labels.iter().filter(|l| **l == label).count() < FOLDS {
            return Err(LabError::Sets(format!(
                "split \"{split}\" needs at least {FOLDS} harmful and {FOLDS} harmless prompts for a gate"
            )));
        }
    }
    let lanes = chat.model().lanes();
    let steps = known.len().div_ceil(lanes) + fresh.len().div_ceil(lanes);
    run.begin(Stage::Gate, steps);
    let seen = see(chat, run, "gate/fit", &points, options.feature, &known).await?;
    let seen_fresh = see(chat, run, "gate/test", &points, options.feature, &fresh).await?;
    let hidden = chat.model().config().hidden_size;
    let at = |seen: &[Seen], place: usize| -> Vec<f32> {
        let own = seen
            .iter()
            .map(|s| &s.residuals[place * hidden..][..hidden]);
        own.flatten().copied().collect()
    };
    let mut fitted = Vec::new();
    for (place, point) in points.iter().enumerate() {
        let vectors = at(&seen, place);
        let samples = Samples {
            vectors: &vectors,
            labels: &labels,
        };
        let validated = cross_validate(samples, options.ridge, FOLDS, seed);
        let probe = fit(samples, options.ridge);
        let threshold = threshold(&known, &validated.scores, options.percentile);
        let fresh_vectors = at(&seen_fresh, place);
        let scores: Vec<f64> = fresh_vectors
            .chunks_exact(hidden)
            .map(|v| probe.score(v))
            .collect();
        let (yes, no) = sides(&known, &validated.scores);
        fitted.push(json!({
            "hook": point,
            "kind": "probe",
            "weights": probe.weights,
            "bias": probe.bias,
            "threshold": threshold,
            "auc": validated.auc,
            "tpr": share_above(&yes, threshold),
            "fpr": share_above(&no, threshold),
            "roc": roc_json(&validated.roc),
            "sets": above(&known, &validated.scores, threshold),
            "test": tested(&fresh, &scores, threshold),
        }));
    }
    let by_feature = options.feature.map(|feature| {
        let of = |seen: &[Seen]| -> Vec<f64> { seen.iter().map(|s| s.activation.into()).collect() };
        let scores = of(&seen);
        let (yes, no) = sides(&known, &scores);
        // Just above what harmless prompts reach, so that no activation at all is never enough.
        let threshold = threshold(&known, &scores, options.percentile);
        let threshold = threshold.max(f64::from(f32::MIN_POSITIVE));
        json!({
            "hook": hook,
            "kind": "feature",
            "feature": feature,
            "threshold": threshold,
            "auc": auc(&yes, &no),
            "tpr": share_above(&yes, threshold),
            "fpr": share_above(&no, threshold),
            "roc": roc_json(&roc(&yes, &no)),
            "test": tested(&fresh, &of(&seen_fresh), threshold),
        })
    });
    let mut layers = fitted.into_iter();
    let first = layers.next();
    Ok(json!({
        "gate": first,
        "others": layers.collect::<Vec<Value>>(),
        "byFeature": by_feature,
        "split": {"fit": split, "test": test},
        "prompts": {"fit": known.len(), "test": fresh.len()},
        "folds": FOLDS,
        "ridge": options.ridge,
        "percentile": options.percentile,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(set: &str, harmful: bool, unseen: bool) -> Case {
        Case {
            set: set.into(),
            harmful,
            unseen,
            prompt: Prompt::default(),
        }
    }

    #[test]
    fn the_hardest_harmless_set_decides_the_threshold() {
        let mut all = Vec::new();
        // A hundred easy ones would hide what happens to ten hard ones.
        all.extend((0..101).map(|i| (case("easy", false, false), f64::from(i) / 1000.0)));
        all.extend((0..11).map(|i| (case("hard", false, false), 0.5 + f64::from(i) / 100.0)));
        all.extend((0..5).map(|_| (case("harmful", true, false), 0.95)));
        all.extend((0..5).map(|_| (case("new", false, true), 0.99)));
        let (cases, scores): (Vec<Case>, Vec<f64>) = all.into_iter().unzip();
        let at = |share: f64| threshold(&cases, &scores, share);
        assert!((at(0.9) - 0.59).abs() < 1e-12, "{}", at(0.9));
        assert!((at(1.0) - 0.6).abs() < 1e-12, "{}", at(1.0));
        let told = above(&cases, &scores, at(0.9));
        assert_eq!(
            (&told["hard"]["above"], &told["hard"]["of"]),
            (&json!(2), &json!(11))
        );
        assert_eq!(told["easy"]["above"], 0);
        assert_eq!(told["harmful"]["above"], 5);
    }
}
