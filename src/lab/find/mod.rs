//! Finding the features that make a model refuse, in any model and dictionary.
//!
//! Six searches score each latent that is alive; cheap ones all of them, expensive ones those that others
//! rank high. The best candidates are confirmed on prompts that were not searched with: held up, they must
//! raise refusals of harmful requests, held down lower them.

mod asks;
mod card;
mod choice;
mod confirm;
mod effect;
mod evidence;
mod forced;
mod gate;
mod passing;
mod rank;
mod reading;
mod survival;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{EvalFile, LabError, Run, Stage};
use crate::generate::Chat;
use crate::sae::HookPoint;
pub use card::{CardOptions, card};
pub use gate::{GateOptions, gate};
pub use survival::{Observed, observe, survival};

use asks::{Ask, Asks, Class};
use choice::{Kind, choose};
use confirm::{ALONG, CURVE, Confirmed, Member, Strengths, Trial};
use effect::Parting;
use evidence::{Evidence, Groups};
use rank::{Method, Ranking, Scores};
pub(super) use reading::packed;
use reading::{Job, hook_at, replies};

/// How a search is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FindOptions {
    /// Prompts of each class to search with (twice as many harmless ones).
    pub prompts: usize,
    /// Prompts of each class to confirm on.
    pub held: usize,
    /// Candidates whose effect on the odds of a refusal is computed.
    pub candidates: usize,
    /// Candidates that are confirmed.
    pub confirm: usize,
    /// Features of a set at most.
    pub most: usize,
    /// Tokens of a reply at most.
    pub tokens: usize,
}

impl Default for FindOptions {
    fn default() -> Self {
        Self {
            prompts: 16,
            held: 10,
            candidates: 64,
            confirm: 6,
            most: 3,
            tokens: 20,
        }
    }
}

impl FindOptions {
    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), LabError> {
        for (name, value, least, most) in [
            ("prompts", self.prompts, 4, 512),
            ("held", self.held, 2, 512),
            ("candidates", self.candidates, 1, 1024),
            ("confirm", self.confirm, 1, 64),
            ("most", self.most, 1, 16),
            ("tokens", self.tokens, 2, 256),
        ] {
            if !(least..=most).contains(&value) {
                return Err(LabError::Recipe(format!(
                    "{name} is {value}: {least} to {most} are possible"
                )));
            }
        }
        Ok(())
    }
}

/// What the difference of means is called among directions.
const DIRECTION: &str = "difference of means";
/// Harmless prompts and jailbreaks, each, on which an effect on the odds of a refusal is computed.
const PROBED: usize = 3;
/// Candidates of the paper's search whose refusal rate is measured, and the prompts it is measured on.
const GRID: usize = 16;
const GRID_PROMPTS: usize = 4;

/// The prompts of a task.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// All that there are.
    pub file: &'a EvalFile,
    /// Which of them; validation if it is not said: what is chosen is not measured on test.
    pub split: Option<&'a str>,
    /// Of a set at most.
    pub limit: Option<usize>,
}

impl Source<'_> {
    fn split(&self) -> &str {
        self.split.unwrap_or("validation")
    }
}

