//! Linear probes: logistic regression on vectors of the residual stream.

use super::stats::{RocPoint, auc, roc};
use crate::random::Random;

/// Steps of the solver at most.
const STEPS: usize = 1000;
/// Pairs of steps and changes of the gradient that the solver remembers.
const MEMORY: usize = 10;
/// The solver stops where the gradient's largest element is below this share of the samples' number.
const TOLERANCE: f64 = 1e-9;

/// What an element varies by, as a share of its mean, that is rounding and nothing else.
const ROUNDING: f64 = 1e-5;

/// Vectors with a yes or no.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    /// `[n, width]`
    pub vectors: &'a [f32],
    /// `[n]`
    pub labels: &'a [bool],
}

impl Samples<'_> {
    /// Elements of a vector; 0 of nothing.
    fn width(&self) -> usize {
        self.vectors.len() / self.labels.len().max(1)
    }

    /// The samples `of`.
    fn pick(&self, of: &[usize]) -> (Vec<f32>, Vec<bool>) {
        let width = self.width();
        let vectors = of.iter().flat_map(|&i| &self.vectors[i * width..][..width]);
        let labels = of.iter().map(|&i| self.labels[i]);
        (vectors.copied().collect(), labels.collect())
    }
}

/// A linear probe of raw vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// `[width]`
    pub weights: Vec<f32>,
    /// What is added to the product.
    pub bias: f32,
}

impl Probe {
    /// The probability that it gives a vector, `[width]`.
    pub fn score(&self, vector: &[f32]) -> f64 {
        let products = self.weights.iter().zip(vector);
        let sum: f64 = products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        logistic(sum + f64::from(self.bias))
    }
}

fn logistic(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Fits a probe: the minimum of the samples' surprise, in nats, and `ridge` / 2 times the squared weights of
/// the standardised elements (the bias is free). Elements that do not vary, rounding aside, weigh nothing. The solver is
/// L-BFGS (Liu and Nocedal 1989); the problem has one minimum.
pub fn fit(samples: Samples<'_>, ridge: f64) -> Probe {
    let width = samples.width();
    let n = samples.labels.len().max(1) as f64;
    let mut means = vec![0.0; width];
    let mut scales = vec![0.0; width];
    for row in samples.vectors.chunks_exact(width.max(1)) {
        means
            .iter_mut()
            .zip(row)
            .for_each(|(m, v)| *m += f64::from(*v) / n);
    }
    for row in samples.vectors.chunks_exact(width.max(1)) {
        for ((s, m), v) in scales.iter_mut().zip(&means).zip(row) {
            *s += (f64::from(*v) - m).powi(2) / n;
        }
    }
    for (scale, mean) in scales.iter_mut().zip(&means) {
        let deviation = scale.sqrt();
        let varies = deviation > ROUNDING * mean.abs();
        *scale = if varies { deviation.recip() } else { 0.0 };
    }
    let mut standard = Vec::with_capacity(samples.vectors.len());
    for row in samples.vectors.chunks_exact(width.max(1)) {
        let values = row.iter().zip(&means).zip(&scales);
        standard.extend(values.map(|((v, m), s)| (f64::from(*v) - m) * s));
    }
    let objective = Objective {
        vectors: &standard,
        labels: samples.labels,
        ridge,
    };
    let solved = minimise(&objective, vec![0.0; width + 1]);
    let weights: Vec<f64> = solved.iter().zip(&scales).map(|(w, s)| w * s).collect();
    let offset: f64 = weights.iter().zip(&means).map(|(w, m)| w * m).sum();
    Probe {
        weights: weights.iter().map(|w| *w as f32).collect(),
        bias: (solved[width] - offset) as f32,
    }
}

/// What is minimised; the bias is the last parameter.
struct Objective<'a> {
    /// `[n, width]`, standardised.
    vectors: &'a [f64],
    labels: &'a [bool],
    ridge: f64,
}

