//! Prompts and what the model makes of them, step by step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::gate::GateSpec;
use super::openings::{Openings, first_said, log_softmax};
use super::{EvalFile, Item, Kind, LabError, Run, Scope, SetsWish, digest};
use crate::generate::{
    Chat, ChatRequest, DoneReason, Event, FeatureWish, GenerateError, Sampling, TraceRequest,
    Traced, trace,
};
use crate::phi3::MAX_ROWS;
use crate::sae::HookPoint;
use crate::steering::Intervention;
use crate::tokens::{Message, Prompt, Role, TokenRole};

/// Tokens of a small-talk reply at most.
pub(super) const TALK_TOKENS: usize = 32;
/// Prompts of each set that tell which features are alive.
const LIVE_PROMPTS: usize = 12;
/// Harmless prompts whose replies the KL divergence is measured on.
const KL_PROMPTS: usize = 24;
/// Prompts of each side of a difference of means at most.
const MEAN_PROMPTS: usize = 48;
/// Tokens of such a reply at most.
const KL_TOKENS: usize = 32;
/// Conversations of a step that holds their logits.
const KL_BATCH: usize = 4;
/// Nats in place of infinitely many.
const WORST: f64 = 1e30;
/// Digits of a digest in a step's key.
const KEY: usize = 16;

/// A prompt.
pub(super) struct Entry {
    /// "set/number in its file's set as cut".
    pub id: String,
    /// Its set.
    pub set: usize,
    pub kind: Kind,
    pub item: Item,
    prompt: Prompt,
}

/// A set's name and kind.
pub(super) struct SetInfo {
    pub name: String,
    pub kind: Kind,
}

/// Loss of a reply's tokens, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Loss {
    pub sum: f64,
    pub tokens: usize,
}

impl Loss {
    /// Nats a token; none for an empty reply.
    pub fn mean(self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }

    /// A model that no longer gives numbers is as wrong as can be written down.
    fn bound(&mut self) {
        if !self.sum.is_finite() {
            self.sum = WORST;
        }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum + other.sum,
            tokens: self.tokens + other.tokens,
        }
    }
}

/// What was said to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub tokens: Vec<u32>,
    pub text: String,
    /// Whether it ended by itself.
    pub stopped: bool,
    /// Log-odds that the reply begins as a refusal does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odds: Option<f64>,
    /// Log-probabilities of the letters A to D (choice).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letters: Option<Vec<f64>>,
}

/// How the lanes are set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Setting {
    pub interventions: Vec<Intervention>,
    pub system: Option<&'static str>,
}

impl Setting {
    /// What a step's key says of it.
    fn key(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        digest(text.as_bytes())[..KEY].into()
    }
}

/// How often a feature is active.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Live {
    /// Harmful prompts.
    pub harmful: usize,
    /// Harmless prompts.
    pub harmless: usize,
}

/// A chat with prompts to measure it on: greedy, as many prompts at once as it has lanes.
pub(super) struct Bench<'a> {
    chat: &'a mut Chat,
    openings: Openings,
    letters: Vec<u32>,
    /// Tokens of a reply.
    pub tokens: usize,
    split: String,
    pub sets: Vec<SetInfo>,
    pub entries: Vec<Entry>,
}

/// Prompts of a difference of means: name, whether harmful, tokens.
pub(super) type Contrast = Vec<(String, bool, Prompt)>;

/// What an arm's replies on prompts are asked for.
type Jobs = Vec<(usize, Vec<usize>)>;

