//! Whether a dictionary survives quantisation: what it reads of two forms of a model on the same texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::stats::quantile;
use super::super::{LabError, Run, Share, Stage};
use super::asks::{Asks, Class};
use super::reading::{
    Code, Job, Reply, active, batches, hook_at, replies, residuals, with_replies,
};
use super::{FindOptions, Source};
use crate::generate::Chat;
use crate::phi3::MAX_ROWS;
use crate::sae::{Encoder, HookPoint};
use crate::tokens::{Prompt, TokenRole};

/// Tokens with a latent active, in either form, from which on its correlation is told.
const ENOUGH: usize = 5;
/// Below this correlation a latent is not what it was.
const SURVIVES: f64 = 0.8;
/// The quantiles of the correlations that are told.
const SHARES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// What a dictionary reads of a form of a model, and what that form refuses.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The code at each token read.
    codes: Vec<Code>,
    /// The fraction of variance unexplained.
    fvu: f64,
    /// By class of requests, those refused.
    refused: BTreeMap<&'static str, Share>,
    /// What it replied, `[requests]`.
    replies: Vec<Reply>,
}

/// Sums from which the fraction of variance unexplained follows.
#[derive(Default, Serialize, Deserialize)]
struct Spread {
    rows: usize,
    error: f64,
    squares: f64,
    /// By element of the residual stream, `[hidden]`.
    sums: Vec<f64>,
}

impl Spread {
    fn add(&mut self, row: &[f32], rebuilt: &[f32]) {
        self.rows += 1;
        self.sums.resize(row.len(), 0.0);
        for ((v, r), sum) in row.iter().zip(rebuilt).zip(&mut self.sums) {
            self.error += f64::from(v - r).powi(2);
            self.squares += f64::from(*v).powi(2);
            *sum += f64::from(*v);
        }
    }

    fn join(&mut self, other: &Self) {
        self.rows += other.rows;
        self.error += other.error;
        self.squares += other.squares;
        self.sums.resize(self.sums.len().max(other.sums.len()), 0.0);
        for (sum, more) in self.sums.iter_mut().zip(&other.sums) {
            *sum += more;
        }
    }

    fn fvu(&self) -> f64 {
        let means: f64 = self.sums.iter().map(|s| s * s).sum();
        let variance = self.squares - means / self.rows.max(1) as f64;
        self.error / variance.max(f64::MIN_POSITIVE)
    }
}

/// Lets the model reply to requests of each class and reads what the dictionary at `hook` makes of `texts`,
/// replies to the same requests; of the model's own replies where none are given. `key` begins the names of
/// the steps.
pub async fn observe(
    chat: &mut Chat,
    hook: HookPoint,
    from: &Source<'_>,
    options: &FindOptions,
    texts: Option<&Observed>,
    key: &str,
    run: &mut Run<'_>,
) -> Result<Observed, LabError> {
    options.check()?;
    let judge = from.file.judge()?;
    let tokenizer = chat.tokenizer().clone();
    let asks = Asks::of(
        from.file,
        from.split(),
        options.prompts,
        options.held,
        &tokenizer,
    )?;
    let asks = asks.search;
    run.begin(
        Stage::Reading,
        2 * asks.len().div_ceil(chat.model().lanes()),
    );
    let jobs: Vec<Job<'_>> = asks
        .iter()
        .map(|ask| Job {
            prompt: &ask.prompt,
            steering: Vec::new(),
        })
        .collect();
    let said = replies(chat, run, &format!("{key}/replies"), &jobs, options.tokens).await?;
    let mut seen = Observed::default();
    for (ask, reply) in asks.iter().zip(&said) {
        let class = match ask.class {
            Class::Direct => "direct",
            Class::Jailbreak => "jailbreaks",
            Class::Harmless => "harmless",
        };
        let share = seen.refused.entry(class).or_default();
        share.count(judge.refusal(&reply.text).is_some());
    }
    let read = texts.map_or(&said, |other| &other.replies);
    let whole = with_replies(&asks, read);
    let dictionary = hook_at(chat, hook)?.dictionary().clone();
    let gpu = chat.model().gpu().clone();
    let encoder = Encoder::new(&gpu, &dictionary, MAX_ROWS).await?;
    let lengths: Vec<usize> = whole.iter().map(|p| p.ids.len()).collect();
    let mut spread = Spread::default();
    for lane in 0..chat.model().lanes() {
        chat.steering().set(lane, &[])?;
    }
    for (number, batch) in batches(&lengths, chat.model().lanes()).iter().enumerate() {
        let prompts: Vec<Prompt> = batch.iter().map(|&i| whole[i].clone()).collect();
        let key = format!("{key}/read/{number}");
        let read = run.step(&key, read_some(chat, &encoder, hook, &prompts));
        let (codes, own) = read.await?;
        seen.codes.extend(codes);
        spread.join(&own);
    }
    seen.fvu = spread.fvu();
    seen.replies = said;
    Ok(seen)
}

