//! What readings say of each latent: the searches that need no steering.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::stats::{
    auc, benjamini_hochberg, frequency_difference, mean, quantile, welch, wilcoxon,
};
use super::asks::{Ask, Class};
use super::forced::Forced;
use super::reading::{Code, Reading};

/// A latent's contrast between two groups of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contrast {
    /// The difference of the mean activations.
    pub delta: f64,
    /// Welch's t.
    pub t: f64,
    /// The difference of the shares of prompts with the latent active.
    pub frequency: f64,
    /// The area under the ROC curve.
    pub auc: f64,
}

/// The paired contrast of a request without and with a jailbreak around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Paired {
    /// The mean difference: without less with.
    pub delta: f64,
    /// Wilcoxon's sum of the ranks of positive differences.
    pub w: f64,
    /// Its two-sided p.
    pub p: f64,
    /// Adjusted over the latents that are alive (Benjamini and Hochberg).
    pub q: f64,
}

/// What is known of a latent without steering it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The latent.
    pub feature: u32,
    /// Tokens of the archetypal refusal at which it is active.
    pub paper: usize,
    /// Between harmful and harmless requests, at the prompt's last token.
    pub last: Contrast,
    /// Between refusals and other replies, the model's own or forced ones, mean over the reply.
    pub reply: Contrast,
    /// Of requests without and with a jailbreak, at the prompt's last token; none without pairs.
    pub paired: Option<Paired>,
    /// Its positive activations at all tokens read: the largest, and the quantiles 0.5, 0.9, 0.99.
    pub strength: Strength,
}

/// A latent's own activations, where it is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Strength {
    /// The largest.
    pub max: f64,
    /// The quantiles 0.5, 0.9 and 0.99.
    pub quantiles: [f64; 3],
    /// The share of tokens at which it is active.
    pub density: f64,
}

/// Replies of each kind from which on refusals are compared with other replies.
const ENOUGH: usize = 4;
/// Pairs from which on requests are compared with and without a jailbreak.
const PAIRS: usize = 4;

/// Whether there are enough of the model's own refusals, and of its other replies, to compare them.
pub fn enough(readings: &[Reading], refused: &[bool]) -> bool {
    let count = |wanted: bool| {
        let all = readings.iter().zip(refused);
        all.filter(|(r, refused)| !r.reply.is_empty() && **refused == wanted)
            .count()
    };
    count(true) >= ENOUGH && count(false) >= ENOUGH
}

/// Prompts and replies in two groups each.
pub struct Groups<'a> {
    readings: &'a [Reading],
    harmful: Vec<bool>,
    /// What the replies were read of: the same, or prompts with forced replies.
    spoken: &'a [Reading],
    /// Whether a reply is a refusal; none for empty ones.
    refusal: Vec<Option<bool>>,
}

impl<'a> Groups<'a> {
    /// The groups of `asks`, of which those `refused` were; replies that were `forced` stand for the model's own.
    pub fn of(
        asks: &[Ask],
        readings: &'a [Reading],
        refused: &[bool],
        forced: Option<&'a Forced>,
    ) -> Self {
        let (spoken, refusal) = match forced {
            Some(forced) => (&forced.readings[..], &forced.refusal[..]),
            None => (readings, refused),
        };
        let sides = spoken.iter().zip(refusal);
        Self {
            readings,
            harmful: asks.iter().map(|a| a.class != Class::Harmless).collect(),
            spoken,
            refusal: sides
                .map(|(r, side)| (!r.reply.is_empty()).then_some(*side))
                .collect(),
        }
    }

    /// Means of the vectors of both groups, the first less the second: at the prompts' last tokens, and over
    /// the replies, `[hidden]` each.
    pub fn differences(&self) -> [Vec<f32>; 2] {
        let last = self.readings.iter().zip(&self.harmful);
        let last = last.map(|(r, side)| (&r.last[..], *side));
        let mean = self.spoken.iter().zip(&self.refusal);
        let mean = mean.filter_map(|(r, side)| Some((&r.mean[..], (*side)?)));
        [difference(last), difference(mean)]
    }
}

/// The mean of the vectors marked true less that of the others.
fn difference<'a>(vectors: impl Iterator<Item = (&'a [f32], bool)>) -> Vec<f32> {
    let mut sums: [Vec<f64>; 2] = Default::default();
    let mut counts = [0usize; 2];
    for (vector, side) in vectors {
        let side = usize::from(side);
        sums[side].resize(vector.len(), 0.0);
        sums[1 - side].resize(vector.len(), 0.0);
        counts[side] += 1;
        let sum = sums[side].iter_mut().zip(vector);
        sum.for_each(|(s, v)| *s += f64::from(*v));
    }
    let [no, yes] = sums;
    let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
    let pairs = yes.iter().zip(&no);
    pairs
        .map(|(y, n)| (mean(*y, counts[1]) - mean(*n, counts[0])) as f32)
        .collect()
}

/// A latent's activations: one number a prompt.
type Column = Vec<f64>;

