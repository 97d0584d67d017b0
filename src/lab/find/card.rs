//! A feature's card: where it is active, how strongly, what it writes, and what is like it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::stats::mean;
use super::super::{LabError, Run, Stage};
use super::Source;
use super::confirm::{Member, held};
use super::effect::{self, Parting};
use super::evidence::activation;
use super::rank::all_cosines;
use super::reading::{Job, batches, hook_at, read_some};
use crate::generate::Chat;
use crate::phi3::MAX_ROWS;
use crate::sae::{Context, Encoder, Examples, Extent, HookPoint, SaeError};
use crate::tokens::{Prompt, TokenRole};

/// What a card is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CardOptions {
    /// The feature.
    pub feature: u32,
    /// Texts to read beside the prompts, each as a user's message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// Prompts to read, evenly spread over all sets.
    #[serde(default = "prompts")]
    pub prompts: usize,
}

fn prompts() -> usize {
    64
}

impl CardOptions {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), LabError> {
        if self.prompts > 4096 || self.texts.len() > 1024 {
            return Err(LabError::Recipe(
                "at most 4096 prompts and 1024 texts can be read for a card".into(),
            ));
        }
        if self.prompts == 0 && self.texts.is_empty() {
            return Err(LabError::Recipe("a card needs prompts or texts".into()));
        }
        Ok(())
    }
}

/// Contexts that are shown.
const CONTEXTS: usize = 12;
/// Tokens of a context before and after its peak.
const AROUND: usize = 10;
/// The same of what was published with the dictionary.
const PUBLISHED: Extent = Extent {
    contexts: CONTEXTS,
    around: AROUND,
};
/// Bars of the histogram.
const BARS: usize = 40;
/// Tokens at each end of the logit lens, and neighbours.
const LISTED: usize = 10;
/// Prompts on which the effect is computed.
const PROBES: usize = 6;
/// How the logit lens is computed.
const HOW: &str = "the decoder row through the final norm (its weight applied, divided by the root mean \
                   square) and the head: logits";

/// The card of a feature at `hook`, as JSON.
pub async fn card(
    chat: &mut Chat,
    hook: HookPoint,
    from: &Source<'_>,
    options: &CardOptions,
    run: &mut Run<'_>,
) -> Result<Value, LabError> {
    options.check()?;
    let feature = options.feature;
    let dictionary = hook_at(chat, hook)?.dictionary().clone();
    if feature as usize >= dictionary.latents() {
        return Err(SaeError::NoSuchLatent {
            latent: feature,
            latents: dictionary.latents(),
        }
        .into());
    }
    let asked = contexts(chat, from, options)?;
    let lengths: Vec<usize> = asked.iter().map(|p| p.ids.len()).collect();
    let order = batches(&lengths, chat.model().lanes());
    run.begin(Stage::Card, order.len() + 3);
    let gpu = chat.model().gpu().clone();
    let encoder = Encoder::new(&gpu, &dictionary, MAX_ROWS).await?;
    let mut activations = vec![Vec::new(); asked.len()];
    for (number, batch) in order.iter().enumerate() {
        let prompts: Vec<Prompt> = batch.iter().map(|&i| asked[i].clone()).collect();
        let froms: Vec<usize> = prompts.iter().map(|p| p.ids.len()).collect();
        let key = format!("card/{number}");
        let read = run.step(&key, async {
            let readings = read_some(chat, &encoder, hook, &prompts, &froms).await?;
            let of = |r: &super::reading::Reading| -> Vec<f32> {
                r.prompt
                    .iter()
                    .map(|code| activation(code, feature))
                    .collect()
            };
            Ok(readings.iter().map(of).collect::<Vec<_>>())
        });
        for (&i, own) in batch.iter().zip(read.await?) {
            activations[i] = own;
        }
    }
    let published = run
        .step("card/published", async {
            // The card is whole without them.
            let found = dictionary.examples(feature, PUBLISHED).await;
            Ok(found.map_err(|error| error.to_string()).transpose())
        })
        .await?;
    let row = dictionary.decoder_row(&gpu, feature).await?;
    let (lens, neighbours) = run
        .step("card/lens", async {
            let lens = ends(chat, &row).await?;
            let mut cosines = all_cosines(chat, hook, &row).await?;
            let mut order: Vec<usize> = (0..cosines.len()).collect();
            order.retain(|i| *i != feature as usize);
            order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
            order.truncate(LISTED);
            let near: Vec<(usize, f64)> = order
                .into_iter()
                .map(|i| (i, std::mem::take(&mut cosines[i])))
                .collect();
            Ok((lens, near))
        })
        .await?;
    let all: Vec<f32> = activations.concat();
    let positive: Vec<f32> = all.iter().copied().filter(|v| *v > 0.0).collect();
    let max = positive.iter().copied().fold(0.0, f32::max);
    // A feature that is not active is not tried: there is no strength to try it at.
    let effect = match max > 0.0 {
        true => Some(
            effect_of(
                chat,
                run,
                hook,
                from,
                &asked,
                Member {
                    feature,
                    max: max.into(),
                },
            )
            .await?,
        ),
        false => None,
    };
    let tokenizer = chat.tokenizer();
    let text = |token: &u32| tokenizer.token_text(*token);
    let counted = all.len()
        - asked
            .iter()
            .filter(|p| p.roles.first() == Some(&TokenRole::Bos))
            .count();
    let mut card = json!({
        "feature": feature,
        "strongest": strongest(&asked, &activations, &text),
        "histogram": histogram(&positive, max),
        "density": positive.len() as f64 / counted.max(1) as f64,
        "max": max,
        "tokens": counted,
        "logits": {"top": listed(&lens.0, &text), "bottom": listed(&lens.1, &text), "how": HOW},
        "neighbours": neighbours.iter().map(|(i, c)| json!({"feature": i, "cosine": c})).collect::<Vec<_>>(),
        "effect": effect,
    });
    if let Some(published) = published {
        let known = tokenizer.vocab_size();
        card["published"] = match published.and_then(|own| own_words(own, known)) {
            Ok(own) => shown(&own, &text),
            Err(trouble) => json!({ "trouble": trouble }),
        };
    }
    Ok(card)
}

