//! The searches that steer, one token far: the effect on the odds of a refusal, and on the tokens that a
//! latent writes.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::super::{Judge, LabError, Run};
use super::reading::{Job, batches, hook_at, read_some, request, residuals, steer, unsteer};
use crate::generate::{Chat, Known, TraceRequest, Traced, trace_after};
use crate::phi3::MAX_ROWS;
use crate::sae::{Encoder, HookPoint};
use crate::steering::{Intervention, Operator, Positions};
use crate::tokens::{ChatTokenizer, Prompt, TokenRole};

/// Probabilities closer than this to 0 or 1 are taken for it, as in Arditi et al. (arXiv 2406.11717).
const LEAST: f64 = 1e-8;
/// Tokens of refusals after which, at most, they part from other replies.
const DEEPEST: usize = 3;
/// The share of refusals that the openings must account for, less that of other replies.
const CLEAR: f64 = 0.5;

/// Where refusals part from other replies: after `before`, with one of `tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parting {
    /// What both refusals and other replies begin with.
    pub before: Vec<u32>,
    /// What only refusals go on with.
    pub tokens: Vec<u32>,
    /// Whether they are the model's own; else the judge's phrases.
    pub own: bool,
}

impl Parting {
    /// Where `refusals` part from `others`, the model's own replies; where there are too few refusals, where
    /// `judge`'s phrases do.
    pub fn of(
        refusals: &[&[u32]],
        others: &[&[u32]],
        judge: &Judge,
        tokenizer: &ChatTokenizer,
    ) -> Result<Self, LabError> {
        if refusals.len() >= 3
            && let Some((before, tokens)) = part(refusals, others)
        {
            return Ok(Self {
                before,
                tokens,
                own: true,
            });
        }
        let mut phrases: Vec<Vec<u32>> = Vec::new();
        for phrase in judge.phrases() {
            let mut letters = phrase.chars();
            let first = letters.next().map(|c| c.to_uppercase().to_string());
            let text = first.unwrap_or_default() + letters.as_str();
            phrases.push(tokenizer.encode(&text)?);
        }
        let said: Vec<&[u32]> = phrases.iter().map(Vec::as_slice).collect();
        let (before, tokens) = part(&said, others).unwrap_or_else(|| {
            let first = said.iter().filter_map(|p| p.first().copied()).collect();
            (Vec::new(), first)
        });
        Ok(Self {
            before,
            tokens,
            own: false,
        })
    }

    /// The prompt with what comes before the parting.
    pub fn after(&self, prompt: &Prompt) -> Prompt {
        let mut longer = prompt.clone();
        longer.ids.extend(&self.before);
        longer.roles.resize(longer.ids.len(), TokenRole::Generated);
        longer
    }

    /// The chance that a refusal's next token follows, `said` tokens into the reply: of the one that comes
    /// before the parting, and at the parting of any that only refusals go on with.
    fn chance(&self, said: usize, logits: &[f32]) -> f64 {
        let all = softmax(logits);
        match self.before.get(said) {
            Some(token) => all.get(*token as usize).copied().unwrap_or_default(),
            None => {
                let own = self.tokens.iter().filter_map(|t| all.get(*t as usize));
                own.sum()
            }
        }
    }
}

/// The log-odds of a probability that is not closer to 0 or 1 than [`LEAST`].
fn log_odds(p: f64) -> f64 {
    let p = p.clamp(LEAST, 1.0 - LEAST);
    (p / (1.0 - p)).ln()
}

/// The shortest common beginning after which `refusals` go on otherwise than `others`, and how.
fn part(refusals: &[&[u32]], others: &[&[u32]]) -> Option<(Vec<u32>, Vec<u32>)> {
    let mut before: Vec<u32> = Vec::new();
    for _ in 0..DEEPEST {
        let next = |replies: &[&[u32]]| {
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            let own = replies.iter().filter(|r| r.starts_with(&before));
            for token in own.filter_map(|r| r.get(before.len())) {
                *counts.entry(*token).or_default() += 1;
            }
            let all: usize = counts.values().sum();
            (counts, all.max(1) as f64)
        };
        let (refused, n) = next(refusals);
        let (answered, m) = next(others);
        let share = |token: &u32| answered.get(token).map_or(0.0, |c| *c as f64 / m);
        let mut tokens = Vec::new();
        let mut clear = 0.0;
        for (token, count) in &refused {
            let own = *count as f64 / n;
            if own > 2.0 * share(token) {
                tokens.push(*token);
                clear += own - share(token);
            }
        }
        if clear >= CLEAR {
            return Some((before, tokens));
        }
        let commonest = refused.iter().max_by_key(|(_, count)| **count)?;
        before.push(*commonest.0);
    }
    None
}

/// Probabilities, `[vocab]`.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let all: Vec<f64> = logits
        .iter()
        .map(|l| f64::from(l - largest).exp())
        .collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|p| p / sum).collect()
}