/// The activations of each latent that is alive: active at some token.
struct Columns {
    last: BTreeMap<u32, Column>,
    reply: BTreeMap<u32, Column>,
    all: BTreeMap<u32, Vec<f64>>,
    tokens: usize,
}

impl Columns {
    fn of(groups: &Groups<'_>) -> Self {
        let readings = groups.readings;
        let mut columns = Self {
            last: BTreeMap::new(),
            reply: BTreeMap::new(),
            all: BTreeMap::new(),
            tokens: 0,
        };
        let n = readings.len();
        for (i, reading) in readings.iter().enumerate() {
            for (latent, value) in reading.last_code() {
                let column = columns.last.entry(*latent).or_insert_with(|| vec![0.0; n]);
                column[i] = f64::from(*value);
            }
            columns.count(&reading.prompt);
        }
        let n = groups.spoken.len();
        for (i, reading) in groups.spoken.iter().enumerate() {
            let share = 1.0 / reading.reply.len().max(1) as f64;
            for (latent, value) in reading.reply.iter().flatten() {
                let column = columns.reply.entry(*latent).or_insert_with(|| vec![0.0; n]);
                column[i] += share * f64::from(*value);
            }
            columns.count(&reading.reply);
        }
        columns
    }

    /// Takes the activations at some tokens.
    fn count(&mut self, codes: &[Code]) {
        self.tokens += codes.len();
        for (latent, value) in codes.iter().flatten() {
            self.all.entry(*latent).or_default().push(f64::from(*value));
        }
    }
}

/// What was read says of each latent that is alive. `archetype` is what was read of the refusal that the paper's
/// search looks at.
pub fn gather(asks: &[Ask], groups: &Groups<'_>, archetype: Option<&Reading>) -> Vec<Evidence> {
    let columns = Columns::of(groups);
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    if let Some(reading) = archetype {
        // The prompt's last token writes the refusal's first.
        let last = reading.prompt.last();
        for code in reading.reply.iter().chain(last) {
            for latent in code.iter().map(|(l, _)| *l).collect::<BTreeSet<u32>>() {
                *counts.entry(latent).or_default() += 1;
            }
        }
    }
    let pairs: Vec<(usize, usize)> = asks
        .iter()
        .enumerate()
        .filter_map(|(i, ask)| Some((ask.pair?, i)))
        .collect();
    let unread = vec![0.0; groups.readings.len()];
    let unsaid = vec![0.0; groups.spoken.len()];
    let sides = |column: &Column, side: &dyn Fn(usize) -> Option<bool>| {
        let of = |wanted: bool| -> Vec<f64> {
            let all = column.iter().enumerate();
            all.filter(|(i, _)| side(*i) == Some(wanted))
                .map(|(_, v)| *v)
                .collect()
        };
        contrast(&of(true), &of(false))
    };
    let mut all: Vec<Evidence> = columns
        .all
        .iter()
        .map(|(&feature, values)| {
            let last = columns.last.get(&feature).unwrap_or(&unread);
            let reply = columns.reply.get(&feature).unwrap_or(&unsaid);
            let differences: Vec<f64> = pairs.iter().map(|(d, j)| last[*d] - last[*j]).collect();
            let paired = (pairs.len() >= PAIRS).then(|| {
                let test = wilcoxon(&differences);
                Paired {
                    delta: mean(&differences),
                    w: test.w,
                    p: test.p,
                    q: test.p,
                }
            });
            let max = values.iter().copied().fold(0.0, f64::max);
            let at = |share| quantile(values, share).unwrap_or_default();
            Evidence {
                feature,
                paper: counts.get(&feature).copied().unwrap_or_default(),
                last: sides(last, &|i| Some(groups.harmful[i])),
                reply: sides(reply, &|i| groups.refusal[i]),
                paired,
                strength: Strength {
                    max,
                    quantiles: [0.5, 0.9, 0.99].map(at),
                    density: values.len() as f64 / columns.tokens.max(1) as f64,
                },
            }
        })
        .collect();
    let p: Vec<f64> = all.iter().filter_map(|e| Some(e.paired?.p)).collect();
    let q = benjamini_hochberg(&p);
    let paired = all.iter_mut().filter_map(|e| e.paired.as_mut());
    paired.zip(q).for_each(|(paired, q)| paired.q = q);
    all
}

fn contrast(yes: &[f64], no: &[f64]) -> Contrast {
    Contrast {
        delta: mean(yes) - mean(no),
        t: welch(yes, no).t,
        frequency: frequency_difference(yes, no),
        auc: auc(yes, no),
    }
}

/// The number of tokens that were read.
pub fn tokens(readings: &[Reading]) -> usize {
    let of = |r: &Reading| r.prompt.len() + r.reply.len();
    readings.iter().map(of).sum()
}

/// The activation of `feature` in a code.
pub fn activation(code: &Code, feature: u32) -> f32 {
    let found = code.iter().find(|(latent, _)| *latent == feature);
    found.map_or(0.0, |(_, value)| *value)
}