/// What searches with prompts find at `hook`, as JSON.
pub async fn find(
    chat: &mut Chat,
    hook: HookPoint,
    from: &Source<'_>,
    options: &FindOptions,
    seed: u64,
    run: &mut Run<'_>,
) -> Result<Value, LabError> {
    options.check()?;
    let tokenizer = chat.tokenizer().clone();
    let judge = from.file.judge()?;
    let split = from.split();
    // A limit of prompts of a set is one of a class here, where it is lower.
    let most = from
        .limit
        .map_or(options.prompts, |l| l.clamp(4, options.prompts));
    let asks = Asks::of(from.file, split, most, options.held, &tokenizer)?;
    let search = &asks.search;
    let lanes = chat.model().lanes();

    // What the model says, and what the dictionary reads.
    run.begin(Stage::Reading, 2 * search.len().div_ceil(lanes));
    let jobs: Vec<Job<'_>> = search
        .iter()
        .map(|ask| Job {
            prompt: &ask.prompt,
            steering: Vec::new(),
        })
        .collect();
    let said = replies(chat, run, "replies", &jobs, options.tokens).await?;
    let refused: Vec<bool> = said
        .iter()
        .map(|r| judge.refusal(&r.text).is_some())
        .collect();
    let readings = reading::read(chat, run, "read", hook, search, &said).await?;
    // A model that hardly refuses shows on replies that are not its own what a refusal looks like.
    let forced = match evidence::enough(&readings, &refused) {
        true => None,
        false => Some(forced::read(chat, run, hook, search).await?),
    };
    let groups = Groups::of(search, &readings, &refused, forced.as_ref());
    let archetype = (0..search.len())
        .find(|&i| search[i].class == Class::Direct && refused[i])
        .or(refused.iter().position(|r| *r));
    let refusal = match &forced {
        Some(forced) => forced.archetype.and_then(|i| forced.readings.get(i)),
        None => archetype.and_then(|i| readings.get(i)),
    };
    let evidence = evidence::gather(search, &groups, refusal);
    let [at_last, over_reply] = groups.differences();
    // A model that hardly refuses has seen that a request is harmful, and makes nothing of it: there the direction
    // is that of the replies.
    let direction = match &forced {
        None => &at_last,
        Some(_) => &over_reply,
    };
    let cosines = rank::cosines(chat, hook, &evidence, direction).await?;
    let mut scores = Scores::new(&evidence, &cosines);

    // One token far.
    let parted = |wanted: bool| -> Vec<&[u32]> {
        let all = said.iter().zip(&refused).filter(|(_, r)| **r == wanted);
        all.map(|(reply, _)| &reply.tokens[..]).collect()
    };
    let parting = Parting::of(&parted(true), &parted(false), &judge, &tokenizer)?;
    let likely = scores.likely(options.candidates);
    let probes = probed(search, &refused);
    let trials = scores.archetypal(GRID).len();
    let grid_prompts: Vec<usize> = probes
        .iter()
        .copied()
        .filter(|i| search[*i].class != Class::Harmless)
        .chain((0..search.len()).filter(|i| search[*i].class == Class::Jailbreak && !refused[*i]))
        .fold(Vec::new(), |mut all, i| {
            if all.len() < GRID_PROMPTS && !all.contains(&i) {
                all.push(i);
            }
            all
        });
    let steps = |jobs: usize| jobs.div_ceil(lanes);
    run.begin(
        Stage::Search,
        steps((likely.len() + 1) * probes.len())
            + 1
            + steps(likely.len())
            + steps(trials * grid_prompts.len()),
    );
    let member = |i: usize| Member {
        feature: evidence[i].feature,
        max: evidence[i].strength.max,
    };
    let members: Vec<Member> = likely.iter().map(|i| member(*i)).collect();
    let jobs = causal_jobs(hook, search, &probes, &members);
    let odds = effect::odds(chat, run, "causal", hook, &parting, &jobs).await?;
    scores.set(Method::Causal, &likely, &effects(&odds, probes.len()));
    let features: Vec<u32> = likely.iter().map(|i| evidence[*i].feature).collect();
    let output = effect::output_scores(chat, run, hook, &features).await?;
    scores.set(Method::Output, &likely, &output);
    let grid = scores.archetypal(GRID);
    let mut jobs = Vec::new();
    for &i in &grid {
        for &prompt in &grid_prompts {
            jobs.push(Job {
                prompt: &search[prompt].prompt,
                steering: vec![confirm::held(hook, member(i), confirm::TRIED)],
            });
        }
    }
    let tried = replies(chat, run, "paper", &jobs, options.tokens).await?;
    let rates: Vec<f64> = tried
        .chunks(grid_prompts.len().max(1))
        .map(|some| {
            let hits = some.iter().filter(|r| judge.refusal(&r.text).is_some());
            hits.count() as f64 / some.len() as f64
        })
        .collect();
    scores.set(Method::Paper, &grid, &rates);
    let ranking = Ranking::of(&scores);

    // On prompts that were not searched with.
    let held_batches = steps(asks.held.len());
    let tried = ranking.best(options.confirm);
    run.begin(Stage::Confirm, held_batches * (2 + 2 * tried.len()));
    let tokens = options.tokens;
    let (gate, told_of_gate) = passing::fitted(search, &readings, hook, seed);
    let trial = Trial::new(chat, run, &gate, &judge, tokens, &asks.held).await?;
    let mut confirmed: Vec<(usize, Confirmed)> = Vec::new();
    for &i in &tried {
        confirmed.push((i, trial.confirm(chat, run, member(i)).await?));
    }
    confirmed.sort_by(|a, b| b.1.worth().total_cmp(&a.1.worth()));

    // How strong, and whether several do more.
    let others = confirmed
        .len()
        .saturating_sub(1)
        .min(2 * (options.most - 1));
    run.begin(
        Stage::Strength,
        held_batches * (CURVE.len() + others + ALONG.len()),
    );
    let base = trial.base();
    let (chosen, curve) = choose(chat, run, &trial, &confirmed, options.most, &member).await?;
    // What every dictionary must beat.
    let steering = chat.steering().clone();
    steering.add_direction(hook, DIRECTION, direction.clone())?;
    let mut along = Vec::new();
    for times in ALONG {
        along.push(trial.along(chat, run, DIRECTION, times).await?);
    }
    let (kind, gated) = Kind::of(chosen.len(), &base, &curve, &along);
    let own = chosen.first().map(|m| m.feature);
    let strength = evidence.iter().find(|e| Some(e.feature) == own);
    let strength = strength.map(|e| e.strength).unwrap_or_default();
    let single = chosen.len() == 1;
    let features = match kind {
        Kind::Direction => &[][..],
        _ => &chosen,
    };
    let along = Strengths::of("times", 1.0, base, &along);
    let strengths = match (kind, single) {
        (Kind::Direction, _) => along.clone(),
        (_, true) => Strengths::of("activation", strength.max, base, &curve),
        (_, false) => Strengths::of("max", 1.0, base, &curve),
    };
    let mut told_of_strength = json!(strengths);
    if kind != Kind::Direction {
        told_of_strength["quantiles"] = json!(strength.quantiles);
    }

    let order = ranking.order();
    let candidates: Vec<Value> = confirmed
        .iter()
        .map(|(i, _)| *i)
        .chain(order.iter().copied().filter(|i| !tried.contains(i)))
        .take(options.candidates.max(confirmed.len()))
        .map(|i| {
            let own = confirmed.iter().find(|(j, _)| *j == i).map(|(_, c)| c);
            candidate(&evidence[i], i, &scores, &ranking, own)
        })
        .collect();
    Ok(json!({
        "split": split,
        "candidates": candidates,
        "concordance": ranking.concordance(),
        "chosen": {"kind": kind, "features": features, "gated": gated},
        "strength": told_of_strength,
        "direction": {
            "of": if forced.is_some() { "forcedReplies" } else { "prompts" },
            "norm": norm(direction),
            "values": packed::text(direction),
            "curve": along.always.curve,
            "useful": along.always.useful,
            "default": along.always.default,
            "gated": along.gated,
            "reply": {
                "by": if forced.is_some() { "forced" } else { "own" },
                "norm": norm(&over_reply),
                "values": packed::text(&over_reply),
            },
        },
        "gate": told_of_gate,
        "openings": {
            "own": parting.own,
            "after": tokenizer.decode(&parting.before),
            "tokens": parting.tokens.iter().map(|t| tokenizer.token_text(*t)).collect::<Vec<_>>(),
        },
        "archetype": archetype.map(|i| tokenizer.decode(&search[i].prompt.ids)),
        "alive": evidence.len(),
        "latents": hook_at(chat, hook)?.dictionary().latents(),
        "prompts": search.len() + asks.held.len(),
        "refused": {
            "direct": share(search, &refused, Class::Direct),
            "jailbreaks": share(search, &refused, Class::Jailbreak),
            "harmless": share(search, &refused, Class::Harmless),
        },
        "readTokens": evidence::tokens(&readings),
    }))
}

