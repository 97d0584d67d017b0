//! Verdicts by hand: a person who reads a reply otherwise than the judge does has the last word, and everything
//! that follows from it is counted anew.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::measure::{Point, pareto, range_json};
use super::verdicts::{Label, Verdict, count, groups_json, shares};
use super::{LabError, Scope};

/// What is said of a reply by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ByHand {
    /// The arm's name.
    pub arm: String,
    /// The prompt's id, as the result's `items` have it.
    pub item: String,
    /// Whether the reply is a refusal; none gives the judge's verdict back.
    pub refused: Option<bool>,
}

/// What stands in place of the phrase.
const BY_HAND: &str = "by hand";

/// What an overruled result says of an arm, of what is counted from verdicts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    arm: String,
    value: Option<f32>,
    series: Option<usize>,
    scope: Scope,
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    item: usize,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    #[serde(flatten)]
    label: Label,
}

fn fail(what: impl std::fmt::Display) -> LabError {
    LabError::Result(what.to_string())
}

fn part<T: serde::de::DeserializeOwned>(result: &Value, name: &str) -> Result<T, LabError> {
    T::deserialize(&result[name]).map_err(|e| fail(format!("{name}: {e}")))
}

/// A result of a measurement or a sweep with `verdicts` in place of the judge's: shares, intervals, pairs, ranges
/// and the Pareto front are counted anew. Its `byHand` lists all verdicts by hand, those that it had before too.
/// Other numbers of tokens (`caps`) stay as the judge reads them.
///
/// # Errors
/// [`LabError::Result`] if it is no such result, or has no such arm or reply.
pub fn overrule(result: &Value, verdicts: &[ByHand]) -> Result<Value, LabError> {
    let mut out = result.clone();
    let items: Vec<Item> = part(result, "items")?;
    let mut all: Vec<ByHand> = match result["byHand"] {
        Value::Null => Vec::new(),
        _ => part(result, "byHand")?,
    };
    let arms = out["arms"].as_array_mut();
    let arms = arms.ok_or_else(|| fail("it has no arms: only what was measured has verdicts"))?;
    for one in verdicts {
        let item = items.iter().position(|item| item.id == one.item);
        let item = item.ok_or_else(|| fail(format!("it has no prompt \"{}\"", one.item)))?;
        let arm = arms.iter_mut().find(|arm| arm["arm"] == *one.arm);
        let arm = arm.ok_or_else(|| fail(format!("it has no arm \"{}\"", one.arm)))?;
        let outcomes = arm["outcomes"].as_array_mut().into_iter().flatten();
        let outcome = outcomes.into_iter().find(|o| o["item"] == item);
        let outcome = outcome
            .and_then(Value::as_object_mut)
            .ok_or_else(|| fail(format!("\"{}\" has no reply to \"{}\"", one.arm, one.item)))?;
        // The judge's own verdict is kept beside, once.
        let judged = match outcome.remove("judged") {
            Some(judged) => judged,
            None => outcome.get("refused").cloned().unwrap_or(Value::Null),
        };
        outcome.remove("refused");
        all.retain(|other| (&other.arm, &other.item) != (&one.arm, &one.item));
        let refused = match one.refused {
            None => judged.clone(),
            Some(true) => json!(BY_HAND),
            Some(false) => Value::Null,
        };
        if !refused.is_null() {
            outcome.insert("refused".into(), refused);
        }
        if one.refused.is_some() {
            outcome.insert("judged".into(), judged);
            all.push(one.clone());
        }
    }
    recount(&mut out, items)?;
    match all.is_empty() {
        true => out.as_object_mut().map(|out| out.remove("byHand")),
        false => out
            .as_object_mut()
            .map(|out| out.insert("byHand".into(), json!(all))),
    };
    Ok(out)
}

/// Counts everything that follows from the outcomes' verdicts.
fn recount(result: &mut Value, items: Vec<Item>) -> Result<(), LabError> {
    let labels: Vec<Label> = items.into_iter().map(|item| item.label).collect();
    let told: Vec<Told> = part(result, "arms")?;
    let mut verdicts = Vec::with_capacity(told.len());
    for arm in &told {
        let mut own: Vec<Option<Verdict>> = vec![None; labels.len()];
        for outcome in &arm.outcomes {
            let place = own.get_mut(outcome.item).ok_or_else(|| {
                let (arm, item) = (&arm.arm, outcome.item);
                fail(format!(
                    "\"{arm}\" answers prompt {item}, which there is not"
                ))
            })?;
            *place = Some(outcome.verdict.clone());
        }
        verdicts.push(own);
    }
    let base = verdicts.first().cloned().unwrap_or_default();
    let counted: Vec<_> = verdicts
        .iter()
        .map(|own| (count(&labels, own, &base), shares(&labels, own)))
        .collect();
    let points: Vec<Point<'_>> = told
        .iter()
        .zip(&counted)
        .map(|(arm, (groups, figures))| Point {
            series: arm.series,
            value: arm.value,
            scope: arm.scope,
            groups,
            figures,
        })
        .collect();
    let series = result["series"].as_array().map_or(0, Vec::len);
    let (range, pareto) = (range_json(&points, series), pareto(&points));
    let arms = result["arms"].as_array_mut().into_iter().flatten();
    for (arm, (groups, figures)) in arms.zip(&counted) {
        arm["groups"] = groups_json(groups);
        if let Value::Object(figures) = figures.json() {
            for (name, value) in figures {
                arm[&name] = value;
            }
        }
    }
    result["range"] = range;
    result["pareto"] = json!(pareto);
    Ok(())
}