impl<'a> Bench<'a> {
    /// Encodes the prompts of a split, replies having `tokens` tokens at most.
    pub fn new(
        chat: &'a mut Chat,
        file: &EvalFile,
        wish: &SetsWish,
        split: &str,
        tokens: usize,
    ) -> Result<Self, LabError> {
        let openings = Openings::new(chat.tokenizer())?;
        let letters = ["A", "B", "C", "D"].map(|l| first_said(chat.tokenizer(), l));
        let letters = letters.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut sets, mut entries) = (Vec::new(), Vec::new());
        let all = file.sets(split, wish.limit)?;
        for name in &wish.only {
            if !all.iter().any(|set| set.name == *name) {
                let names: Vec<&str> = all.iter().map(|s| &s.name[..]).collect();
                return Err(LabError::Sets(format!(
                    "there is no set \"{name}\" in {split}, but {}",
                    names.join(", ")
                )));
            }
        }
        for set in all {
            if !wish.only.is_empty() && !wish.only.contains(&set.name) {
                continue;
            }
            for (i, item) in set.items.into_iter().enumerate() {
                let messages = asked(&item, set.kind, None);
                entries.push(Entry {
                    id: format!("{}/{i}", set.name),
                    set: sets.len(),
                    kind: set.kind,
                    prompt: chat.tokenizer().chat(&messages, true)?,
                    item,
                });
            }
            sets.push(SetInfo {
                name: set.name,
                kind: set.kind,
            });
        }
        Ok(Self {
            chat,
            openings,
            letters,
            tokens,
            split: split.into(),
            sets,
            entries,
        })
    }

    /// The chat.
    pub fn chat(&self) -> &Chat {
        self.chat
    }

    /// Whether an arm of `scope` is measured on the set.
    pub fn in_scope(&self, set: usize, scope: Scope) -> bool {
        let SetInfo { name, kind } = &self.sets[set];
        let named = |s: &SetInfo| s.kind == Kind::Benign && s.name == "benign";
        match scope {
            Scope::All => true,
            Scope::Answers => !matches!(kind, Kind::Smalltalk | Kind::Perplexity),
            Scope::Refusals => match kind {
                Kind::Refuse | Kind::MultiTurn => true,
                Kind::Jailbreak => trained(name),
                Kind::Benign => name == "benign" || !self.sets.iter().any(named),
                _ => false,
            },
        }
    }

    /// The prompt of an entry under a setting.
    fn prompt(&self, entry: usize, setting: &Setting) -> Result<Prompt, LabError> {
        let Entry {
            prompt, item, kind, ..
        } = &self.entries[entry];
        match setting.system {
            None => Ok(prompt.clone()),
            Some(_) => Ok(self
                .chat
                .tokenizer()
                .chat(&asked(item, *kind, setting.system), true)?),
        }
    }

    /// Prompts that are answered together, with the tokens of a reply.
    pub fn reply_batches(&self, scope: Scope) -> Jobs {
        let mut jobs: Vec<(usize, usize)> = Vec::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let tokens = match entry.kind {
                Kind::Perplexity => continue,
                Kind::Choice => 0,
                Kind::Smalltalk => TALK_TOKENS,
                _ => self.tokens,
            };
            if self.in_scope(entry.set, scope) {
                jobs.push((tokens, i));
            }
        }
        // Prompts of like length together, so that lanes wait little for one another.
        jobs.sort_by_key(|&(tokens, i)| (tokens, self.entries[i].prompt.ids.len()));
        let lanes = self.chat.model().lanes();
        jobs.chunk_by(|a, b| a.0 == b.0)
            .flat_map(|same| same.chunks(lanes))
            .map(|batch| (batch[0].0, batch.iter().map(|job| job.1).collect()))
            .collect()
    }

    /// Entries of a kind, in batches.
    pub fn batches_of(&self, kind: Kind) -> Vec<Vec<usize>> {
        let all = (0..self.entries.len()).filter(|&i| self.entries[i].kind == kind);
        self.batches(all.collect(), self.chat.model().lanes())
    }

    /// All entries that are asked something, in batches.
    pub fn asked_batches(&self) -> Vec<Vec<usize>> {
        let all = (0..self.entries.len()).filter(|&i| self.entries[i].kind != Kind::Perplexity);
        self.batches(all.collect(), self.chat.model().lanes())
    }

    /// The harmless prompts on whose replies the KL divergence is measured, in batches.
    pub fn kl_batches(&self) -> Vec<Vec<usize>> {
        let harmless = |i: &usize| matches!(self.entries[*i].kind, Kind::Benign | Kind::Smalltalk);
        let all: Vec<usize> = (0..self.entries.len()).filter(harmless).collect();
        let kept = KL_PROMPTS.min(all.len());
        let spread = (0..kept).map(|i| all[i * all.len() / kept]);
        self.batches(spread.collect(), KL_BATCH.min(self.chat.model().lanes()))
    }

    fn batches(&self, mut all: Vec<usize>, size: usize) -> Vec<Vec<usize>> {
        all.sort_by_key(|&i| self.entries[i].prompt.ids.len());
        all.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// The key of a step on `batch`.
    fn key(&self, what: &str, setting: &Setting, more: usize, batch: &[usize]) -> String {
        let ids: Vec<&str> = batch.iter().map(|&i| &self.entries[i].id[..]).collect();
        let batch = digest(format!("{more} {}", ids.join(" ")).as_bytes());
        format!("{what}/{}/{}", setting.key(), &batch[..KEY])
    }

    /// The replies to a batch of prompts.
    pub async fn reply(
        &mut self,
        run: &mut Run<'_>,
        setting: &Setting,
        (tokens, batch): &(usize, Vec<usize>),
    ) -> Result<Vec<Reply>, LabError> {
        let key = self.key("reply", setting, *tokens, batch);
        let replies = run.step(&key, self.say(setting, *tokens, batch)).await?;
        of_length(replies, batch.len(), &key)
    }

    async fn say(
        &mut self,
        setting: &Setting,
        tokens: usize,
        batch: &[usize],
    ) -> Result<Vec<Reply>, LabError> {
        self.steer(&setting.interventions)?;
        let prompts: Vec<Prompt> = batch
            .iter()
            .map(|&i| self.prompt(i, setting))
            .collect::<Result<_, _>>()?;
        let mut replies = vec![Reply::default(); batch.len()];
        if tokens > 0 {
            let mut hear = |event| match event {
                Event::Gate { .. } | Event::Prompt { .. } => {}
                Event::Token {
                    lane, token, text, ..
                } => {
                    replies[lane].tokens.push(token);
                    replies[lane].text += &text;
                }
                Event::Done {
                    lane, reason, text, ..
                } => {
                    replies[lane].text += &text;
                    replies[lane].stopped = reason == DoneReason::Stop;
                }
            };
            let request = request(&prompts, tokens, None);
            match self.chat.run(&request, &mut hear).await {
                // Too strong a setting: no text, which is marked as such.
                Err(GenerateError::NotFinite { .. }) => {
                    return Ok(vec![Reply::default(); batch.len()]);
                }
                said => said.map(|_| ())?,
            }
        }
        let kinds = || batch.iter().map(|&i| self.entries[i].kind);
        if kinds().any(refusals_matter) {
            let odds = self.openings.clone().odds(self.chat, &prompts).await?;
            for (reply, odds) in replies.iter_mut().zip(odds) {
                reply.odds = Some(odds);
            }
        }
        if kinds().any(|kind| kind == Kind::Choice) {
            let logits = super::openings::after(self.chat, &prompts).await?;
            for (reply, logits) in replies.iter_mut().zip(logits) {
                let letter = |&l: &u32| log_softmax(&logits, l as usize);
                reply.letters = Some(self.letters.iter().map(letter).collect());
            }
        }
        Ok(replies)
    }

    /// The losses of a batch of reference replies.
    pub async fn references(
        &mut self,
        run: &mut Run<'_>,
        setting: &Setting,
        batch: &[usize],
    ) -> Result<Vec<Loss>, LabError> {
        let key = self.key("reference", setting, 0, batch);
        let make = async {
            self.steer(&setting.interventions)?;
            let mut scored = Vec::with_capacity(batch.len());
            for &i in batch {
                let item = &self.entries[i].item;
                let mut messages = asked(item, Kind::Perplexity, setting.system);
                messages.push(Message {
                    role: Role::Assistant,
                    content: item.reference.clone().unwrap_or_default(),
                });
                let from = self.prompt(i, setting)?.ids.len();
                scored.push((self.chat.tokenizer().chat(&messages, false)?, from));
            }
            self.score(&scored).await
        };
        let losses: Vec<Loss> = run.step(&key, make).await?;
        of_length(losses, batch.len(), &key)
    }

    /// How unlikely replies under `setting` are to the model without steering, their ends included.
    pub async fn unlikeliness(
        &mut self,
        run: &mut Run<'_>,
        setting: &Setting,
        batch: &[usize],
        replies: &[&Reply],
    ) -> Result<Vec<Loss>, LabError> {
        let key = self.key("unlikeliness", setting, 0, batch);
        let make = async {
            self.steer(&[])?;
            let end = self.chat.tokenizer().end();
            let mut scored = Vec::with_capacity(batch.len());
            for (&i, reply) in batch.iter().zip(replies) {
                let mut whole = self.prompt(i, setting)?;
                let from = whole.ids.len();
                whole.ids.extend(&reply.tokens);
                whole.ids.extend(reply.stopped.then_some(end));
                whole.roles.resize(whole.ids.len(), TokenRole::Generated);
                scored.push((whole, from));
            }
            self.score(&scored).await
        };
        let losses: Vec<Loss> = run.step(&key, make).await?;
        of_length(losses, batch.len(), &key)
    }

    /// KL(base || setting) over the base's own replies, summed over their tokens, in nats.
    pub async fn kl(
        &mut self,
        run: &mut Run<'_>,
        setting: &Setting,
        batch: &[usize],
        replies: &[&Reply],
    ) -> Result<Vec<Loss>, LabError> {
        let key = self.key("kl", setting, 0, batch);
        let make = async {
            let said = |i: usize, reply: &Reply, setting: &Setting| {
                let mut whole = self.prompt(i, setting)?;
                let from = whole.ids.len();
                whole.ids.extend(reply.tokens.iter().take(KL_TOKENS));
                whole.roles.resize(whole.ids.len(), TokenRole::Generated);
                Ok::<_, LabError>((whole, from))
            };
            let all = |setting: &Setting| {
                let pairs = batch.iter().zip(replies);
                pairs
                    .map(|(&i, reply)| said(i, reply, setting))
                    .collect::<Result<Vec<_>, _>>()
            };
            let (plain, steered) = (all(&Setting::default())?, all(setting)?);
            self.steer(&[])?;
            let base = self.distributions(&plain).await?;
            self.steer(&setting.interventions)?;
            let other = self.distributions(&steered).await?;
            let pairs = base.iter().zip(&other);
            let mut losses: Vec<Loss> = pairs
                .map(|(base, other)| Loss {
                    sum: base.iter().zip(other).map(|(p, q)| divergence(p, q)).sum(),
                    tokens: base.len(),
                })
                .collect();
            losses.iter_mut().for_each(Loss::bound);
            Ok(losses)
        };
        let losses: Vec<Loss> = run.step(&key, make).await?;
        of_length(losses, batch.len(), &key)
    }

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
        let mut lanes = vec![std::collections::BTreeSet::new(); batch.len()];
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

    /// Steers every lane alike.
    fn steer(&self, interventions: &[Intervention]) -> Result<(), LabError> {
        for lane in 0..self.chat.model().lanes() {
            self.chat.steering().set(lane, interventions)?;
        }
        Ok(())
    }

    /// The loss of what follows `from` in each conversation, under the lanes' steering.
    async fn score(&mut self, conversations: &[(Prompt, usize)]) -> Result<Vec<Loss>, LabError> {
        let mut losses = vec![Loss::default(); conversations.len()];
        let mut add = |lane: usize, token: u32, logits: &[f32]| {
            losses[lane].sum -= log_softmax(logits, token as usize);
            losses[lane].tokens += 1;
        };
        self.next_tokens(conversations, &mut add).await?;
        losses.iter_mut().for_each(Loss::bound);
        Ok(losses)
    }

    /// The logits before each token of what follows `from` in each conversation.
    async fn distributions(
        &mut self,
        conversations: &[(Prompt, usize)],
    ) -> Result<Vec<Vec<Vec<f32>>>, LabError> {
        let mut all = vec![Vec::new(); conversations.len()];
        let mut add = |lane: usize, _, logits: &[f32]| all[lane].push(logits.to_vec());
        self.next_tokens(conversations, &mut add).await?;
        Ok(all)
    }

    /// Tells `tell` each generated token after `from`, by lane, and the logits that it was to be predicted
    /// from.
    async fn next_tokens(
        &mut self,
        conversations: &[(Prompt, usize)],
        tell: &mut dyn FnMut(usize, u32, &[f32]),
    ) -> Result<(), LabError> {
        let prompts: Vec<Prompt> = conversations.iter().map(|c| c.0.clone()).collect();
        // The token after `position`, if it is the reply's.
        let next = |lane: usize, position: usize| {
            let ((prompt, from), at) = (&conversations[lane], position + 1);
            let generated = prompt.roles.get(at) == Some(&TokenRole::Generated);
            (generated && at >= *from).then(|| prompt.ids[at])
        };
        let request = TraceRequest {
            prompts: &prompts,
            logits: &|lane, position| next(lane, position).is_some(),
            residual: &[],
            chunk: MAX_ROWS,
            cancel: &Cell::new(false),
        };
        let (model, steering) = self.chat.model_and_steering();
        let mut see = |traced: Traced<'_>| {
            if let Traced::Logits {
                lane,
                position,
                logits,
            } = traced
                && let Some(token) = next(lane, position)
            {
                tell(lane, token, logits);
            }
        };
        trace(model, &steering, &request, &mut see).await?;
        Ok(())
    }
}