/// The log-odds that the reply to each job's prompt begins as a refusal, in steps whose keys begin with `key`.
/// The jobs steer at `hook` and after it: the blocks before are computed once for each prompt.
pub async fn odds(
    chat: &mut Chat,
    run: &mut Run<'_>,
    key: &str,
    hook: HookPoint,
    parting: &Parting,
    jobs: &[Job<'_>],
) -> Result<Vec<f64>, LabError> {
    let lengths: Vec<usize> = jobs.iter().map(|job| job.prompt.ids.len()).collect();
    let mut all = vec![0.0; jobs.len()];
    let mut known = Vec::new();
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let some: Vec<&Job<'_>> = batch.iter().map(|&i| &jobs[i]).collect();
        let key = format!("{key}/{number}");
        let odds = run.step(&key, after(chat, hook, parting, &some, &mut known));
        for (&i, odds) in batch.iter().zip(odds.await?) {
            all[i] = odds;
        }
    }
    Ok(all)
}

/// A prompt with what comes before the parting, and its residual stream at the hook, `[tokens, hidden]`.
type Read = (Prompt, Vec<f32>);

/// Reads those of `prompts` that are not among `known` yet, which then holds them and no others.
async fn know(
    chat: &mut Chat,
    hook: HookPoint,
    prompts: &[Prompt],
    known: &mut Vec<Read>,
) -> Result<(), LabError> {
    known.retain(|(prompt, _)| prompts.contains(prompt));
    let mut new: Vec<Prompt> = Vec::new();
    for prompt in prompts {
        if !new.contains(prompt) && known.iter().all(|(own, _)| own != prompt) {
            new.push(prompt.clone());
        }
    }
    if !new.is_empty() {
        unsteer(chat)?;
        let residuals = residuals(chat, hook.layer, &new).await?;
        known.extend(new.into_iter().zip(residuals));
    }
    Ok(())
}

/// The log-odds after each job's prompt: that the reply begins as a refusal, what comes before the parting and
/// all.
async fn after(
    chat: &mut Chat,
    hook: HookPoint,
    parting: &Parting,
    jobs: &[&Job<'_>],
    known: &mut Vec<Read>,
) -> Result<Vec<f64>, LabError> {
    let prompts: Vec<Prompt> = jobs.iter().map(|job| parting.after(job.prompt)).collect();
    know(chat, hook, &prompts, known).await?;
    let of = |prompt: &Prompt| {
        let own = known.iter().find(|(own, _)| own == prompt);
        own.map_or(&[][..], |(_, residual)| residual)
    };
    let residuals: Vec<&[f32]> = prompts.iter().map(of).collect();
    steer(chat, jobs)?;
    let starts: Vec<usize> = jobs.iter().map(|job| job.prompt.ids.len() - 1).collect();
    let mut all = vec![1.0; jobs.len()];
    let (model, steering) = chat.model_and_steering();
    let cancel = Cell::new(false);
    let request = TraceRequest {
        prompts: &prompts,
        logits: &|lane, position| position >= starts[lane],
        residual: &[],
        chunk: MAX_ROWS,
        cancel: &cancel,
    };
    let mut hear = |traced: Traced<'_>| {
        if let Traced::Logits {
            lane,
            position,
            logits,
        } = traced
        {
            all[lane] *= parting.chance(position - starts[lane], logits);
        }
    };
    let known = Known {
        layer: hook.layer,
        residuals: &residuals,
    };
    trace_after(model, &steering, &known, &request, &mut hear).await?;
    Ok(all.into_iter().map(log_odds).collect())
}