/// What the dictionary makes of some texts, the beginning of the sequence left out.
async fn read_some(
    chat: &mut Chat,
    encoder: &Encoder<'_>,
    hook: HookPoint,
    texts: &[Prompt],
) -> Result<(Vec<Code>, Spread), LabError> {
    let dictionary = encoder.dictionary();
    let (width, latents) = (dictionary.width(), dictionary.latents());
    let (mut codes, mut spread) = (Vec::new(), Spread::default());
    for (text, vectors) in texts.iter().zip(residuals(chat, hook.layer, texts).await?) {
        let begin = text.roles.iter().filter(|r| **r == TokenRole::Bos).count();
        let vectors = vectors.get(begin * width..).unwrap_or_default();
        for some in vectors.chunks(encoder.most() * width) {
            let encoded = encoder.run(some).await?;
            let rows = some.chunks_exact(width);
            for (row, rebuilt) in rows.zip(encoded.recon.chunks_exact(width)) {
                spread.add(row, rebuilt);
            }
            codes.extend(encoded.acts.chunks(latents).map(active));
        }
    }
    Ok((codes, spread))
}

/// Pearson's correlation of a latent's activations over tokens, from sums over those where it is active.
#[derive(Clone, Copy, Default)]
struct Pair {
    active: usize,
    max: [f64; 2],
    sums: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Pair {
    fn add(&mut self, plain: f64, other: f64) {
        self.active += 1;
        self.product += plain * other;
        for (side, value) in [plain, other].into_iter().enumerate() {
            self.max[side] = self.max[side].max(value);
            self.sums[side] += value;
            self.squares[side] += value * value;
        }
    }

    fn correlation(&self, tokens: usize) -> f64 {
        let n = tokens as f64;
        let spread = |side: usize| self.squares[side] - self.sums[side] * self.sums[side] / n;
        let both = self.product - self.sums[0] * self.sums[1] / n;
        let scale = (spread(0) * spread(1)).sqrt();
        // A latent that one of the forms never uses goes with nothing.
        if scale > 0.0 { both / scale } else { 0.0 }
    }
}

/// By latent, its activations in both forms.
fn pairs(plain: &[Code], other: &[Code]) -> BTreeMap<u32, Pair> {
    let mut all: BTreeMap<u32, Pair> = BTreeMap::new();
    for (plain, other) in plain.iter().zip(other) {
        let other: BTreeMap<u32, f32> = other.iter().copied().collect();
        let mut rest = other.clone();
        for (latent, value) in plain {
            let there = rest.remove(latent).unwrap_or_default();
            all.entry(*latent)
                .or_default()
                .add((*value).into(), there.into());
        }
        for (latent, value) in rest {
            all.entry(latent).or_default().add(0.0, value.into());
        }
    }
    all
}

/// Both forms beside each other, as JSON. `features` are those steered; their own figures are told, with a
/// warning below 0.8.
pub fn survival(plain: &Observed, other: &Observed, features: &[u32]) -> Value {
    let tokens = plain.codes.len().min(other.codes.len());
    let pairs = pairs(&plain.codes, &other.codes);
    let of = |feature: u32, pair: &Pair| {
        json!({
            "feature": feature,
            "correlation": pair.correlation(tokens),
            "active": pair.active,
            "max": {"plain": pair.max[0], "quantised": pair.max[1]},
        })
    };
    let told: Vec<Value> = pairs
        .iter()
        .filter(|(_, pair)| pair.active >= ENOUGH)
        .map(|(feature, pair)| of(*feature, pair))
        .collect();
    let correlations: Vec<f64> = told
        .iter()
        .filter_map(|l| l["correlation"].as_f64())
        .collect();
    let steered: Vec<Value> = features
        .iter()
        .map(|&feature| {
            let mut own = of(feature, &pairs.get(&feature).copied().unwrap_or_default());
            let survives = own["correlation"].as_f64().is_some_and(|r| r >= SURVIVES);
            own["survives"] = json!(survives);
            own
        })
        .collect();
    let form = |seen: &Observed| {
        let active: usize = seen.codes.iter().map(Vec::len).sum();
        let shares = seen.refused.iter().map(|(class, share)| {
            let told = json!({
                "hits": share.hits,
                "of": share.of,
                "percent": share.percent(),
                "interval": share.interval(),
            });
            (class.to_string(), told)
        });
        json!({
            "fvu": seen.fvu,
            "l0": active as f64 / seen.codes.len().max(1) as f64,
            "refused": Value::Object(shares.collect()),
        })
    };
    json!({
        "tokens": tokens,
        "plain": form(plain),
        "quantised": form(other),
        "steered": steered,
        "correlation": {
            "latents": correlations.len(),
            "quantiles": SHARES.map(|share| quantile(&correlations, share)),
            "below": correlations.iter().filter(|r| **r < SURVIVES).count(),
            "bound": SURVIVES,
        },
        "latents": told,
    })
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn correlations_are_those_of_the_whole_columns() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (tokens, latents) = (173usize, 7u32);
        let mut code = || -> Vec<Code> {
            let row = |rng: &mut StdRng| {
                let all = (0..latents)
                    .filter(|_| rng.random_bool(0.4))
                    .collect::<Vec<_>>();
                all.into_iter()
                    .map(|l| (l, rng.random_range(0.1..3.0)))
                    .collect()
            };
            (0..tokens).map(|_| row(&mut rng)).collect()
        };
        let (plain, mut other) = (code(), code());
        // The last latent is the same in both, and the first one's negative side never there.
        for (p, o) in plain.iter().zip(&mut other) {
            o.retain(|(l, _)| *l != latents - 1 && *l != 0);
            o.extend(p.iter().filter(|(l, _)| *l == latents - 1));
        }
        let pairs = pairs(&plain, &other);
        for latent in 0..latents {
            let column = |codes: &[Code]| -> Vec<f64> {
                let at = |c: &Code| {
                    c.iter()
                        .find(|(l, _)| *l == latent)
                        .map_or(0.0, |(_, v)| *v)
                };
                codes.iter().map(|c| f64::from(at(c))).collect()
            };
            let (x, y) = (column(&plain), column(&other));
            let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            let (mx, my) = (mean(&x), mean(&y));
            let both: f64 = x.iter().zip(&y).map(|(a, b)| (a - mx) * (b - my)).sum();
            let square = |v: &[f64], m: f64| v.iter().map(|a| (a - m).powi(2)).sum::<f64>();
            let scale = (square(&x, mx) * square(&y, my)).sqrt();
            let want = if scale > 0.0 { both / scale } else { 0.0 };
            let got = pairs[&latent].correlation(tokens);
            assert!((got - want).abs() < 1e-9, "{latent}: {got}, {want}");
        }
        assert!((pairs[&(latents - 1)].correlation(tokens) - 1.0).abs() < 1e-9);
        assert_eq!(pairs[&0].correlation(tokens), 0.0);
        let seen = |codes: &[Code]| Observed {
            codes: codes.to_vec(),
            ..Observed::default()
        };
        let told = survival(&seen(&plain), &seen(&other), &[latents - 1, 0, 99]);
        let survives: Vec<&Value> = (0..3).map(|i| &told["steered"][i]["survives"]).collect();
        assert_eq!(survives, [&json!(true), &json!(false), &json!(false)]);
        assert_eq!(told["correlation"]["latents"], latents);
    }

    #[test]
    fn the_variance_unexplained_is_that_of_the_vectors() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (rows, width) = (37, 5);
        let mut vectors = || -> Vec<f32> {
            (0..rows * width)
                .map(|_| rng.random_range(-1.0..3.0))
                .collect()
        };
        let (x, r) = (vectors(), vectors());
        let (mut spread, mut rest) = (Spread::default(), Spread::default());
        for (i, (row, rebuilt)) in x.chunks(width).zip(r.chunks(width)).enumerate() {
            if i % 3 == 0 { &mut rest } else { &mut spread }.add(row, rebuilt);
        }
        spread.join(&rest);
        let mean =
            |i: usize| (0..rows).map(|n| f64::from(x[n * width + i])).sum::<f64>() / rows as f64;
        let error: f64 = x
            .iter()
            .zip(&r)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum();
        let variance: f64 = (0..rows * width)
            .map(|i| (f64::from(x[i]) - mean(i % width)).powi(2))
            .sum();
        let (got, want) = (spread.fvu(), error / variance);
        assert!((got - want).abs() < 1e-6 * want, "{got}, {want}");
    }
}
