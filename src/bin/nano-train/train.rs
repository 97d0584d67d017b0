//! The training loop: data-parallel over threads, the result independent of how many there are.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::Result;
use crate::corpus::Tables;
use crate::export;
use crate::model::{Model, Perturbation, random_direction};
use crate::ops;
use crate::optim::Optimizer;
use crate::tokenizer::{ChatTokenizer, Encoded};

/// Dialogues that are drawn, sorted by length and cut into batches together.
const POOL: usize = 1024;
/// Tokens, padding included, in a microbatch; one is one thread's piece of work.
const MICROBATCH: usize = 1024;
/// Microbatches in an optimiser step.
const PER_STEP: usize = 4;
/// A dialogue's longest length in training.
const LONGEST: usize = 448;
const WARMUP: usize = 60;
/// Steps with the full learning rate; then a cosine that would reach zero at [`COSINE_END`].
const FLAT: f32 = 450.0;
const COSINE_END: f32 = 1000.0;
/// Steps of the linear descent to [`FINAL_RATE`] that ends the training.
const COOLDOWN: f32 = 120.0;
const FINAL_RATE: f32 = 0.02;
/// The share of sequences whose residual is perturbed, and the largest offset over the mean norm.
const PERTURBED: f64 = 0.45;
const STRONGEST: f32 = 0.9;
/// A checkpoint is written this often.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(180);

/// Right-padded sequences with their next-token targets.
struct Microbatch {
    ids: Vec<u32>,
    targets: Arc<Vec<u32>>,
    weights: Arc<Vec<f32>>,
    batch: usize,
    len: usize,
    perturb: Vec<Option<Perturbation>>,
}

/// Draws pool number `index` and cuts it into microbatches.
fn pool(
    tables: &Tables,
    tokenizer: &ChatTokenizer,
    model: &Model,
    seed: u64,
    index: usize,
) -> Result<Vec<Microbatch>> {
    let mut rng = StdRng::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(index as u64),
    );
    let mut dialogues = Vec::with_capacity(POOL);
    for _ in 0..POOL {
        dialogues.push(tokenizer.dialogue(&tables.dialogue(&mut rng), LONGEST)?);
    }
    dialogues.sort_by_key(|d| d.ids.len());
    let mut batches = Vec::new();
    let mut from = 0;
    while from < dialogues.len() {
        let mut to = from + 1;
        while to < dialogues.len() && (to + 1 - from) * (dialogues[to].ids.len() - 1) <= MICROBATCH
        {
            to += 1;
        }
        batches.push(microbatch(
            &dialogues[from..to],
            tokenizer.end,
            model,
            &mut rng,
        ));
        from = to;
    }
    batches.shuffle(&mut rng);
    Ok(batches)
}

fn microbatch(dialogues: &[Encoded], pad: u32, model: &Model, rng: &mut StdRng) -> Microbatch {
    let len = dialogues.iter().map(|d| d.ids.len()).max().unwrap_or(1) - 1;
    let batch = dialogues.len();
    let (mut ids, mut targets, mut weights) = (
        vec![pad; batch * len],
        vec![pad; batch * len],
        vec![0.0; batch * len],
    );
    for (b, d) in dialogues.iter().enumerate() {
        let n = d.ids.len() - 1;
        ids[b * len..][..n].copy_from_slice(&d.ids[..n]);
        targets[b * len..][..n].copy_from_slice(&d.ids[1..]);
        weights[b * len..][..n].copy_from_slice(&d.weights[1..]);
    }
    let perturb = (0..batch)
        .map(|_| {
            rng.random_bool(PERTURBED).then(|| Perturbation {
                block: rng.random_range(1..5),
                direction: random_direction(rng, model.config.hidden),
                strength: rng.random_range(0.0..STRONGEST),
                white: if rng.random_bool(0.5) {
                    rng.random_range(0.0..0.3)
                } else {
                    0.0
                },
                seed: rng.random(),
            })
        })
        .collect();
    Microbatch {
        ids,
        targets: Arc::new(targets),
        weights: Arc::new(weights),
        batch,
        len,
        perturb,
    }
}

/// A microbatch's gradients in the order of the parameters, with the sums of losses and weights of
/// the assistants' tokens.
struct Gradients {
    params: Vec<Vec<f32>>,
    loss: f64,
    weight: f64,
}

