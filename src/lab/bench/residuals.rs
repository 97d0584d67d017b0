//! What the residual stream holds at prompts: features that are active, gates, differences of means.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::gate::GateSpec;
use super::super::{EvalFile, Item, Kind, LabError, Run, Scope, digest};
use super::{Bench, Contrast, KEY, Live, Setting, of_length, request};
use crate::generate::{Event, FeatureWish, TraceRequest, Traced, trace};
use crate::phi3::MAX_ROWS;
use crate::sae::HookPoint;
use crate::tokens::{Prompt, TokenRole};

/// Prompts of each set that tell which features are alive.
const LIVE_PROMPTS: usize = 12;
/// Prompts of each side of a difference of means at most.
const MEAN_PROMPTS: usize = 48;

impl Bench<'_> {
    /// On how many prompts features are active at some token, of a sample of the requests.
    pub async fn live(
        &mut self,
        run: &mut Run<'_>,
        hook: HookPoint,
    ) -> Result<BTreeMap<u32, Live>, LabError> {
        let mut all = BTreeMap::<u32, Live>::new();
        for batch in self.live_batches() {
            let key = self.key("live", &Setting::default(), hook.layer, &batch);
            let make = self.active(hook, &batch);
            let found: Vec<(u32, usize, usize)> = run.step(&key, make).await?;
            for (feature, harmful, harmless) in found {
                let live = all.entry(feature).or_default();
                live.harmful += harmful;
                live.harmless += harmless;
            }
        }
        Ok(all)
    }

    /// What a gate makes of a batch of prompts.
    pub async fn gate(
        &mut self,
        run: &mut Run<'_>,
        gate: &GateSpec,
        batch: &[usize],
    ) -> Result<Vec<f64>, LabError> {
        let text = serde_json::to_string(gate).map_err(|e| LabError::Recipe(e.to_string()))?;
        let what = format!("gate/{}", &digest(text.as_bytes())[..KEY]);
        let key = self.key(&what, &Setting::default(), 0, batch);
        let make = async {
            self.steer(&[])?;
            let prompts: Vec<Prompt> = batch
                .iter()
                .map(|&i| self.entries[i].prompt.clone())
                .collect();
            let last: Vec<usize> = prompts.iter().map(|p| p.ids.len() - 1).collect();
            let mut scores: Vec<Result<f64, LabError>> = batch.iter().map(|_| Ok(0.0)).collect();
            if let Some(feature) = gate.feature {
                let wish = FeatureWish {
                    hook: gate.hook,
                    track: Some(feature),
                };
                let mut see = |event| {
                    if let Event::Prompt { tokens, lane, .. } = event {
                        let features = tokens.get(last[lane]).and_then(|t| t.features.as_ref());
                        let activation = features.and_then(|f| f.activation(feature));
                        scores[lane] = Ok(f64::from(activation.unwrap_or(0.0)));
                    }
                };
                let request = request(&prompts, 1, Some(wish));
                self.chat.run(&request, &mut see).await?;
            } else {
                let mut see = |lane: usize, position: usize, residual: &[f32]| {
                    if position == last[lane] {
                        scores[lane] = gate.probability(residual);
                    }
                };
                self.residuals(&prompts, gate.hook, &mut see).await?;
            }
            scores.into_iter().collect()
        };
        let scores: Vec<f64> = run.step(&key, make).await?;
        of_length(scores, batch.len(), &key)
    }

    /// The batches of [`Bench::live`].
    pub fn live_batches(&self) -> Vec<Vec<usize>> {
        let mut taken = vec![0; self.sets.len()];
        let mut chosen = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if self.in_scope(entry.set, Scope::Refusals) && taken[entry.set] < LIVE_PROMPTS {
                taken[entry.set] += 1;
                chosen.push(i);
            }
        }
        let lanes = self.chat.model().lanes();
        chosen.chunks(lanes).map(<[usize]>::to_vec).collect()
    }

    async fn active(
        &mut self,
        hook: HookPoint,
        batch: &[usize],
    ) -> Result<Vec<(u32, usize, usize)>, LabError> {
        self.steer(&[])?;
        let prompts: Vec<Prompt> = batch
            .iter()
            .map(|&i| self.entries[i].prompt.clone())
            .collect();
        let mut lanes = vec![BTreeSet::new(); batch.len()];
        let request = request(&prompts, 1, Some(FeatureWish { hook, track: None }));
        let mut see = |event| {
            if let Event::Prompt { tokens, lane, .. } = event {
                let roles = &prompts[lane].roles;
                for (token, _) in tokens.iter().zip(roles).filter(|t| *t.1 != TokenRole::Bos) {
                    let listed = token.features.iter().flat_map(|f| f.listed());
                    lanes[lane].extend(listed.map(|a| a.feature));
                }
            }
        };
        self.chat.run(&request, &mut see).await?;
        let mut counts = BTreeMap::<u32, (usize, usize)>::new();
        for (lane, &i) in lanes.iter().zip(batch) {
            let harmless = self.entries[i].kind == Kind::Benign;
            for &feature in lane {
                let count = counts.entry(feature).or_default();
                *if harmless { &mut count.1 } else { &mut count.0 } += 1;
            }
        }
        let all = counts.into_iter();
        Ok(all.map(|(feature, (a, b))| (feature, a, b)).collect())
    }

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
            let kept = MEAN_PROMPTS.min(chosen.len());
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

    /// The mean residual of harmful prompts at their last token less that of harmless ones, `[hidden]`; none
    /// if one side has no prompts.
    pub async fn means(
        &mut self,
        run: &mut Run<'_>,
        hook: HookPoint,
        batches: &[Contrast],
    ) -> Result<Option<Vec<f64>>, LabError> {
        let hidden = self.chat.model().config().hidden_size;
        let mut sums = [vec![0.0; hidden], vec![0.0; hidden]];
        let mut counts = [0usize; 2];
        for batch in batches {
            let ids: Vec<&str> = batch.iter().map(|one| &one.0[..]).collect();
            let key = format!("means/{hook}/{}", &digest(ids.join(" ").as_bytes())[..KEY]);
            let make = async {
                self.steer(&[])?;
                let prompts: Vec<Prompt> = batch.iter().map(|one| one.2.clone()).collect();
                let last: Vec<usize> = prompts.iter().map(|p| p.ids.len() - 1).collect();
                let mut sums = [vec![0.0f64; hidden], vec![0.0; hidden]];
                let mut see = |lane: usize, position: usize, residual: &[f32]| {
                    if position == last[lane] {
                        let sum = &mut sums[usize::from(!batch[lane].1)];
                        let pairs = sum.iter_mut().zip(residual);
                        pairs.for_each(|(sum, v)| *sum += f64::from(*v));
                    }
                };
                self.residuals(&prompts, hook, &mut see).await?;
                Ok(sums)
            };
            let some: [Vec<f64>; 2] = run.step(&key, make).await?;
            for (side, some) in some.iter().enumerate() {
                let own = batch.iter().filter(|one| usize::from(!one.1) == side);
                counts[side] += own.count();
                let pairs = sums[side].iter_mut().zip(some);
                pairs.for_each(|(sum, v)| *sum += v);
            }
        }
        if counts.contains(&0) {
            return Ok(None);
        }
        let pairs = sums[0].iter().zip(&sums[1]);
        let difference: Vec<f64> = pairs
            .map(|(a, b)| a / counts[0] as f64 - b / counts[1] as f64)
            .collect();
        let any = difference.iter().any(|v| *v != 0.0);
        Ok(any.then_some(difference))
    }

    /// Tells `tell` the residual at each token of the prompts, by lane, under the lanes' steering.
    async fn residuals(
        &mut self,
        prompts: &[Prompt],
        hook: HookPoint,
        tell: &mut dyn FnMut(usize, usize, &[f32]),
    ) -> Result<(), LabError> {
        let request = TraceRequest {
            prompts,
            logits: &|_, _| false,
            residual: &[hook.layer],
            chunk: MAX_ROWS,
            cancel: &Cell::new(false),
        };
        let (model, steering) = self.chat.model_and_steering();
        let mut see = |traced: Traced<'_>| {
            if let Traced::Residual {
                lane,
                position,
                residual,
                ..
            } = traced
            {
                tell(lane, position, residual);
            }
        };
        trace(model, &steering, &request, &mut see).await?;
        Ok(())
    }
}