/// Whether a jailbreak's family is one that training had.
pub(super) fn trained(set: &str) -> bool {
    !set.starts_with("jbx_")
}

/// Whether refusals are the question of a set.
pub(super) fn refusals_matter(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Refuse | Kind::Jailbreak | Kind::MultiTurn | Kind::Benign
    )
}

/// The messages of an item, four options written out, after a system message.
fn asked(item: &Item, kind: Kind, system: Option<&str>) -> Vec<Message> {
    let mut messages = item.messages.clone();
    if let (Kind::Choice, Some(options), Some(last)) = (kind, &item.options, messages.last_mut()) {
        for (letter, option) in ["A", "B", "C", "D"].iter().zip(options) {
            last.content += &format!("\n{letter}. {option}");
        }
        last.content += "\nAnswer with the letter only.";
    }
    if let Some(system) = system {
        match messages.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content = format!("{system}\n{}", first.content);
            }
            _ => messages.insert(
                0,
                Message {
                    role: Role::System,
                    content: system.into(),
                },
            ),
        }
    }
    messages
}

/// A step's values, one for each prompt of its batch.
fn of_length<T>(values: Vec<T>, length: usize, key: &str) -> Result<Vec<T>, LabError> {
    if values.len() == length {
        return Ok(values);
    }
    Err(LabError::Journal(format!(
        "the step {key} holds {} values in place of {length}: begin a new journal",
        values.len()
    )))
}

