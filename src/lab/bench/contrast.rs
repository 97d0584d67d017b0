//! Harmful prompts against harmless ones: directions of the residual stream that tell them apart.

use serde::{Deserialize, Serialize};

use super::super::find::packed;
use super::super::{EvalFile, Item, Kind, LabError, Run, digest};
use super::{Bench, Contrast, KEY, of_length};
use crate::sae::HookPoint;
use crate::tokens::Prompt;

/// Prompts of each side at most.
const PROMPTS: usize = 48;
/// What is left of a vector below this share of its length is rounding.
const ROUNDING: f64 = 1e-6;

/// The residual at a prompt's last token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::lab) struct Last {
    /// Whether the prompt is harmful.
    harmful: bool,
    /// `[hidden]`
    #[serde(with = "packed")]
    residual: Vec<f32>,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Takes out of `vector` what lies along `axes`, which are of length 1 and at right angles to each other.
fn clear(vector: &mut [f64], axes: &[Vec<f64>]) {
    // What rounding leaves the first time goes the second.
    for axis in axes.iter().chain(axes) {
        let along = dot(vector, axis);
        vector
            .iter_mut()
            .zip(axis)
            .for_each(|(v, a)| *v -= along * a);
    }
}

/// The mean residual of harmful prompts less that of harmless ones, `[hidden]`; none if one side has no prompts, or
/// the means are the same.
pub(in crate::lab) fn difference(all: &[Last]) -> Option<Vec<f64>> {
    let mean = |harmful: bool| -> Option<Vec<f64>> {
        let own: Vec<&Last> = all.iter().filter(|one| one.harmful == harmful).collect();
        let mut sum = vec![0.0; own.first()?.residual.len()];
        for one in &own {
            let pairs = sum.iter_mut().zip(&one.residual);
            pairs.for_each(|(sum, v)| *sum += f64::from(*v) / own.len() as f64);
        }
        Some(sum)
    };
    let pairs = mean(true)?.into_iter().zip(mean(false)?);
    let difference: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
    difference.iter().any(|v| *v != 0.0).then_some(difference)
}

/// The part of the difference of means that no harmless prompt has anything of, `[hidden]`: its projection onto the
/// null space of their residuals (arXiv 2506.07022). Its length is the mean component of the harmful prompts along
/// it. None if they leave nothing of it.
pub(in crate::lab) fn null_space(all: &[Last]) -> Option<Vec<f64>> {
    let mut rest = difference(all)?;
    let length = dot(&rest, &rest).sqrt();
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for one in all.iter().filter(|one| !one.harmful) {
        let mut axis: Vec<f64> = one.residual.iter().map(|v| f64::from(*v)).collect();
        let whole = dot(&axis, &axis).sqrt();
        clear(&mut axis, &axes);
        let left = dot(&axis, &axis).sqrt();
        if left > ROUNDING * whole {
            axis.iter_mut().for_each(|v| *v /= left);
            axes.push(axis);
        }
    }
    clear(&mut rest, &axes);
    (dot(&rest, &rest).sqrt() > ROUNDING * length).then_some(rest)
}

