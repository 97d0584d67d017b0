//! The sampler against a reference in f64.

use std::rc::Rc;

use phi3_steer::generate::{Sampled, Sampler, Sampling};
use phi3_steer::gpu::{Buffer, Gpu};
use phi3_steer::phi3::{ROW_DONE, ROW_GENERATED, Row};
use rand::{Rng, rngs::StdRng};

use crate::support::*;

/// A sampler over logits of the test's own.
struct Bench {
    gpu: Rc<Gpu>,
    sampler: Sampler,
    logits: Buffer,
    rows: Buffer,
    lanes: usize,
    vocab: usize,
}

impl Bench {
    fn new(gpu: &Rc<Gpu>, lanes: usize, vocab: usize) -> Self {
        let logits = poisoned(gpu, lanes * vocab);
        let rows = put_rows(gpu, &Self::first_rows(lanes));
        let sampler = Sampler::of(gpu, lanes, vocab, &logits, &rows).unwrap();
        Self {
            gpu: gpu.clone(),
            sampler,
            logits,
            rows,
            lanes,
            vocab,
        }
    }

    fn first_rows(lanes: usize) -> Vec<Row> {
        (0..lanes as u32)
            .map(|lane| Row {
                token: 1,
                lane,
                position: 10 * (lane + 1),
                flags: 0,
            })
            .collect()
    }

    /// Starts every lane over, with `logits [lanes, vocab]`.
    fn start(&self, logits: &[f32], sampling: &Sampling, stops: &[u32], seen: &[&[u32]]) {
        assert_eq!(logits.len(), self.lanes * self.vocab);
        self.gpu.write(&self.logits, 0, logits);
        self.gpu
            .write(&self.rows, 16, &Self::first_rows(self.lanes));
        self.sampler.start(&self.gpu, sampling, stops, seen);
    }

    /// `steps` tokens of every lane, `[steps, lanes]`.
    fn draw(&self, steps: usize) -> Vec<Sampled> {
        let each = (self.lanes * size_of::<Sampled>()) as u64;
        let all = poisoned(&self.gpu, steps * each as usize / 4);
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        for step in 0..steps as u64 {
            self.sampler.record(&mut encoder);
            encoder.copy_buffer_to_buffer(self.sampler.out(), 0, &all, step * each, each);
        }
        self.gpu.queue().submit([encoder.finish()]);
        get(&self.gpu, &all, steps * self.lanes)
    }

    /// Lane 0's first token under each of the seeds below `seeds`.
    fn first_of_seeds(&self, logits: &[f32], sampling: &Sampling, seeds: u32) -> Vec<Sampled> {
        let each = size_of::<Sampled>() as u64;
        let all = poisoned(&self.gpu, seeds as usize * each as usize / 4);
        for seed in 0..seeds {
            self.start(logits, &Sampling { seed, ..*sampling }, &[], &[]);
            let mut encoder = self
                .gpu
                .device()
                .create_command_encoder(&Default::default());
            self.sampler.record(&mut encoder);
            let at = u64::from(seed) * each;
            encoder.copy_buffer_to_buffer(self.sampler.out(), 0, &all, at, each);
            self.gpu.queue().submit([encoder.finish()]);
        }
        get(&self.gpu, &all, seeds as usize)
    }

    fn rows(&self) -> Vec<Row> {
        let all: Vec<Row> = get(&self.gpu, &self.rows, self.lanes + 1);
        all[1..].to_vec()
    }
}

