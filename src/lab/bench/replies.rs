//! What a model says under a setting, and how likely it finds what is said.

use std::cell::Cell;

use super::super::openings::{after, log_softmax};
use super::super::{Kind, LabError, Run};
use super::{Bench, Loss, Reply, Setting, asked, of_length, refusals_matter, request};
use crate::generate::{DoneReason, Event, GenerateError, TraceRequest, Traced, trace};
use crate::phi3::MAX_ROWS;
use crate::tokens::{Message, Prompt, Role, TokenRole};

/// Tokens of a reply that the KL divergence is measured on at most.
const KL_TOKENS: usize = 32;

impl Bench<'_> {
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
            let logits = after(self.chat, &prompts).await?;
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
    use super::divergence;

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
}
