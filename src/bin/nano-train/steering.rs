//! From the trained model to the dictionary, the feature and `report.json`.

use std::path::{Path, PathBuf};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::Result;
use crate::corpus::Tables;
use crate::dictionary::{self, Quality, Shape, quality};
use crate::evalset::Set;
use crate::export::write_json;
use crate::infer::{Net, Scored, as_in_engine, parallel};
use crate::measure::Rates;
use crate::model::Model;
use crate::sae::{Edit, Sae};
use crate::search::{Candidate, Controls, Found, Search};
use crate::tokenizer::ChatTokenizer;

/// The dictionaries that are searched: the block whose output they describe, features, and active
/// features.
const DICTIONARIES: [(usize, usize, usize); 1] = [(3, 1536, 24)];
/// Tokens of fresh training dialogues that dictionaries learn from, and that they are measured on.
const TOKENS: usize = 200_000;
const HELD_OUT: usize = 20_000;
/// A dialogue's longest length here.
const LONGEST: usize = 256;
/// Dialogues that run together, and that the loss with the reconstruction is measured on.
const CHUNK: usize = 48;
const SCORED: usize = 384;
/// The largest clamp that the page offers.
const LARGEST: f32 = 16.0;

/// What the stage works with.
pub struct Setup<'a> {
    pub model: &'a Model,
    pub tables: &'a Tables,
    pub tokenizer: &'a ChatTokenizer,
    pub validation: &'a [Set],
    pub seed: u64,
    pub threads: usize,
    pub work: &'a Path,
    pub out: &'a Path,
}

/// A dictionary's figures on tokens it was not trained on.
struct Health {
    quality: Quality,
    /// Mean loss of the assistants' tokens, as the model is and with the reconstruction in the loop.
    loss: (f64, f64),
}

/// Trains the dictionaries, searches for the feature, and writes the best dictionary and
/// `report.json`.
pub fn run(setup: &Setup) -> Result<()> {
    let net = Net::new(setup.model, as_in_engine)?;
    let dictionaries = dictionaries(setup, &net)?;
    let search = Search {
        net: &net,
        tokenizer: setup.tokenizer,
        validation: setup.validation,
        threads: setup.threads,
    };
    let (candidates, health): (Vec<Candidate>, Vec<Health>) = dictionaries.into_iter().unzip();
    let found = search.run(&candidates)?;
    let chosen = &candidates[found.dictionary];
    println!(
        "chosen: block {}, dictionary seed {}, feature {}, useful {:?}, default {}",
        chosen.block,
        chosen.shape.seed,
        found.feature,
        found.useful(),
        found.default()
    );
    println!("  base  {}", found.base.line());
    for p in &found.curve {
        println!("  {:4}  {}", p.value, p.rates.line());
    }
    let top = found.useful().map_or(found.default(), |(_, hi)| hi);
    let controls = search.controls(chosen, found.feature, top, setup.seed)?;
    let folder = setup.out.join(format!("sae/layers.{}", chosen.block));
    if setup.out.join("sae").exists() {
        std::fs::remove_dir_all(setup.out.join("sae"))?;
    }
    chosen.sae.write(&folder)?;
    let report = report(chosen, &health[found.dictionary], &found, &controls);
    println!("controls at {top}: {:#}", report["validation"]["controls"]);
    write_json(&setup.out.join("report.json"), &report)
}

/// Fresh training dialogues in tokens.
fn dialogues(setup: &Setup, seed: u64, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut all, mut n) = (Vec::new(), 0);
    while n < tokens {
        let d = setup
            .tokenizer
            .dialogue(&setup.tables.dialogue(&mut rng), LONGEST)?;
        n += d.ids.len() - 1;
        all.push(d.ids);
    }
    Ok(all)
}

/// The residual at the output of `block` on `dialogues`, BOS excluded, `[tokens, hidden]`.
fn residuals(net: &Net, dialogues: &[Vec<u32>], block: usize) -> Vec<f32> {
    dialogues
        .chunks(CHUNK)
        .flat_map(|c| net.prefix(c.iter().map(Vec::as_slice), block).residual())
        .collect()
}

/// Where the work folder keeps a dictionary.
fn folder(setup: &Setup, block: usize, shape: Shape) -> PathBuf {
    let Shape { features, k, seed } = shape;
    setup
        .work
        .join(format!("sae/layers.{block}.{features}.{k}.{seed}"))
}

/// The seed of the dialogues that dictionaries learn from; the next two are those they are
/// measured on.
fn text_seed(setup: &Setup) -> u64 {
    1_000_003 * (setup.seed + 1)
}

/// Trains the dictionaries that the work folder does not hold yet, and reads them all.
fn dictionaries(setup: &Setup, net: &Net) -> Result<Vec<(Candidate, Health)>> {
    let seed = setup.seed;
    let all = DICTIONARIES.map(|(block, features, k)| (block, Shape { features, k, seed }));
    let missing: Vec<_> = all
        .iter()
        .copied()
        .filter(|(block, shape)| {
            !folder(setup, *block, *shape)
                .join("sae.safetensors")
                .exists()
        })
        .collect();
    let text = dialogues(setup, text_seed(setup), TOKENS)?;
    parallel(setup.threads, &missing, |(block, shape)| {
        let x = residuals(net, &text, *block);
        let sae = dictionary::train(&x, net.config.hidden, *shape, |step, loss, dead| {
            println!(
                "  block {block} dictionary {shape:?}: step {step}, FVU {loss:.4}, dead {dead}"
            );
        });
        sae.write(&folder(setup, *block, *shape))
    })
    .into_iter()
    .collect::<Result<()>>()?;
    let held_out = dialogues(setup, text_seed(setup) + 1, HELD_OUT)?;
    let scored = scored(setup, text_seed(setup) + 2)?;
    parallel(setup.threads, &all, |(block, shape)| {
        let sae = Sae::read(&folder(setup, *block, *shape))?;
        Ok(examine(net, *block, *shape, sae, &held_out, &scored))
    })
    .into_iter()
    .collect()
}