/// The logits after prompts, one a lane, under the lanes' steering, `[vocab]`.
async fn logits(chat: &mut Chat, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>, LabError> {
    chat.run(&request(prompts, 0), &mut |_| {}).await?;
    let model = chat.model();
    let vocab = model.config().vocab_size;
    let all: Vec<f32> = model
        .gpu()
        .read_vec(model.logits(), 0, prompts.len() * vocab)
        .await?;
    Ok(all.chunks(vocab).map(<[f32]>::to_vec).collect())
}

/// The text after which output scores are measured (arXiv 2505.20063).
const NEUTRAL: &str = "From my experience,";
/// How often the largest activation at its last token is added.
const TIMES: f32 = 10.0;
/// Tokens that a latent is said to write.
const WRITTEN: usize = 20;

/// Output scores (arXiv 2505.20063) of `features`: T are the 20 tokens that the latent's decoder row makes
/// likeliest through the final norm and head; ten times the largest activation there is, added at the last
/// token of a neutral text, gives probabilities; the score is (1 - the best rank in T / vocabulary) times the
/// largest probability in T.
pub async fn output_scores(
    chat: &mut Chat,
    run: &mut Run<'_>,
    point: HookPoint,
    features: &[u32],
) -> Result<Vec<f64>, LabError> {
    let tokenizer = chat.tokenizer().clone();
    let mut prompt = Prompt::default();
    prompt.ids.extend(tokenizer.bos());
    prompt.roles.resize(prompt.ids.len(), TokenRole::Bos);
    prompt.ids.extend(tokenizer.encode(NEUTRAL)?);
    prompt.roles.resize(prompt.ids.len(), TokenRole::Prompt);
    if let Some(last) = prompt.roles.last_mut() {
        // As a generated one it alone is steered.
        *last = TokenRole::Generated;
    }
    let dictionary = hook_at(chat, point)?.dictionary().clone();
    let gpu = chat.model().gpu().clone();
    let largest: f32 = run
        .step("output/largest", async {
            let encoder = Encoder::new(&gpu, &dictionary, MAX_ROWS).await?;
            let from = prompt.ids.len();
            let prompts = std::slice::from_ref(&prompt);
            let read = read_some(chat, &encoder, point, prompts, &[from]).await?;
            let last = read.first().map_or(&[][..], |r| r.last_code());
            Ok(last.iter().map(|(_, v)| *v).fold(0.0, f32::max))
        })
        .await?;
    let lanes = chat.model().lanes();
    let mut scores = Vec::with_capacity(features.len());
    for (number, some) in features.chunks(lanes).enumerate() {
        let key = format!("output/{number}");
        let own = run
            .step(&key, async {
                let mut rows = Vec::new();
                for feature in some {
                    rows.extend(dictionary.decoder_row(&gpu, *feature).await?);
                }
                let lens = chat.model().lens(&rows).await?;
                for (lane, &feature) in some.iter().enumerate() {
                    let value = Some(TIMES * largest);
                    let one = Intervention {
                        positions: Positions::Generated,
                        ..Intervention::new(point, feature, Operator::Add, value)
                    };
                    chat.steering().set(lane, &[one])?;
                }
                let prompts = vec![prompt.clone(); some.len()];
                let after = logits(chat, &prompts).await?;
                let vocab = chat.model().config().vocab_size;
                let pairs = lens.chunks(vocab).zip(&after);
                Ok(pairs.map(|(l, a)| output_score(l, a)).collect::<Vec<f64>>())
            })
            .await?;
        scores.extend(own);
    }
    Ok(scores)
}

/// The output score of a latent with the logit lens `lens` after whose addition `logits` follow.
fn output_score(lens: &[f32], logits: &[f32]) -> f64 {
    let order = |values: &[f32]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        order
    };
    let written = &order(lens)[..WRITTEN.min(lens.len())];
    let after = order(logits);
    let best = after.iter().position(|t| written.contains(t)).unwrap_or(0);
    let p = softmax(logits);
    let largest = written.iter().map(|t| p[*t]).fold(0.0, f64::max);
    (1.0 - best as f64 / lens.len() as f64) * largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_part_from_answers_where_they_differ() {
        let said = |all: &[&'static [u32]]| all.to_vec();
        // "I must …" and "I can …": parted by the second token.
        let refusals = said(&[&[1, 2, 9], &[1, 2, 8], &[1, 3], &[7, 7]]);
        let others = said(&[&[1, 4], &[1, 5], &[6, 6], &[1, 4]]);
        assert_eq!(part(&refusals, &others), Some((vec![1], vec![2, 3])));
        // "Sorry" against "Sure".
        let refusals = said(&[&[11, 2], &[11, 3], &[12, 3]]);
        let others = said(&[&[13, 2], &[13, 3]]);
        assert_eq!(part(&refusals, &others), Some((vec![], vec![11, 12])));
        assert_eq!(part(&refusals, &refusals), None);
    }

    #[test]
    fn odds_are_those_of_the_whole_opening() {
        let parting = Parting {
            before: vec![3],
            tokens: vec![0, 2],
            own: true,
        };
        let logits = |p: [f64; 4]| p.map(|p| p.ln() as f32 + 9.0);
        let first = parting.chance(0, &logits([0.3, 0.3, 0.2, 0.2]));
        let second = parting.chance(1, &logits([0.3, 0.5, 0.15, 0.05]));
        let expected = 0.2 * 0.45;
        assert!((first * second - expected).abs() < 1e-6);
        assert!((log_odds(0.75) - 3f64.ln()).abs() < 1e-12);
        assert!(log_odds(0.0).is_finite() && log_odds(1.0).is_finite());
    }

    #[test]
    fn the_output_score_is_the_papers() {
        let vocab = 100;
        let mut lens = vec![0.0f32; vocab];
        (0..20).for_each(|t| lens[t] = 5.0);
        // The likeliest token is none of the latent's; the second is.
        let mut logits = vec![0.0f32; vocab];
        (logits[50], logits[3]) = (4.0, 3.0);
        let p = 3f64.exp() / (98.0 + 3f64.exp() + 4f64.exp());
        let found = output_score(&lens, &logits);
        assert!((found - 0.99 * p).abs() < 1e-6, "{found}");
    }
}