/// The probabilities that a sampling gives, in f64, and by how much the closest token misses or makes
/// a cut, as a share of the cut.
fn reference(logits: &[f32], sampling: &Sampling, seen: &[u32]) -> (Vec<f64>, f64) {
    let temperature = f64::from(sampling.temperature);
    let penalty = f64::from(sampling.repetition_penalty);
    let mut scaled: Vec<f64> = logits.iter().map(|l| f64::from(*l)).collect();
    let mut once = seen.to_vec();
    once.sort_unstable();
    once.dedup();
    for token in once {
        let l = &mut scaled[token as usize];
        *l = if *l > 0.0 { *l / penalty } else { *l * penalty };
    }
    let top = scaled.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l));
    let weights: Vec<f64> = scaled
        .iter()
        .map(|l| ((l - top) / temperature).exp())
        .collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    let (mut kept, mut margin) = (weights.len(), f64::INFINITY);
    let mut cut = |kept: &mut usize, at: usize, value: f64, last: f64, next: f64| {
        *kept = at;
        margin = margin.min((last - value).abs().min((value - next).abs()) / value);
    };
    let weight = |i: usize| order.get(i).map_or(0.0, |t| weights[*t]);
    if sampling.min_p > 0.0 {
        let least = f64::from(sampling.min_p);
        let at = order.iter().filter(|t| weights[**t] >= least).count();
        cut(&mut kept, at, least, weight(at - 1), weight(at));
    }
    let k = sampling.top_k as usize;
    if k > 0 && k < kept {
        let between = (weight(k - 1) + weight(k)) / 2.0;
        cut(&mut kept, k, between, weight(k - 1), weight(k));
    }
    if sampling.top_p < 1.0 {
        let total: f64 = (0..kept).map(weight).sum();
        let goal = f64::from(sampling.top_p) * total;
        let (mut sum, mut at) = (0.0, 0);
        while sum < goal && at < kept {
            sum += weight(at);
            at += 1;
        }
        // The order of equals must not matter, and the sums must miss the goal.
        let apart = (weight(at - 1) - weight(at)) / weight(at - 1);
        cut(&mut kept, at, goal, sum, sum - weight(at - 1));
        margin = margin.min(apart);
    }
    let mut probabilities = vec![0.0; weights.len()];
    let total: f64 = (0..kept).map(weight).sum();
    for &token in &order[..kept] {
        probabilities[token] = weights[token] / total;
    }
    (probabilities, margin)
}

/// The shader's draw for a seed and a step.
fn draw(seed: u32, step: u32) -> f64 {
    let mut v = [seed, step, 0x9e37_79b9]
        .map(|x: u32| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mix = |v: &mut [u32; 3]| {
        for (i, a, b) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
            v[i] = v[i].wrapping_add(v[a].wrapping_mul(v[b]));
        }
    };
    mix(&mut v);
    v = v.map(|x| x ^ (x >> 16));
    mix(&mut v);
    f64::from(v[0] >> 8) / f64::from(1 << 24)
}

/// Whether `token` is what the draw `u` picks, give or take `slack` of probability.
fn picks(probabilities: &[f64], token: u32, u: f64, slack: f64) -> bool {
    let before: f64 = probabilities[..token as usize].iter().sum();
    let p = probabilities[token as usize];
    p > 0.0 && u >= before - slack && u <= before + p + slack
}

/// Pearson's statistic of `counts` against `probabilities`, and a bound that it exceeds with a
/// probability of at most e^-20 where they are right (Laurent and Massart, 2000). Rare tokens count as one.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> (f64, f64) {
    let total: usize = counts.iter().sum();
    let (mut statistic, mut classes) = (0.0, 0.0f64);
    let (mut rare_seen, mut rare_expected) = (0.0, 0.0);
    for (&count, p) in counts.iter().zip(probabilities) {
        let expected = p * total as f64;
        if expected < 8.0 {
            rare_seen += count as f64;
            rare_expected += expected;
        } else {
            statistic += (count as f64 - expected).powi(2) / expected;
            classes += 1.0;
        }
    }
    if rare_expected > 0.0 {
        statistic += (rare_seen - rare_expected).powi(2) / rare_expected.max(8.0);
        classes += 1.0;
    }
    let t = 20.0;
    let freedom = (classes - 1.0).max(1.0);
    (statistic, freedom + 2.0 * (freedom * t).sqrt() + 2.0 * t)
}

fn counts(tokens: impl Iterator<Item = u32>, vocab: usize) -> Vec<usize> {
    let mut counts = vec![0; vocab];
    for token in tokens {
        counts[token as usize] += 1;
    }
    counts
}