fn gradients(model: &Model, b: &Microbatch) -> Result<Gradients> {
    let logits = model.forward(&b.ids, b.batch, b.len, &b.perturb)?;
    let (mut loss, mut weight) = (0.0, 0.0);
    ops::with_slice(&logits, |x| {
        for (i, row) in x
            .chunks_exact(model.config.vocab)
            .enumerate()
            .filter(|(i, _)| b.weights[*i] == 1.0)
        {
            loss += ops::row_loss(row, b.targets[i]) as f64;
            weight += 1.0;
        }
    })?;
    let grads = ops::cross_entropy(&logits, b.targets.clone(), b.weights.clone())?.backward()?;
    let params = model
        .named()
        .iter()
        .map(|(name, var)| {
            let g: &Tensor = grads
                .get(var)
                .ok_or_else(|| format!("no gradient for {name}"))?;
            Ok(g.flatten_all()?.to_vec1::<f32>()?)
        })
        .collect::<Result<_>>()?;
    Ok(Gradients {
        params,
        loss,
        weight,
    })
}

/// The learning rate's factor at `step` of `steps`: warm-up, flat, cosine, cooldown.
fn schedule(step: usize, steps: usize) -> f32 {
    let cosine = |step: f32| {
        let done = ((step - FLAT) / (COSINE_END - FLAT)).clamp(0.0, 1.0);
        0.5 * (1.0 + (std::f32::consts::PI * done).cos())
    };
    let warm = ((step + 1) as f32 / WARMUP as f32).min(1.0);
    let cooldown = steps as f32 - COOLDOWN;
    let past = (step as f32 - cooldown) / COOLDOWN;
    if past <= 0.0 {
        return warm * cosine(step as f32);
    }
    let from = cosine(cooldown);
    warm * (from + past * (FINAL_RATE - from))
}

/// Trains `model` for `steps` steps on `threads` threads, from `work`'s checkpoint if it holds one,
/// writing a checkpoint there every few minutes.
pub fn train(
    model: &Model,
    tables: &Tables,
    tokenizer: &ChatTokenizer,
    seed: u64,
    steps: usize,
    threads: usize,
    work: &Path,
) -> Result<()> {
    let mut optimizer = Optimizer::new(&model.named());
    let checkpoint = work.join("checkpoint.safetensors");
    let mut done = 0;
    if checkpoint.exists() {
        done = export::read_checkpoint(&checkpoint, model, &mut optimizer)?;
        println!("resumed at step {done}");
    }
    let mut queue: Vec<Microbatch> = Vec::new();
    let mut pools = 0;
    let mut skip = done * PER_STEP;
    let started = Instant::now();
    let (mut last, mut tokens, mut all_tokens) = (Instant::now(), 0usize, 0usize);
    let (mut loss, mut weight) = (0.0, 0.0);
    let mut reported = Instant::now();
    for step in done..steps {
        while queue.len() < PER_STEP + skip {
            let mut next = pool(tables, tokenizer, model, seed, pools)?;
            pools += 1;
            let dropped = skip.min(next.len());
            next.drain(..dropped);
            skip -= dropped;
            queue.extend(next);
        }
        let batches: Vec<Microbatch> = queue.drain(..PER_STEP).collect();
        let results: Vec<Mutex<Option<Result<Gradients>>>> =
            batches.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(b) = batches.get(i) else { return };
                        let result = gradients(model, b);
                        *results[i].lock().unwrap_or_else(|e| e.into_inner()) = Some(result);
                    }
                });
            }
        });
        let scale = 1.0 / batches.iter().flat_map(|b| b.weights.iter()).sum::<f32>();
        let mut sum: Vec<Vec<f32>> = Vec::new();
        for result in results {
            let g = result
                .into_inner()
                .unwrap_or_else(|e| e.into_inner())
                .ok_or("a training thread stopped")??;
            loss += g.loss;
            weight += g.weight;
            if sum.is_empty() {
                sum = g.params;
            } else {
                for (s, g) in sum.iter_mut().zip(&g.params) {
                    crate::linalg::axpy(s, 1.0, g);
                }
            }
        }
        sum.iter_mut().flatten().for_each(|g| *g *= scale);
        optimizer.step(&mut sum, schedule(step, steps), threads)?;
        tokens += batches.iter().map(|b| b.ids.len()).sum::<usize>();
        if reported.elapsed() > Duration::from_secs(30) || step + 1 == steps {
            all_tokens += tokens;
            println!(
                "{:5.1} min  step {:5} of {steps}  {:.2}M tokens  {:4.0} tokens/s  rate {:.3}  assistant loss {:.4}",
                started.elapsed().as_secs_f64() / 60.0,
                step + 1,
                all_tokens as f64 / 1e6,
                tokens as f64 / reported.elapsed().as_secs_f64(),
                schedule(step, steps),
                loss / weight,
            );
            (tokens, loss, weight) = (0, 0.0, 0.0);
            reported = Instant::now();
        }
        if last.elapsed() > CHECKPOINT_EVERY || step + 1 == steps {
            export::write_checkpoint(&checkpoint, model, &optimizer)?;
            last = Instant::now();
        }
    }
    Ok(())
}
