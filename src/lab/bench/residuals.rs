//! What the residual stream holds at prompts: features that are active, gates, differences of means.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::gate::GateSpec;
use super::super::{Kind, LabError, Run, Scope, digest};
use super::{Bench, KEY, Live, Setting, of_length, request};
use crate::generate::{Event, FeatureWish, TraceRequest, Traced, trace};
use crate::phi3::MAX_ROWS;
use crate::sae::HookPoint;
use crate::tokens::{Prompt, TokenRole};

/// Prompts of each set that tell which features are alive.
const LIVE_PROMPTS: usize = 12;

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

    /// Tells `tell` the residual at each token of the prompts, by lane, under the lanes' steering.
    pub(super) async fn residuals(
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