/// The share of a class's prompts that were refused; null without any.
fn share(asks: &[Ask], refused: &[bool], class: Class) -> Option<f64> {
    let own = asks
        .iter()
        .zip(refused)
        .filter(|(ask, _)| ask.class == class);
    let all: Vec<bool> = own.map(|(_, r)| *r).collect();
    let hits = all.iter().filter(|r| **r).count();
    (!all.is_empty()).then(|| hits as f64 / all.len() as f64)
}

/// The prompts on which effects are computed: harmless ones, and jailbreaks that were not refused (or any
/// harmful ones, where none was given in to).
fn probed(asks: &[Ask], refused: &[bool]) -> Vec<usize> {
    let of = |class: &[Class], open: bool| -> Vec<usize> {
        let all = (0..asks.len()).filter(|&i| class.contains(&asks[i].class));
        let all: Vec<usize> = all.filter(|&i| !open || !refused[i]).collect();
        let kept = PROBED.min(all.len());
        (0..kept).map(|i| all[i * all.len() / kept]).collect()
    };
    let mut harmful = of(&[Class::Jailbreak], true);
    if harmful.is_empty() {
        harmful = of(&[Class::Direct, Class::Jailbreak], false);
    }
    harmful.extend(of(&[Class::Harmless], true));
    harmful
}