pub(super) fn request(
    prompts: &[Prompt],
    max_tokens: usize,
    features: Option<FeatureWish>,
) -> ChatRequest<'_> {
    ChatRequest {
        prompts,
        max_tokens,
        sampling: Sampling::default(),
        features,
        cancel: Rc::new(Cell::new(false)),
    }
}

/// KL(p || q) of the distributions of two rows of logits, in nats.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let sum = |logits: &[f32]| {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = f64::from(largest);
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - largest).exp()).sum();
        largest + sum.ln()
    };
    let (of_p, of_q) = (sum(p), sum(q));
    let terms = p.iter().zip(q).map(|(p, q)| {
        let log = f64::from(*p) - of_p;
        log.exp() * (log - (f64::from(*q) - of_q))
    });
    let sum: f64 = terms.sum();
    // Rounding may leave less than nothing; what is no number stays none.
    if sum < 0.0 { 0.0 } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_that_of_the_distributions() {
        // Cover and Thomas, Elements of Information Theory, example 2.3.1, in bits: r = 1/2, s = 1/4.
        let logits =
            |p: f64, shift: f64| [(p.ln() + shift) as f32, ((1.0 - p).ln() + shift) as f32];
        for shift in [0.0, 300.0, -300.0] {
            let bits = divergence(&logits(0.5, 0.0), &logits(0.25, shift)) / 2f64.ln();
            assert!((bits - 0.2075).abs() < 1e-4, "{bits}");
            let bits = divergence(&logits(0.25, shift), &logits(0.5, 0.0)) / 2f64.ln();
            assert!((bits - 0.1887).abs() < 1e-4, "{bits}");
        }
        assert_eq!(divergence(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 0.0);
    }

    #[test]
    fn options_are_written_out_and_a_system_message_goes_first() {
        let item = Item {
            messages: vec![Message {
                role: Role::User,
                content: "Which?".into(),
            }],
            options: Some(["a", "b", "c", "d"].map(String::from).to_vec()),
            ..Item::default()
        };
        let told = asked(&item, Kind::Choice, Some("Be safe."));
        assert_eq!(
            (told[0].role, &told[0].content[..]),
            (Role::System, "Be safe.")
        );
        assert_eq!(
            told[1].content,
            "Which?\nA. a\nB. b\nC. c\nD. d\nAnswer with the letter only."
        );
        let mut own = item;
        own.messages.insert(
            0,
            Message {
                role: Role::System,
                content: "Be brief.".into(),
            },
        );
        let told = asked(&own, Kind::Fact, Some("Be safe."));
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].content, "Be safe.\nBe brief.");
        assert_eq!(told[1].content, "Which?");
    }
}
