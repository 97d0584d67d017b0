//! How well a dictionary fits the vectors that it is given.

use std::cell::Cell;

use serde::Serialize;

use super::{Encoder, HookPoint, SaeError};

/// What a dictionary makes of the residual stream at one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// The place.
    pub hook: HookPoint,
    /// Vectors looked at.
    pub vectors: usize,
    /// Fraction of variance unexplained: the squared error of the reconstructions over that of the mean
    /// vector. 0 is perfect, 1 no better than the mean.
    pub fvu: f64,
    /// Active latents of a vector, on average.
    pub l0: f64,
    /// The share of latents that are active in none of the vectors. On a short text most are.
    pub dead: f64,
    /// The mean activation of active latents.
    pub mean_activation: f64,
}

impl Fit {
    /// Measures the dictionary of `encoder` on the vectors `x` `[n, width]` of the residual stream at
    /// `hook`; nothing if `cancel` was set before the end.
    pub async fn measure(
        encoder: &Encoder<'_>,
        hook: HookPoint,
        x: &[f32],
        cancel: &Cell<bool>,
    ) -> Result<Option<Self>, SaeError> {
        let dictionary = encoder.dictionary();
        let (width, latents) = (dictionary.width(), dictionary.latents());
        let n = x.len() / width;
        let mut mean = vec![0.0f64; width];
        for row in x.chunks_exact(width) {
            for (sum, v) in mean.iter_mut().zip(row) {
                *sum += f64::from(*v) / n as f64;
            }
        }
        let (mut error, mut variance) = (0.0f64, 0.0f64);
        let (mut active, mut sum) = (0usize, 0.0f64);
        let mut seen = vec![false; latents];
        for chunk in x.chunks(encoder.most() * width) {
            if cancel.get() {
                return Ok(None);
            }
            let encoded = encoder.run(chunk).await?;
            let rows = chunk.chunks_exact(width);
            for (row, rebuilt) in rows.zip(encoded.recon.chunks_exact(width)) {
                for ((v, r), m) in row.iter().zip(rebuilt).zip(&mean) {
                    error += f64::from(v - r).powi(2);
                    variance += (f64::from(*v) - m).powi(2);
                }
            }
            for row in encoded.acts.chunks_exact(latents) {
                for (f, seen) in row.iter().zip(&mut seen) {
                    if *f != 0.0 {
                        active += 1;
                        sum += f64::from(*f);
                        *seen = true;
                    }
                }
            }
        }
        let ever = seen.iter().filter(|seen| **seen).count();
        Ok(Some(Self {
            hook,
            vectors: n,
            fvu: error / variance.max(f64::MIN_POSITIVE),
            l0: active as f64 / n.max(1) as f64,
            dead: 1.0 - ever as f64 / latents as f64,
            mean_activation: sum / active.max(1) as f64,
        }))
    }
}

/// What a self-test concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "hook")]
pub enum Verdict {
    /// The dictionary rebuilds the residual stream at its hook point.
    Fits,
    /// It rebuilds it much better at another place.
    Elsewhere(HookPoint),
    /// It rebuilds it at none of the places tried.
    Nowhere,
}

/// The largest [`Fit::fvu`] of a dictionary that fits.
const GOOD: f64 = 0.7;
/// How much less of it another place must have to be better.
const BETTER: f64 = 0.9;

/// A dictionary's self-test.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// At the dictionary's hook point; where it has none, at the place that fits best.
    pub fit: Fit,
    /// At the other places tried, in order.
    pub others: Vec<Fit>,
    /// What follows.
    pub verdict: Verdict,
    /// The same in a sentence.
    pub sentence: String,
}

impl SelfTest {
    /// Concludes from the fits at several places; `stated` is the dictionary's hook point, if it has one.
    /// `None` without any fit, or without one at the stated place.
    pub fn conclude(stated: Option<HookPoint>, mut fits: Vec<Fit>) -> Option<Self> {
        let best = fits
            .iter()
            .min_by(|a, b| a.fvu.total_cmp(&b.fvu))
            .map(|fit| fit.hook)?;
        let at = |fits: &[Fit], hook| fits.iter().position(|fit| fit.hook == hook);
        let fit = fits.remove(at(&fits, stated.unwrap_or(best))?);
        let other = fits.iter().find(|fit| fit.hook == best);
        let explained = |fit: &Fit| format!("{:.0}%", 100.0 * (1.0 - fit.fvu).max(0.0));
        let better = other.filter(|other| other.fvu < BETTER * fit.fvu && other.fvu < GOOD);
        let (verdict, sentence) = match better {
            Some(other) => {
                let before = other.hook.layer + 1 == fit.hook.layer;
                let why = match before {
                    true => format!(
                        ", which is the input of block {} (hook_resid_pre)",
                        fit.hook.layer
                    ),
                    false => String::new(),
                };
                let sentence = format!(
                    "The dictionary explains {} of the residual stream at {}, but {} at {}{why}, the most \
                     of the {} places tried: choose that hook point.",
                    explained(&fit),
                    fit.hook,
                    explained(other),
                    other.hook,
                    fits.len() + 1
                );
                (Verdict::Elsewhere(other.hook), sentence)
            }
            // NaN is no good either.
            None if fit.fvu < GOOD => {
                let sentence = format!(
                    "The dictionary fits: it explains {} of the residual stream at {} with {:.0} active \
                     latents a token.",
                    explained(&fit),
                    fit.hook,
                    fit.l0
                );
                (Verdict::Fits, sentence)
            }
            None => {
                let sentence = format!(
                    "The dictionary fits none of the places tried: at {} it explains {} of the residual \
                     stream. It was trained on another model, place or kind of text, or is read by the \
                     wrong rule; steering with it will not do what its features say.",
                    fit.hook,
                    explained(&fit)
                );
                (Verdict::Nowhere, sentence)
            }
        };
        Some(Self {
            fit,
            others: fits,
            verdict,
            sentence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(layer: usize, fvu: f64) -> Fit {
        Fit {
            hook: HookPoint::block(layer),
            vectors: 100,
            fvu,
            l0: 20.0,
            dead: 0.5,
            mean_activation: 1.0,
        }
    }

    #[test]
    fn verdicts_follow_from_the_fits() {
        let at = |layer| Some(HookPoint::block(layer));
        for (stated, fvus, verdict, word) in [
            (at(3), [0.5, 0.2, 0.4], Verdict::Fits, "80%"),
            (at(3), [0.17, 0.18, 0.4], Verdict::Fits, "82%"),
            (
                at(3),
                [0.1, 0.5, 0.9],
                Verdict::Elsewhere(HookPoint::block(2)),
                "input of block 3",
            ),
            (
                at(3),
                [0.9, 0.8, 0.3],
                Verdict::Elsewhere(HookPoint::block(4)),
                "layers.4, the most of the 3 places tried",
            ),
            (at(3), [1.5, 9.0, 1.1], Verdict::Nowhere, "0%"),
            (at(3), [f64::NAN; 3], Verdict::Nowhere, "none of the places"),
            (None, [0.6, 0.5, 0.3], Verdict::Fits, "layers.4"),
        ] {
            let fits = (2..)
                .zip(fvus)
                .map(|(layer, fvu)| fit(layer, fvu))
                .collect();
            let test = SelfTest::conclude(stated, fits).unwrap();
            assert_eq!(test.verdict, verdict, "{}", test.sentence);
            assert!(test.sentence.contains(word), "{}", test.sentence);
            assert_eq!(test.others.len(), 2);
        }
        assert_eq!(SelfTest::conclude(at(9), vec![fit(3, 0.1)]), None);
    }
}