/// Random logits and seen tokens for which no cut is close.
fn clear_case(
    rng: &mut StdRng,
    vocab: usize,
    spread: f32,
    sampling: &Sampling,
) -> (Vec<f32>, Vec<u32>, Vec<f64>) {
    for _ in 0..200 {
        let logits = normal(rng, vocab, spread);
        let seen: Vec<u32> = (0..vocab / 4)
            .map(|_| rng.random_range(0..vocab as u32))
            .collect();
        let (probabilities, margin) = reference(&logits, sampling, &seen);
        if margin > 1e-5 {
            return (logits, seen, probabilities);
        }
    }
    panic!("no clear case for {sampling:?}");
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_among_equals() {
    let mut rng = seeded("greedy");
    let sampling = Sampling::default();
    for (name, gpu) in variants() {
        for vocab in [1, 2, 97, 256, 257, 3072, 32_064] {
            let bench = Bench::new(&gpu, 3, vocab);
            for case in 0..8 {
                let shift = [0.0, 40.0, -40.0, 1e-3][case % 4];
                let spread = [1.0, 1e-3][case / 4];
                let mut logits: Vec<f32> = normal(&mut rng, 3 * vocab, spread)
                    .into_iter()
                    .map(|l| l + shift)
                    .collect();
                for of_lane in logits.chunks_exact_mut(vocab) {
                    let top = of_lane.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
                    // Equals of the largest, and floats right below it at lower ids.
                    for _ in 0..3 {
                        of_lane[rng.random_range(0..vocab)] = top;
                        of_lane[rng.random_range(0..vocab.div_ceil(2))] = top.next_down();
                    }
                }
                bench.start(&logits, &sampling, &[], &[]);
                let got = bench.draw(1);
                for (lane, of_lane) in logits.chunks_exact(vocab).enumerate() {
                    let top = of_lane.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
                    let wanted = of_lane.iter().position(|l| *l == top).unwrap();
                    assert_eq!(
                        got[lane].token as usize, wanted,
                        "{name}, vocab {vocab}, shift {shift}, spread {spread}, lane {lane}"
                    );
                    assert!(!got[lane].stopped() && !got[lane].not_finite() && !got[lane].idle());
                }
            }
        }
    }
}

#[test]
fn every_parameter_picks_what_the_reference_picks() {
    let mut rng = seeded("sampling");
    let plain = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    for (name, gpu) in variants() {
        for (vocab, steps) in [(97, 60), (3072, 20), (32_064, 4)] {
            let bench = Bench::new(&gpu, 1, vocab);
            for sampling in [
                plain,
                Sampling {
                    temperature: 0.3,
                    ..plain
                },
                Sampling { top_k: 7, ..plain },
                Sampling { top_k: 1, ..plain },
                Sampling {
                    top_k: 1 << 20,
                    ..plain
                },
                Sampling {
                    top_p: 0.7,
                    ..plain
                },
                Sampling {
                    top_p: 0.01,
                    ..plain
                },
                Sampling {
                    min_p: 0.05,
                    ..plain
                },
                Sampling {
                    repetition_penalty: 1.7,
                    ..plain
                },
                Sampling {
                    temperature: 1.4,
                    top_k: 40,
                    top_p: 0.9,
                    min_p: 0.02,
                    repetition_penalty: 1.2,
                    ..plain
                },
            ] {
                let sampling = Sampling {
                    seed: rng.random(),
                    ..sampling
                };
                let (logits, mut seen, mut probabilities) =
                    clear_case(&mut rng, vocab, 2.0, &sampling);
                bench.start(&logits, &sampling, &[], &[&seen]);
                for (step, got) in bench.draw(steps).into_iter().enumerate() {
                    let what = format!("{name}, vocab {vocab}, {sampling:?}, step {step}");
                    assert_eq!(got.step as usize, step, "{what}");
                    let u = draw(sampling.seed, step as u32);
                    assert!(
                        picks(&probabilities, got.token, u, 2e-5),
                        "{what}: token {} of probability {:.2e} for the draw {u}",
                        got.token,
                        probabilities[got.token as usize]
                    );
                    // A token that was sampled counts as seen from then on.
                    seen.push(got.token);
                    let (next, margin) = reference(&logits, &sampling, &seen);
                    probabilities = next;
                    if margin < 1e-5 {
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn draws_have_the_right_distribution() {
    let mut rng = seeded("distribution");
    let gpu = plain();
    let vocab = 97;
    let bench = Bench::new(&gpu, 1, vocab);
    let sampling = Sampling {
        temperature: 0.8,
        min_p: 0.03,
        seed: rng.random(),
        ..Sampling::default()
    };
    let (logits, _, _) = clear_case(&mut rng, vocab, 1.0, &sampling);
    let (probabilities, _) = reference(&logits, &sampling, &[]);

    // Over the steps of one seed; min-p alone needs no search, so that many draws are quick.
    bench.start(&logits, &sampling, &[], &[]);
    let of_steps = bench.draw(3000);
    let of_steps = counts(of_steps.iter().map(|s| s.token), vocab);
    // Over seeds, at the first step: neighbouring ones, as a visitor would try.
    let of_seeds = bench.first_of_seeds(&logits, &sampling, 1000);
    let of_seeds = counts(of_seeds.iter().map(|s| s.token), vocab);

    let (wrong, _) = reference(
        &logits,
        &Sampling {
            temperature: 2.0,
            ..sampling
        },
        &[],
    );
    for (what, counts) in [("steps", of_steps), ("seeds", of_seeds)] {
        for (token, (&count, &p)) in counts.iter().zip(&probabilities).enumerate() {
            assert!(
                (count > 0) == (p > 0.0) || (count == 0 && p < 0.01),
                "{what}: token {token} of probability {p:.4} came {count} times"
            );
        }
        let (statistic, bound) = chi_square(&counts, &probabilities);
        println!("{what}: {statistic:.1}, at most {bound:.1}");
        assert!(statistic < bound, "{what}: {statistic} above {bound}");
        // The bound can fail: another temperature is told apart.
        let (statistic, bound) = chi_square(&counts, &wrong);
        assert!(statistic > bound, "{what}: {statistic} below {bound}");
    }
}

#[test]
fn a_seed_repeats_itself_and_lanes_agree() {
    let mut rng = seeded("seeds");
    let vocab = 3072;
    for (name, gpu) in variants() {
        let bench = Bench::new(&gpu, 5, vocab);
        let of_lane = normal(&mut rng, vocab, 1.0);
        let logits: Vec<f32> = (0..5).flat_map(|_| of_lane.clone()).collect();
        let sampling = Sampling {
            temperature: 1.0,
            seed: rng.random(),
            ..Sampling::default()
        };
        let go = |seed: u32| {
            bench.start(&logits, &Sampling { seed, ..sampling }, &[], &[]);
            bench.draw(12)
        };
        let (first, again, other) = (
            go(sampling.seed),
            go(sampling.seed),
            go(sampling.seed.wrapping_add(1)),
        );
        assert_eq!(first, again, "{name}");
        assert_ne!(first, other, "{name}");
        for lanes in first.chunks_exact(5) {
            assert!(lanes.iter().all(|s| s.token == lanes[0].token), "{name}");
        }
    }
}

#[test]
fn a_tiny_temperature_is_greedy() {
    let mut rng = seeded("tiny temperature");
    let gpu = plain();
    let bench = Bench::new(&gpu, 1, 97);
    for temperature in [1e-4, 1e-20, 1e-40] {
        let mut logits = normal(&mut rng, 97, 1.0);
        let best = rng.random_range(0..97);
        logits[best] = 5.0;
        let sampling = Sampling {
            temperature,
            top_p: 0.9,
            seed: rng.random(),
            ..Sampling::default()
        };
        bench.start(&logits, &sampling, &[], &[]);
        for got in bench.draw(5) {
            assert_eq!(got.token as usize, best, "temperature {temperature:e}");
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_ends_its_lane_only() {
    let mut rng = seeded("not finite");
    for (name, gpu) in variants() {
        for vocab in [97, 3072] {
            let bench = Bench::new(&gpu, 4, vocab);
            for temperature in [0.0, 0.9] {
                let mut logits = normal(&mut rng, 4 * vocab, 1.0);
                for (lane, bad) in [(0, f32::NAN), (1, f32::INFINITY), (3, f32::NEG_INFINITY)] {
                    logits[lane * vocab + rng.random_range(0..vocab)] = bad;
                }
                let sampling = Sampling {
                    temperature,
                    top_k: 5,
                    ..Sampling::default()
                };
                bench.start(&logits, &sampling, &[], &[]);
                let got = bench.draw(1);
                let bad: Vec<bool> = got.iter().map(Sampled::not_finite).collect();
                assert_eq!(bad, [true, true, false, true], "{name}, vocab {vocab}");
                let done: Vec<bool> = bench
                    .rows()
                    .iter()
                    .map(|row| row.flags & ROW_DONE != 0)
                    .collect();
                assert_eq!(done, bad, "{name}");
                assert!(got.iter().all(|s| (s.token as usize) < vocab), "{name}");
            }
        }
    }
}

#[test]
fn stop_tokens_end_a_lane_and_rows_advance() {
    let mut rng = seeded("stops");
    for (name, gpu) in variants() {
        let vocab = 97;
        let bench = Bench::new(&gpu, 3, vocab);
        // Lane 0 gives its first stop token, lane 2 its last, lane 1 goes on; a stop token outside of the
        // vocabulary is no harm.
        let mut stops: Vec<u32> = (0..32).map(|i| 3 * i + 2).collect();
        let tokens = [stops[0], 1, stops[31]];
        stops.push(90_000);
        let mut logits = normal(&mut rng, 3 * vocab, 1.0);
        for (lane, token) in tokens.iter().enumerate() {
            logits[lane * vocab + *token as usize] = 9.0;
        }
        bench.start(&logits, &Sampling::default(), &stops, &[]);
        let first = bench.draw(1);
        for (lane, got) in first.iter().enumerate() {
            let stopped = lane != 1;
            assert_eq!(
                (got.token, got.step, got.stopped(), got.idle()),
                (tokens[lane], 0, stopped, false),
                "{name}, lane {lane}"
            );
        }
        let row = |lane: usize, ahead: u32| Row {
            token: tokens[lane],
            lane: lane as u32,
            position: 10 * (lane as u32 + 1) + ahead,
            flags: ROW_GENERATED | if lane == 1 { 0 } else { ROW_DONE },
        };
        assert_eq!(bench.rows(), [row(0, 1), row(1, 1), row(2, 1)], "{name}");

        let later = bench.draw(2);
        for (i, got) in later.iter().enumerate() {
            let (lane, step) = (i % 3, 1 + i as u32 / 3);
            if lane == 1 {
                assert_eq!(
                    (got.token, got.step, got.idle()),
                    (1, step, false),
                    "{name}"
                );
            } else {
                assert!(got.idle() && !got.stopped(), "{name}, lane {lane}");
            }
        }
        // Lanes that have stopped stay where they were.
        assert_eq!(bench.rows(), [row(0, 1), row(1, 3), row(2, 1)], "{name}");
    }
}

#[test]
fn a_penalty_makes_greedy_move_on() {
    let mut rng = seeded("penalty");
    for (name, gpu) in variants() {
        let vocab = 97;
        let bench = Bench::new(&gpu, 2, vocab);
        // All negative in lane 1, where the penalty multiplies.
        let mut logits = normal(&mut rng, 2 * vocab, 0.1);
        for l in &mut logits[vocab..] {
            *l -= 5.0;
        }
        for (lane, base) in [(0, 4.0), (1, -4.0)] {
            for (i, token) in [50, 20, 80].into_iter().enumerate() {
                logits[lane * vocab + token] = base - 0.1 * i as f32;
            }
        }
        let sampling = Sampling {
            repetition_penalty: 1.3,
            ..Sampling::default()
        };
        // 50 was in lane 1's prompt; a token outside of the vocabulary is no harm.
        bench.start(&logits, &sampling, &[], &[&[], &[50, 90_000]]);
        let tokens: Vec<u32> = bench.draw(3).iter().map(|s| s.token).collect();
        let (first, second): (Vec<u32>, Vec<u32>) =
            tokens.chunks_exact(2).map(|t| (t[0], t[1])).unzip();
        assert_eq!(first, [50, 20, 80], "{name}");
        assert_eq!(second[..2], [20, 80], "{name}");
    }
}