/// The probes without steering, and with each of `members` held at twice its largest activation.
fn causal_jobs<'a>(
    hook: HookPoint,
    asks: &'a [Ask],
    probes: &[usize],
    members: &[Member],
) -> Vec<Job<'a>> {
    let held = members
        .iter()
        .map(|m| vec![confirm::held(hook, *m, confirm::TRIED)]);
    let each = std::iter::once(Vec::new()).chain(held);
    each.flat_map(|steering| {
        probes.iter().map(move |&probe| Job {
            prompt: &asks[probe].prompt,
            steering: steering.clone(),
        })
    })
    .collect()
}

/// The mean change of the log-odds of each member, from those of [`causal_jobs`].
fn effects(odds: &[f64], probes: usize) -> Vec<f64> {
    let (base, steered) = odds.split_at(probes);
    let each = steered.chunks(probes.max(1)).map(|some| {
        let moved = some.iter().zip(base).map(|(s, b)| s - b);
        moved.sum::<f64>() / some.len() as f64
    });
    each.collect()
}

fn norm(vector: &[f32]) -> f64 {
    vector
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt()
}

fn candidate(
    evidence: &Evidence,
    index: usize,
    scores: &Scores,
    ranking: &Ranking,
    confirmed: Option<&Confirmed>,
) -> Value {
    let ranks: serde_json::Map<String, Value> = Method::ALL
        .into_iter()
        .filter_map(|m| Some((m.name().to_string(), json!(ranking.rank(m, index)?))))
        .collect();
    json!({
        "feature": evidence.feature,
        "scores": {
            "paper": scores.get(Method::Paper, index),
            "paperTokens": evidence.paper,
            "contrastLast": evidence.last,
            "contrastReply": evidence.reply,
            "cosine": scores.get(Method::Cosine, index),
            "causal": scores.get(Method::Causal, index),
            "output": scores.get(Method::Output, index),
            "paired": evidence.paired,
        },
        "ranks": ranks,
        "agreement": ranking.agreement(index),
        "strength": evidence.strength,
        "confirmed": confirmed,
    })
}