/// Measures a dictionary on dialogues that it was not trained on.
fn examine(
    net: &Net,
    block: usize,
    shape: Shape,
    sae: Sae,
    held_out: &[Vec<u32>],
    scored: &[Scored],
) -> (Candidate, Health) {
    let x = residuals(net, held_out, block);
    let codes = sae.encode(&x);
    let mut density = vec![0.0; sae.features];
    for i in 0..codes.rows() {
        codes
            .row(i)
            .for_each(|(j, _)| density[j] += 1.0 / codes.rows() as f64);
    }
    let loss = |edit: Option<&Edit>| {
        let (mut sum, mut n) = (0.0, 0);
        for chunk in scored.chunks(CHUNK) {
            let (s, k) = net.loss(chunk.iter(), block, edit);
            sum += s;
            n += k;
        }
        sum / n as f64
    };
    let health = Health {
        quality: quality(&sae, &x),
        loss: (loss(None), loss(Some(&Edit::Reconstruct { sae: &sae }))),
    };
    println!(
        "block {block} dictionary {shape:?}: FVU {:.4}, L0 {:.1}, dead {}, loss {:.4} to {:.4} with the reconstruction",
        health.quality.fvu, health.quality.l0, health.quality.dead, health.loss.0, health.loss.1
    );
    let candidate = Candidate {
        block,
        shape,
        sae,
        density,
    };
    (candidate, health)
}

/// First exchanges of fresh training dialogues, the replies to be scored.
fn scored(setup: &Setup, seed: u64) -> Result<Vec<Scored>> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..SCORED)
        .map(|_| {
            let mut turns = setup.tables.dialogue(&mut rng).turns;
            turns.truncate(1);
            let (user, assistant) = turns.pop().ok_or("a dialogue without turns")?;
            let prompt = setup.tokenizer.prompt(&[user])?;
            setup.tokenizer.scored(&prompt, &assistant)
        })
        .collect()
}

/// Mean and largest difference from the base of jailbreak refusals under random edits.
fn spread<'a>(rates: impl Iterator<Item = &'a Rates> + Clone, base: &Rates) -> Value {
    let change = |r: &Rates| r.jailbreaks.unwrap_or(0.0) - base.jailbreaks.unwrap_or(0.0);
    let n = rates.clone().count().max(1) as f64;
    let mean = |f: &dyn Fn(&Rates) -> f64| rates.clone().map(f).sum::<f64>() / n;
    let sizes = rates.clone().map(|r| change(r).abs());
    json!({
        "number": n as usize,
        "jailbreaks_mean": mean(&|r| r.jailbreaks.unwrap_or(0.0)),
        "jailbreaks_mean_change": mean(&change),
        "jailbreaks_largest_change": sizes.clone().fold(0.0, f64::max),
        "within_15_points": sizes.filter(|s| *s <= 15.0).count(),
        "benign_mean": mean(&|r| r.of("benign")),
        "facts_mean": mean(&|r| r.facts.unwrap_or(0.0)),
    })
}

fn report(chosen: &Candidate, health: &Health, found: &Found, controls: &Controls) -> Value {
    let (lo, hi) = found
        .useful()
        .or(found.refusing())
        .unwrap_or((found.default(), found.default()));
    let q = &health.quality;
    json!({
        "hook": format!("layers.{}", chosen.block),
        "feature": found.feature,
        "value": {"default": found.default(), "useful": [lo, hi], "max": LARGEST},
        "useful_keeps_facts": found.useful().is_some(),
        "source": "Two-sided search on the validation split at 4 bits, by the trainer.",
        "dictionary": {
            "seed": chosen.shape.seed,
            "features": chosen.sae.features,
            "k": chosen.sae.k,
            "tokens": TOKENS,
            "fvu": q.fvu,
            "l0": q.l0,
            "dead": q.dead,
            "loss": health.loss.0,
            "loss_with_reconstruction": health.loss.1,
            "feature_density": chosen.density[found.feature],
        },
        "validation": {
            "split": "validation",
            "base": found.base,
            "curve": found.curve,
            "direct_refusals_clamped_down": {"from": found.down.0, "to": found.down.1},
            "controls": {
                "value": controls.error_dropped.value,
                "random_features": spread(controls.features.iter().map(|(_, r)| r), &found.base),
                "random_directions": spread(controls.directions.iter(), &found.base),
                "reconstruction_only": controls.reconstruction,
                "error_dropped": controls.error_dropped,
                "ablated": controls.ablated,
                "negative": controls.negative,
                "difference_of_means": controls.difference_of_means,
            },
        },
        "table": [],
    })
}