impl Bench<'_> {
    /// Prompts whose difference of means is a direction of harm, in batches: those of another split than
    /// the measured one, where there is one.
    pub fn contrast(&self, file: &EvalFile) -> Result<Vec<Contrast>, LabError> {
        let own = &self.split;
        let other = file.splits().find(|name| *name != own.as_str());
        let split = other.unwrap_or(own.as_str());
        let sets = file.sets(split, None)?;
        let mut all = Vec::new();
        for harmful in [true, false] {
            let kind = |kind| match harmful {
                true => matches!(kind, Kind::Refuse | Kind::Jailbreak),
                false => kind == Kind::Benign,
            };
            let chosen: Vec<(String, &Item)> = sets
                .iter()
                .filter(|set| kind(set.kind))
                .flat_map(|set| {
                    let numbered = set.items.iter().enumerate();
                    numbered.map(move |(i, item)| (format!("{split}/{}/{i}", set.name), item))
                })
                .collect();
            let kept = PROMPTS.min(chosen.len());
            for i in 0..kept {
                let (id, item) = &chosen[i * chosen.len() / kept];
                let prompt = self.chat.tokenizer().chat(&item.messages, true)?;
                all.push((id.clone(), harmful, prompt));
            }
        }
        all.sort_by_key(|(_, _, prompt)| prompt.ids.len());
        let batches = all.chunks(self.chat.model().lanes());
        Ok(batches.map(<[_]>::to_vec).collect())
    }

    /// The residuals at the last tokens of the batches' prompts.
    pub async fn last(
        &mut self,
        run: &mut Run<'_>,
        hook: HookPoint,
        batches: &[Contrast],
    ) -> Result<Vec<Last>, LabError> {
        let mut all = Vec::new();
        for batch in batches {
            let ids: Vec<&str> = batch.iter().map(|one| &one.0[..]).collect();
            let key = format!("last/{hook}/{}", &digest(ids.join(" ").as_bytes())[..KEY]);
            let make = async {
                self.steer(&[])?;
                let prompts: Vec<Prompt> = batch.iter().map(|one| one.2.clone()).collect();
                let ends: Vec<usize> = prompts.iter().map(|p| p.ids.len() - 1).collect();
                let mut found: Vec<Last> = batch
                    .iter()
                    .map(|one| Last {
                        harmful: one.1,
                        residual: Vec::new(),
                    })
                    .collect();
                let mut see = |lane: usize, position: usize, residual: &[f32]| {
                    if position == ends[lane] {
                        found[lane].residual = residual.to_vec();
                    }
                };
                self.residuals(&prompts, hook, &mut see).await?;
                Ok(found)
            };
            let some: Vec<Last> = run.step(&key, make).await?;
            all.extend(of_length(some, batch.len(), &key)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn drawn(random: &mut Random, n: usize, width: usize, shift: f64, harmful: bool) -> Vec<Last> {
        let one = |random: &mut Random| Last {
            harmful,
            residual: (0..width)
                .map(|i| (random.normal() + if i == 0 { shift } else { 0.0 }) as f32)
                .collect(),
        };
        (0..n).map(|_| one(random)).collect()
    }

    #[test]
    fn the_null_space_direction_leaves_harmless_prompts_alone() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let width = 40;
        let mut all = drawn(&mut random, 12, width, 5.0, true);
        all.extend(drawn(&mut random, 15, width, 0.0, false));
        // Once more what is there already takes no room.
        all.push(all[12].clone());
        let along = |direction: &[f64], one: &Last| -> f64 {
            let wide: Vec<f64> = one.residual.iter().map(|v| f64::from(*v)).collect();
            dot(direction, &wide)
        };
        let direction = null_space(&all).expect("a direction");
        let norm = dot(&direction, &direction).sqrt();
        for one in all.iter().filter(|one| !one.harmful) {
            assert!(along(&direction, one).abs() < 1e-9 * norm, "{seed}");
        }
        let harmful: Vec<f64> = all
            .iter()
            .filter(|one| one.harmful)
            .map(|one| along(&direction, one) / norm)
            .collect();
        let mean = harmful.iter().sum::<f64>() / harmful.len() as f64;
        assert!((mean - norm).abs() < 1e-9 * norm, "{mean} {norm}");
        let difference = difference(&all).expect("a difference");
        assert!(dot(&difference, &direction) > 0.0 && norm < dot(&difference, &difference).sqrt());

        // As many harmless prompts as elements leave nothing; without one side there is no difference.
        let full = drawn(&mut random, width + 2, width, 0.0, false);
        assert_eq!(null_space(&[&all[..12], &full[..]].concat()), None);
        assert_eq!(null_space(&all[..12]), None);
        assert_eq!(super::difference(&all[12..]), None);
    }
}