/// Published examples, unless they are of another vocabulary than the model's, of `known` tokens.
fn own_words(own: Examples, known: usize) -> Result<Examples, String> {
    let listed = own.top.iter().chain(&own.bottom).map(|(id, _)| id);
    let all = own.contexts.iter().flat_map(|context| &context.ids);
    match all.chain(listed).find(|id| **id as usize >= known) {
        None => Ok(own),
        Some(id) => Err(format!(
            "they are of another vocabulary: token {id} is among them, and this model has {known}"
        )),
    }
}

/// Tokens with their logits, as words.
fn listed(side: &[(u32, impl Serialize)], text: &dyn Fn(&u32) -> String) -> Vec<Value> {
    let one = |(token, value): &(u32, _)| json!({"text": text(token), "value": value});
    side.iter().map(one).collect()
}

/// Published examples with their words.
fn shown(own: &Examples, text: &dyn Fn(&u32) -> String) -> Value {
    let context = |one: &Context| -> Value {
        let mut tokens: Vec<Value> = one.ids.iter().map(|id| json!({"text": text(id)})).collect();
        if let Some(peak) = tokens.get_mut(one.peak) {
            peak["activation"] = json!(one.activation);
        }
        json!({"tokens": tokens, "peak": one.peak})
    };
    json!({
        "frequency": own.frequency,
        "strongest": own.contexts.iter().map(context).collect::<Vec<_>>(),
        "top": listed(&own.top, text),
        "bottom": listed(&own.bottom, text),
    })
}

/// The prompts that are read.
fn contexts(
    chat: &Chat,
    from: &Source<'_>,
    options: &CardOptions,
) -> Result<Vec<Prompt>, LabError> {
    let sets = from.file.sets(from.split(), None)?;
    let items: Vec<_> = sets.iter().flat_map(|set| &set.items).collect();
    let kept = options.prompts.min(items.len());
    let mut asked = Vec::with_capacity(kept + options.texts.len());
    for text in &options.texts {
        let message = crate::tokens::Message {
            role: crate::tokens::Role::User,
            content: text.clone(),
        };
        asked.push(chat.tokenizer().chat(&[message], true)?);
    }
    for i in 0..kept {
        let item = items[i * items.len() / kept];
        asked.push(chat.tokenizer().chat(&item.messages, true)?);
    }
    Ok(asked)
}