impl Objective<'_> {
    /// The value at `at`, whose gradient goes to `gradient`.
    fn value(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        let width = at.len() - 1;
        let (weights, bias) = (&at[..width], at[width]);
        gradient.fill(0.0);
        let mut value = 0.0;
        for (i, &label) in self.labels.iter().enumerate() {
            let row = &self.vectors[i * width..][..width];
            let z = bias + dot(weights, row);
            let signed = if label { z } else { -z };
            // ln(1 + exp(-signed)), whatever its size.
            value += (-signed).max(0.0) + (-signed.abs()).exp().ln_1p();
            let slope = logistic(z) - f64::from(u8::from(label));
            add(&mut gradient[..width], slope, row);
            gradient[width] += slope;
        }
        add(&mut gradient[..width], self.ridge, weights);
        value + 0.5 * self.ridge * dot(weights, weights)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to` += `by` * `what`
fn add(to: &mut [f64], by: f64, what: &[f64]) {
    to.iter_mut().zip(what).for_each(|(t, w)| *t += by * w);
}

/// L-BFGS with a backtracking line search.
fn minimise(objective: &Objective<'_>, mut at: Vec<f64>) -> Vec<f64> {
    let small = TOLERANCE * objective.labels.len().max(1) as f64;
    let mut gradient = vec![0.0; at.len()];
    let mut value = objective.value(&at, &mut gradient);
    // Steps s and changes of the gradient y, with 1 / s y.
    let mut past: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..STEPS {
        if gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs())) <= small {
            break;
        }
        let mut way = gradient.clone();
        let mut shares = Vec::with_capacity(past.len());
        for (s, y, inverse) in past.iter().rev() {
            let share = inverse * dot(s, &way);
            add(&mut way, -share, y);
            shares.push(share);
        }
        let scale = match past.last() {
            Some((_, y, inverse)) => 1.0 / (inverse * dot(y, y)),
            None => 1.0 / dot(&gradient, &gradient).sqrt(),
        };
        way.iter_mut().for_each(|w| *w *= scale);
        for ((s, y, inverse), share) in past.iter().zip(shares.iter().rev()) {
            let back = inverse * dot(y, &way);
            add(&mut way, share - back, s);
        }
        let slope = -dot(&way, &gradient);
        let mut step = 1.0;
        let (mut next, mut after) = (at.clone(), vec![0.0; at.len()]);
        let mut found = false;
        // Armijo's condition; thirty halvings are beyond what f64 can tell apart.
        for _ in 0..30 {
            next.copy_from_slice(&at);
            add(&mut next, -step, &way);
            let there = objective.value(&next, &mut after);
            if there <= value + 1e-4 * step * slope {
                (value, found) = (there, true);
                break;
            }
            step *= 0.5;
        }
        if !found {
            break;
        }
        let s: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = after.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let product = dot(&s, &y);
        if product > 0.0 {
            if past.len() == MEMORY {
                past.remove(0);
            }
            past.push((s, y, 1.0 / product));
        }
        (at, gradient) = (next, after);
    }
    at
}

/// What cross-validation says of a probe.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The score of each sample by the probe of the folds that it is not in.
    pub scores: Vec<f64>,
    /// The area under their ROC curve.
    pub auc: f64,
    /// Their ROC curve.
    pub roc: Vec<RocPoint>,
}

/// Scores each sample by a probe fitted without its fold; `folds` of like size with like shares of both
/// labels, drawn from `seed`.
pub fn cross_validate(samples: Samples<'_>, ridge: f64, folds: usize, seed: u64) -> Validated {
    let fold_of = stratified(samples.labels, folds, seed);
    let width = samples.width();
    let mut scores = vec![0.5; samples.labels.len()];
    for fold in 0..folds {
        let members = |inside: bool| -> Vec<usize> {
            let all = fold_of.iter().enumerate();
            all.filter(|(_, f)| (**f == fold) == inside)
                .map(|(i, _)| i)
                .collect()
        };
        let (vectors, labels) = samples.pick(&members(false));
        let rest = Samples {
            vectors: &vectors,
            labels: &labels,
        };
        let probe = fit(rest, ridge);
        for i in members(true) {
            scores[i] = probe.score(&samples.vectors[i * width..][..width]);
        }
    }
    let of = |label: bool| -> Vec<f64> {
        let own = scores
            .iter()
            .zip(samples.labels)
            .filter(|(_, l)| **l == label);
        own.map(|(s, _)| *s).collect()
    };
    let (yes, no) = (of(true), of(false));
    Validated {
        auc: auc(&yes, &no),
        roc: roc(&yes, &no),
        scores,
    }
}

/// The fold of each sample: those of a label go round the folds in random order.
fn stratified(labels: &[bool], folds: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut fold_of = vec![0; labels.len()];
    let mut next = 0;
    for label in [false, true] {
        let own: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == label).collect();
        for i in random.pick(&own, own.len()) {
            fold_of[i] = next % folds.max(1);
            next += 1;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn fresh_rng() -> StdRng {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        StdRng::seed_from_u64(seed)
    }

    /// Vectors whose labels follow a planted direction, and the direction. Elements differ in mean and
    /// size.
    fn planted(rng: &mut StdRng, n: usize, width: usize, noise: f32) -> (Vec<f32>, Vec<bool>) {
        let way: Vec<f32> = (0..width).map(|_| rng.random_range(-1.0..1.0)).collect();
        let (mut vectors, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let row: Vec<f32> = (0..width).map(|_| rng.random_range(-1.0..1.0)).collect();
            let along: f32 = row.iter().zip(&way).map(|(a, b)| a * b).sum();
            labels.push(along + noise * rng.random_range(-1.0..1.0) > 0.2);
            let shown = row.iter().enumerate();
            vectors.extend(shown.map(|(i, v)| v * (1.0 + i as f32) + 5.0 * i as f32));
        }
        (vectors, labels)
    }

    /// The same minimum by plain gradient descent on standardised elements, one by one, to convergence.
    fn descended(samples: Samples<'_>, ridge: f64) -> Vec<f64> {
        let (n, width) = (samples.labels.len(), samples.width());
        let at = |i: usize, j: usize| f64::from(samples.vectors[i * width + j]);
        let column = |j: usize| -> (f64, f64) {
            let mean = (0..n).map(|i| at(i, j)).sum::<f64>() / n as f64;
            let square = (0..n).map(|i| (at(i, j) - mean).powi(2)).sum::<f64>() / n as f64;
            (mean, square.sqrt())
        };
        let columns: Vec<(f64, f64)> = (0..width).map(column).collect();
        let x = |i: usize, j: usize| (at(i, j) - columns[j].0) / columns[j].1;
        let mut theta = vec![0.0; width + 1];
        // 1 over a bound of the curvature: a quarter of the sum of squares, and the ridge.
        let rate = 1.0 / (0.25 * (n * (width + 1)) as f64 + ridge);
        for _ in 0..200_000 {
            let mut slope = vec![0.0; width + 1];
            for i in 0..n {
                let z = theta[width] + (0..width).map(|j| theta[j] * x(i, j)).sum::<f64>();
                let off = 1.0 / (1.0 + (-z).exp()) - f64::from(u8::from(samples.labels[i]));
                (0..width).for_each(|j| slope[j] += off * x(i, j));
                slope[width] += off;
            }
            (0..width).for_each(|j| slope[j] += ridge * theta[j]);
            (0..=width).for_each(|j| theta[j] -= rate * slope[j]);
            if slope.iter().all(|s| s.abs() < 1e-9) {
                break;
            }
        }
        let mut raw: Vec<f64> = (0..width).map(|j| theta[j] / columns[j].1).collect();
        let offset: f64 = (0..width).map(|j| raw[j] * columns[j].0).sum();
        raw.push(theta[width] - offset);
        raw
    }

    #[test]
    fn the_solver_meets_gradient_descent() {
        let mut rng = fresh_rng();
        for ridge in [0.3, 3.0] {
            let (vectors, labels) = planted(&mut rng, 40, 6, 0.5);
            let samples = Samples {
                vectors: &vectors,
                labels: &labels,
            };
            let probe = fit(samples, ridge);
            let reference = descended(samples, ridge);
            let found = probe.weights.iter().chain([&probe.bias]);
            for (found, expected) in found.zip(reference) {
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off <= 1e-5 * (1.0 + expected.abs()),
                    "{found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_planted_direction_is_found() {
        let mut rng = fresh_rng();
        let (vectors, labels) = planted(&mut rng, 400, 20, 0.0);
        let samples = Samples {
            vectors: &vectors,
            labels: &labels,
        };
        let validated = cross_validate(samples, 0.1, 5, 7);
        assert!(validated.auc > 0.97, "{}", validated.auc);
        // Labels without a cause are not predicted, though a probe that saw them would.
        let coin: Vec<bool> = (0..400).map(|_| rng.random()).collect();
        let samples = Samples {
            vectors: &vectors,
            labels: &coin,
        };
        let validated = cross_validate(samples, 0.1, 5, 7);
        // Five standard deviations of the area of 200 against 200 without a cause.
        assert!((validated.auc - 0.5).abs() < 0.15, "{}", validated.auc);
    }

    #[test]
    fn few_samples_and_dead_elements_do_no_harm() {
        let vectors = [1.0, 7.0, 2.0, 7.0, 3.0, 7.0, 4.0, 7.0];
        let labels = [false, false, true, true];
        let samples = Samples {
            vectors: &vectors,
            labels: &labels,
        };
        // Separable: without the ridge the weights would have no bound.
        let probe = fit(samples, 1e-3);
        assert_eq!(probe.weights[1], 0.0);
        assert!(probe.weights[0].is_finite() && probe.bias.is_finite());
        assert!(probe.score(&vectors[4..6]) > 0.9 && probe.score(&vectors[2..4]) < 0.1);
        // Nor does what varies by rounding alone, though it happens to go with the labels.
        let rounded = [1.0, 7.0, 2.0, 7.0, 3.0, 7.000_001, 4.0, 7.000_001];
        let probe = fit(
            Samples {
                vectors: &rounded,
                labels: &labels,
            },
            1e-3,
        );
        assert_eq!(probe.weights[1], 0.0);
        let one = Samples {
            vectors: &vectors[..4],
            labels: &labels[..2],
        };
        assert!(fit(one, 1.0).score(&vectors[..2]) < 0.5);
    }

    #[test]
    fn folds_hold_both_labels_alike() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        let labels: Vec<bool> = (0..53).map(|i| i % 3 == 0).collect();
        let folds = stratified(&labels, 5, seed);
        for fold in 0..5 {
            let size = |label: bool| {
                let all = folds.iter().zip(&labels);
                all.filter(|(f, l)| **f == fold && **l == label).count()
            };
            assert!((3..=4).contains(&size(true)) && (7..=7).contains(&size(false)));
        }
        assert_eq!(folds, stratified(&labels, 5, seed));
        assert_ne!(folds, stratified(&labels, 5, seed ^ 1));
    }
}
