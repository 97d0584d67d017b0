//! Random directions, of which the best is chosen as a feature is: by its effect on refusals.

use super::super::{EvalFile, LabError, Run};
use super::{Bench, KEY};
use crate::generate::GenerateError;
use crate::lab::digest;
use crate::sae::HookPoint;
use crate::steering::{Intervention, Operator};
use crate::tokens::Prompt;

/// Harmful prompts, and as many harmless ones, that directions are tried on.
const TRIED: usize = 4;

/// Directions and what they are tried on.
#[derive(Default)]
pub(in crate::lab) struct Trials {
    /// Each direction's name, after that of none.
    ways: Vec<Option<String>>,
    /// Whether harmful, and the prompt.
    prompts: Vec<(bool, Prompt)>,
    hook: Option<HookPoint>,
    at: f32,
}

impl Trials {
    /// Nothing to try, or nothing to try it on.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty() || self.prompts.is_empty()
    }

    /// Every way with every prompt.
    fn jobs(&self) -> Vec<(Vec<Intervention>, &Prompt)> {
        let steering = |name: &Option<String>| -> Vec<Intervention> {
            let named = name.iter().zip(self.hook);
            let add = |(name, hook): (&String, _)| {
                Intervention::along(hook, name, Operator::Add, Some(self.at))
            };
            named.map(add).collect()
        };
        let each = self.ways.iter().flat_map(|way| {
            let prompts = self.prompts.iter();
            prompts.map(move |(_, prompt)| (steering(way), prompt))
        });
        each.collect()
    }

    /// The best way by its log-odds, those of [`Trials::jobs`]: what it adds on harmful prompts, less what it
    /// adds on harmless ones.
    fn best(&self, odds: &[Option<f64>]) -> Option<&str> {
        let base = odds.get(..self.prompts.len())?;
        let gain = |own: &[Option<f64>]| -> Option<f64> {
            let mut sum = 0.0;
            for (((harmful, _), own), base) in self.prompts.iter().zip(own).zip(base) {
                let moved = (*own)? - (*base)?;
                sum += if *harmful { moved } else { -moved };
            }
            Some(sum)
        };
        let ways = self.ways.iter().zip(odds.chunks(self.prompts.len()));
        let gains = ways.filter_map(|(way, own)| Some((way.as_deref()?, gain(own)?)));
        gains.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(way, _)| way)
    }
}

impl Bench<'_> {
    /// The directions `names`, to be added `at` times, and prompts of another split than the measured one.
    pub fn trials(
        &self,
        hook: HookPoint,
        at: f32,
        names: Vec<String>,
        file: &EvalFile,
    ) -> Result<Trials, LabError> {
        let all = self.contrast(file)?.concat();
        let mut prompts = Vec::new();
        for wanted in [true, false] {
            let own: Vec<_> = all
                .iter()
                .filter(|(_, harmful, _)| *harmful == wanted)
                .collect();
            let kept = TRIED.min(own.len());
            let spread = (0..kept).map(|i| own[i * own.len() / kept].2.clone());
            prompts.extend(spread.map(|prompt| (wanted, prompt)));
        }
        Ok(Trials {
            ways: std::iter::once(None)
                .chain(names.into_iter().map(Some))
                .collect(),
            prompts,
            hook: Some(hook),
            at,
        })
    }

    /// Steps of [`Bench::best`].
    pub fn trial_steps(&self, trials: &Trials) -> usize {
        let jobs = trials.ways.len() * trials.prompts.len();
        jobs.div_ceil(self.chat.model().lanes())
    }

    /// The name of the best direction; none if all of them break the model.
    pub async fn best(
        &mut self,
        run: &mut Run<'_>,
        trials: &Trials,
    ) -> Result<Option<String>, LabError> {
        let jobs = trials.jobs();
        let mut odds = Vec::with_capacity(jobs.len());
        for some in jobs.chunks(self.chat.model().lanes()) {
            let told: Vec<String> = some
                .iter()
                .map(|(steering, prompt)| {
                    let steering: Vec<String> = steering.iter().map(ToString::to_string).collect();
                    format!("{} {:?}", steering.join(" "), prompt.ids)
                })
                .collect();
            let key = format!("drawn/{}", &digest(told.join("\n").as_bytes())[..KEY]);
            let own: Vec<Option<f64>> = run
                .step(&key, async {
                    for (lane, (steering, _)) in some.iter().enumerate() {
                        self.chat.steering().set(lane, steering)?;
                    }
                    let prompts: Vec<Prompt> = some.iter().map(|job| job.1.clone()).collect();
                    match self.openings.clone().odds(self.chat, &prompts).await {
                        // Too strong for the model.
                        Err(LabError::Generate(GenerateError::NotFinite { .. })) => {
                            Ok(vec![None; some.len()])
                        }
                        odds => Ok(odds?.into_iter().map(Some).collect()),
                    }
                })
                .await?;
            odds.extend(super::of_length(own, some.len(), &key)?);
        }
        self.steer(&[])?;
        Ok(trials.best(&odds).map(String::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_direction_adds_to_harmful_prompts_and_not_to_harmless_ones() {
        let trials = Trials {
            ways: vec![
                None,
                Some("all".into()),
                Some("own".into()),
                Some("nan".into()),
            ],
            prompts: [true, false]
                .map(|harmful| (harmful, Prompt::default()))
                .into(),
            hook: Some(HookPoint::block(3)),
            at: 8.0,
        };
        let told: Vec<String> = trials
            .jobs()
            .iter()
            .map(|(steering, _)| steering.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            told[..4],
            ["", "", "layers.3:@all:add:8", "layers.3:@all:add:8"]
        );
        let odds = [-2.0, -9.0, 5.0, 4.0, 1.0, -9.0].map(Some);
        let odds = [&odds[..], &[None, None]].concat();
        assert_eq!(trials.best(&odds), Some("own"));
        assert_eq!(trials.best(&[None; 8]), None);
        assert_eq!(trials.best(&[]), None);
        assert!(Trials::default().is_empty());
    }
}