/// The tokens that a direction makes likeliest, and unlikeliest, through the final norm and head.
async fn ends(chat: &Chat, row: &[f32]) -> Result<(Vec<(u32, f32)>, Vec<(u32, f32)>), LabError> {
    let logits = chat.model().lens(row).await?;
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    let with = |t: &u32| (*t, logits[*t as usize]);
    let top = order.iter().take(LISTED).map(with).collect();
    let bottom = order.iter().rev().take(LISTED).map(with).collect();
    Ok((top, bottom))
}

/// The mean change of the log-odds of a refusal, by the judge's phrases, with the feature at its largest
/// activation.
async fn effect_of(
    chat: &mut Chat,
    run: &mut Run<'_>,
    hook: HookPoint,
    from: &Source<'_>,
    asked: &[Prompt],
    member: Member,
) -> Result<Value, LabError> {
    let parting = Parting::of(&[], &[], &from.file.judge()?, chat.tokenizer())?;
    let kept = PROBES.min(asked.len());
    let probes: Vec<&Prompt> = (0..kept).map(|i| &asked[i * asked.len() / kept]).collect();
    let mut jobs = Vec::new();
    for steering in [Vec::new(), vec![held(hook, member, 1.0)]] {
        for &prompt in &probes {
            let steering = steering.clone();
            jobs.push(Job { prompt, steering });
        }
    }
    let odds = effect::odds(chat, run, "card/effect", hook, &parting, &jobs).await?;
    let (base, steered) = odds.split_at(probes.len());
    let delta = mean(steered) - mean(base);
    Ok(json!({"delta": delta, "at": member.max, "prompts": probes.len()}))
}

/// The contexts with the strongest activations, one a prompt.
fn strongest(
    asked: &[Prompt],
    activations: &[Vec<f32>],
    text: &dyn Fn(&u32) -> String,
) -> Vec<Value> {
    let mut peaks: Vec<(usize, usize, f32)> = activations
        .iter()
        .enumerate()
        .filter_map(|(i, own)| {
            let peak = own.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
            (*peak.1 > 0.0).then_some((i, peak.0, *peak.1))
        })
        .collect();
    peaks.sort_by(|a, b| b.2.total_cmp(&a.2));
    peaks.truncate(CONTEXTS);
    peaks
        .into_iter()
        .map(|(i, peak, _)| {
            let from = peak.saturating_sub(AROUND);
            let to = (peak + AROUND + 1).min(asked[i].ids.len());
            let tokens: Vec<Value> = (from..to)
                .map(
                    |at| json!({"text": text(&asked[i].ids[at]), "activation": activations[i][at]}),
                )
                .collect();
            json!({"tokens": tokens, "peak": peak - from})
        })
        .collect()
}

/// How often activations of a size come, in equal steps from 0 to the largest.
fn histogram(positive: &[f32], max: f32) -> Value {
    let mut counts = vec![0usize; BARS];
    for value in positive {
        let at = (value / max * BARS as f32) as usize;
        counts[at.min(BARS - 1)] += 1;
    }
    let edges: Vec<f32> = (0..=BARS).map(|i| max * i as f32 / BARS as f32).collect();
    json!({"counts": counts, "edges": edges})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_and_bars_are_what_was_read() {
        let prompt = |ids: Vec<u32>| Prompt {
            roles: vec![TokenRole::Prompt; ids.len()],
            ids,
        };
        let asked = [
            prompt((0..40).collect()),
            prompt(vec![7, 8]),
            prompt(vec![9]),
        ];
        let mut long = vec![0.0; 40];
        (long[20], long[21]) = (3.0, 1.0);
        let activations = [long, vec![0.5, 4.0], vec![0.0]];
        let shown = strongest(&asked, &activations, &|t| t.to_string());
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0]["peak"], 1);
        assert_eq!(shown[0]["tokens"][0]["text"], "7");
        assert_eq!(shown[1]["peak"], AROUND);
        assert_eq!(
            shown[1]["tokens"].as_array().map(Vec::len),
            Some(2 * AROUND + 1)
        );
        assert_eq!(shown[1]["tokens"][AROUND]["activation"], 3.0);
        let bars = histogram(&[4.0, 3.0, 1.0, 0.5], 4.0);
        assert_eq!(bars["counts"][BARS - 1], 1);
        assert_eq!(bars["counts"][5], 1);
        let total = bars["counts"].as_array().unwrap().iter();
        assert_eq!(total.filter_map(Value::as_u64).sum::<u64>(), 4);
        assert_eq!(bars["edges"][BARS], 4.0);
    }
}
