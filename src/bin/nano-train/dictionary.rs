//! Training a TopK dictionary on the residual, with hand-written gradients: only the active features
//! of a row have any, so a step costs little more than its encoding.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::linalg::{axpy, dot, norm};
use crate::model::normal;
use crate::sae::{Codes, Sae, topk};

/// How large a dictionary is, and what its random choices come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    pub features: usize,
    /// Active features of a row.
    pub k: usize,
    pub seed: u64,
}

const STEPS: usize = 700;
const BATCH: usize = 2048;
const RATE: f32 = 1.5e-3;
const WARMUP: usize = 50;
/// The last share of the steps, over which the rate falls to nothing.
const DECAY: f32 = 0.4;
/// A feature that was silent for this many steps is dead; dead ones learn the error.
const DEAD_AFTER: u32 = 60;
const AUXILIARY: usize = 64;
const AUXILIARY_WEIGHT: f32 = 1.0 / 32.0;
const BETAS: (f32, f32) = (0.9, 0.999);

/// Gradients in the layout of a dictionary's own tensors.
struct Gradients {
    encoder: Vec<f32>,
    bias: Vec<f32>,
    decoder: Vec<f32>,
    b_dec: Vec<f32>,
}

/// Adam's moments of one tensor.
struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    fn new(n: usize) -> Self {
        Self {
            mean: vec![0.0; n],
            square: vec![0.0; n],
        }
    }

    fn step(&mut self, w: &mut [f32], g: &[f32], rate: f32, step: usize) {
        let (b1, b2) = BETAS;
        let (c1, c2) = (1.0 - b1.powi(step as i32), 1.0 - b2.powi(step as i32));
        for (((w, g), m), s) in w
            .iter_mut()
            .zip(g)
            .zip(&mut self.mean)
            .zip(&mut self.square)
        {
            *m = b1 * *m + (1.0 - b1) * g;
            *s = b2 * *s + (1.0 - b2) * g * g;
            *w -= rate * (*m / c1) / ((*s / c2).sqrt() + 1e-8);
        }
    }
}

/// The mean row of `x` (`[rows, dim]`).
fn mean(x: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; dim];
    for row in x.chunks_exact(dim) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += *v as f64);
    }
    let n = (x.len() / dim) as f64;
    sum.into_iter().map(|s| (s / n) as f32).collect()
}

/// The mean squared distance of the rows from their mean.
fn variance(x: &[f32], dim: usize) -> f64 {
    let m = mean(x, dim);
    let sum: f64 = x
        .chunks_exact(dim)
        .flat_map(|row| {
            row.iter()
                .zip(&m)
                .map(|(a, b)| (*a as f64 - *b as f64).powi(2))
        })
        .sum();
    sum / (x.len() / dim) as f64
}

fn normalise_rows(w: &mut [f32], dim: usize) {
    for row in w.chunks_exact_mut(dim) {
        let inv = 1.0 / norm(row).max(1e-12);
        row.iter_mut().for_each(|v| *v *= inv);
    }
}

/// A fresh dictionary for inputs with mean `b_dec`: encoder and decoder equal, of random unit rows.
fn fresh(b_dec: Vec<f32>, features: usize, k: usize, rng: &mut StdRng) -> Sae {
    let hidden = b_dec.len();
    let mut decoder: Vec<f32> = (0..features * hidden).map(|_| normal(rng)).collect();
    normalise_rows(&mut decoder, hidden);
    Sae {
        hidden,
        features,
        k,
        encoder: decoder.clone(),
        bias: vec![0.0; features],
        decoder,
        b_dec,
    }
}

/// Adds the gradients of `|target - decode(codes)|^2 * scale` by the active features' parameters, the
/// target fixed, to `g`; `through_b_dec` where the reconstruction contains `b_dec`. Returns the
/// residual `target - decode(codes)` and the unscaled loss.
fn accumulate(
    sae: &Sae,
    centred: &[f32],
    target: &[f32],
    codes: &Codes,
    scale: f32,
    through_b_dec: bool,
    g: &mut Gradients,
) -> (Vec<f32>, f64) {
    let d = sae.hidden;
    let mut error = target.to_vec();
    let mut loss = 0.0;
    for (i, error) in error.chunks_exact_mut(d).enumerate() {
        for (j, v) in codes.row(i) {
            axpy(error, -v, sae.direction(j));
        }
        loss += dot(error, error) as f64;
        let centred = &centred[i * d..][..d];
        if through_b_dec {
            axpy(&mut g.b_dec, -2.0 * scale, error);
        }
        for (j, v) in codes.row(i) {
            axpy(&mut g.decoder[j * d..][..d], -2.0 * scale * v, error);
            let dv = -2.0 * scale * dot(error, sae.direction(j));
            axpy(&mut g.encoder[j * d..][..d], dv, centred);
            g.bias[j] += dv;
            axpy(&mut g.b_dec, -dv, &sae.encoder[j * d..][..d]);
        }
    }
    (error, loss)
}

/// The loss of a batch `x` (`[rows, hidden]`, normalised) relative to `variance`, and its gradients.
/// `silent` counts the steps since each feature's last activation and is updated.
fn gradients(sae: &Sae, x: &[f32], variance: f32, silent: &mut [u32]) -> (f64, Gradients) {
    let (d, f) = (sae.hidden, sae.features);
    let rows = x.len() / d;
    let mut g = Gradients {
        encoder: vec![0.0; f * d],
        bias: vec![0.0; f],
        decoder: vec![0.0; f * d],
        b_dec: vec![0.0; d],
    };
    let mut centred = x.to_vec();
    for row in centred.chunks_exact_mut(d) {
        axpy(row, -1.0, &sae.b_dec);
    }
    let mut pre = sae.preactivations(x);
    let codes = topk(&pre, f, sae.k);
    let scale = 1.0 / (rows as f32 * variance);
    // `x - b_dec - f W_dec` is the error, so the centred input serves as the target.
    let (error, loss) = accumulate(sae, &centred, &centred, &codes, scale, true, &mut g);
    silent.iter_mut().for_each(|s| *s += 1);
    for i in 0..rows {
        for (j, _) in codes.row(i) {
            silent[j] = 0;
        }
    }
    let dead: Vec<bool> = silent.iter().map(|s| *s > DEAD_AFTER).collect();
    let count = dead.iter().filter(|d| **d).count();
    if count >= AUXILIARY / 2 {
        for row in pre.chunks_exact_mut(f) {
            row.iter_mut()
                .zip(&dead)
                .filter(|(_, dead)| !**dead)
                .for_each(|(v, _)| *v = 0.0);
        }
        let codes = topk(&pre, f, AUXILIARY.min(count));
        let scale = scale * AUXILIARY_WEIGHT;
        accumulate(sae, &centred, &error, &codes, scale, false, &mut g);
    }
    (loss * scale as f64, g)
}

/// Trains a dictionary on residuals `x` (`[rows, hidden]`). Its inputs are divided by their mean norm
/// over the root of their size while training; the result takes the residual as it is, its
/// activations staying in the normalised units, so that clamp values compare across layers.
pub fn train(
    x: &[f32],
    hidden: usize,
    shape: Shape,
    mut report: impl FnMut(usize, f64, usize),
) -> Sae {
    let mut rng = StdRng::seed_from_u64(shape.seed);
    let rows = x.len() / hidden;
    let sample = &x[..rows.min(50_000) * hidden];
    let lengths: f32 = sample.chunks_exact(hidden).map(norm).sum();
    let unit = lengths / (sample.len() / hidden) as f32 / (hidden as f32).sqrt();
    let variance = (variance(sample, hidden) / (unit * unit) as f64) as f32;
    let b_dec = mean(sample, hidden).iter().map(|v| v / unit).collect();
    let mut sae = fresh(b_dec, shape.features, shape.k, &mut rng);
    let mut moments = [
        Adam::new(shape.features * hidden),
        Adam::new(shape.features),
        Adam::new(shape.features * hidden),
        Adam::new(hidden),
    ];
    let mut silent = vec![0; shape.features];
    let mut batch = vec![0.0; BATCH * hidden];
    for step in 0..STEPS {
        for row in batch.chunks_exact_mut(hidden) {
            let i = rng.random_range(0..rows);
            row.iter_mut()
                .zip(&x[i * hidden..][..hidden])
                .for_each(|(b, v)| *b = v / unit);
        }
        let (loss, mut g) = gradients(&sae, &batch, variance, &mut silent);
        // Unit decoder rows: the gradient along a row is of no use.
        for (g, w) in g
            .decoder
            .chunks_exact_mut(hidden)
            .zip(sae.decoder.chunks_exact(hidden))
        {
            axpy(g, -dot(g, w), w);
        }
        let left = (STEPS - step) as f32 / (STEPS as f32 * DECAY);
        let rate = RATE * ((step + 1) as f32 / WARMUP as f32).min(1.0) * left.min(1.0);
        let pairs = [
            (&mut sae.encoder, &g.encoder),
            (&mut sae.bias, &g.bias),
            (&mut sae.decoder, &g.decoder),
            (&mut sae.b_dec, &g.b_dec),
        ];
        for (adam, (w, g)) in moments.iter_mut().zip(pairs) {
            adam.step(w, g, rate, step + 1);
        }
        normalise_rows(&mut sae.decoder, hidden);
        if step % 200 == 0 || step + 1 == STEPS {
            report(
                step,
                loss,
                silent.iter().filter(|s| **s > DEAD_AFTER).count(),
            );
        }
    }
    sae.fold(unit);
    sae
}

/// How well a dictionary describes residuals it was not trained on.
pub struct Quality {
    /// The fraction of variance unexplained.
    pub fvu: f64,
    /// Active features of a row on average.
    pub l0: f64,
    /// Features that no row activates.
    pub dead: usize,
}

/// Measures `sae` on `x` (`[rows, hidden]`).
pub fn quality(sae: &Sae, x: &[f32]) -> Quality {
    let d = sae.hidden;
    let (mut error, mut active) = (0.0, 0);
    let mut seen = vec![false; sae.features];
    for block in x.chunks(4096 * d) {
        let codes = sae.encode(block);
        let reconstruction = sae.decode(&codes);
        error += block
            .iter()
            .zip(&reconstruction)
            .map(|(a, b)| (*a as f64 - *b as f64).powi(2))
            .sum::<f64>();
        for i in 0..codes.rows() {
            for (j, _) in codes.row(i) {
                seen[j] = true;
                active += 1;
            }
        }
    }
    let rows = (x.len() / d) as f64;
    Quality {
        fvu: error / (rows * variance(x, d)),
        l0: active as f64 / rows,
        dead: seen.iter().filter(|s| !**s).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The training loss in `f64`, with `codes`' choice of active features and, for the auxiliary
    /// part, `dead`'s, so that finite differences do not cross a change of choice.
    fn loss(
        sae: &Sae,
        x: &[f32],
        variance: f64,
        active: &[Vec<usize>],
        dead: Option<(&[Vec<usize>], &[f64])>,
    ) -> f64 {
        let d = sae.hidden;
        let mut sum = 0.0;
        for (i, row) in x.chunks_exact(d).enumerate() {
            let decode = |features: &[usize], base: &mut Vec<f64>| {
                for &j in features {
                    let pre: f64 = (0..d)
                        .map(|c| {
                            sae.encoder[j * d + c] as f64 * (row[c] as f64 - sae.b_dec[c] as f64)
                        })
                        .sum::<f64>()
                        + sae.bias[j] as f64;
                    for (b, w) in base.iter_mut().zip(&sae.decoder[j * d..][..d]) {
                        *b -= pre * *w as f64;
                    }
                }
            };
            let mut error: Vec<f64> = (0..d)
                .map(|c| row[c] as f64 - sae.b_dec[c] as f64)
                .collect();
            decode(&active[i], &mut error);
            sum += error.iter().map(|e| e * e).sum::<f64>();
            if let Some((dead, fixed)) = dead {
                let mut rest = fixed[i * d..][..d].to_vec();
                decode(&dead[i], &mut rest);
                sum += AUXILIARY_WEIGHT as f64 * rest.iter().map(|e| e * e).sum::<f64>();
            }
        }
        sum / ((x.len() / d) as f64 * variance)
    }

    #[test]
    fn gradients_match_finite_differences() {
        let seed: u64 = rand::rng().random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (d, f, rows, variance) = (9, 90, 6, 2.5f32);
        let mut sae = crate::sae::tests::random(seed, d, f, 5);
        let x: Vec<f32> = (0..rows * d).map(|_| normal(&mut rng)).collect();
        // Half of the features count as dead.
        let counts: Vec<u32> = (0..f)
            .map(|j| if j % 2 == 0 { DEAD_AFTER + 5 } else { 0 })
            .collect();
        let mut silent = counts.clone();
        let (value, g) = gradients(&sae, &x, variance, &mut silent);
        let codes = sae.encode(&x);
        let active: Vec<Vec<usize>> = (0..rows)
            .map(|i| codes.row(i).map(|(j, _)| j).collect())
            .collect();
        let dead: Vec<bool> = silent.iter().map(|s| *s > DEAD_AFTER).collect();
        let count = dead.iter().filter(|d| **d).count();
        assert!(count >= AUXILIARY / 2, "the auxiliary loss is not tested");
        let mut pre = sae.preactivations(&x);
        pre.chunks_exact_mut(f).for_each(|row| {
            row.iter_mut()
                .zip(&dead)
                .filter(|(_, d)| !**d)
                .for_each(|(v, _)| *v = 0.0)
        });
        let chosen = topk(&pre, f, AUXILIARY.min(count));
        let chosen: Vec<Vec<usize>> = (0..rows)
            .map(|i| chosen.row(i).map(|(j, _)| j).collect())
            .collect();
        let reconstruction = sae.decode(&codes);
        let fixed: Vec<f64> = x
            .iter()
            .zip(&reconstruction)
            .map(|(a, b)| (a - b) as f64)
            .collect();
        let plain = loss(&sae, &x, variance as f64, &active, None);
        assert!(
            (value - plain).abs() < 1e-4 * plain,
            "loss {value}, not {plain}"
        );
        type Tensor = fn(&mut Sae) -> &mut Vec<f32>;
        let cases: [(Tensor, &Vec<f32>, &str); 4] = [
            (|s| &mut s.encoder, &g.encoder, "encoder"),
            (|s| &mut s.bias, &g.bias, "bias"),
            (|s| &mut s.decoder, &g.decoder, "decoder"),
            (|s| &mut s.b_dec, &g.b_dec, "b_dec"),
        ];
        for (tensor, gradient, name) in cases {
            let mut largest = 0.0f64;
            for (i, expected) in gradient.iter().enumerate() {
                let old = tensor(&mut sae)[i];
                let at = |v: f32, sae: &mut Sae| {
                    tensor(sae)[i] = v;
                    loss(sae, &x, variance as f64, &active, Some((&chosen, &fixed)))
                };
                let h = 1e-3;
                let difference = (at(old + h, &mut sae) - at(old - h, &mut sae))
                    / ((old + h) as f64 - (old - h) as f64);
                tensor(&mut sae)[i] = old;
                largest = largest.max(difference.abs());
                assert!(
                    (difference - *expected as f64).abs() < 2e-3 + 5e-3 * difference.abs(),
                    "{name}[{i}]: {expected}, not {difference}"
                );
            }
            assert!(largest > 0.05, "{name} has no gradient to compare");
        }
    }

    #[test]
    fn a_fresh_dictionary_has_unit_rows() {
        let sae = fresh(vec![0.0; 7], 11, 3, &mut StdRng::seed_from_u64(5));
        for row in sae.decoder.chunks_exact(7) {
            assert!((norm(row) - 1.0).abs() < 1e-5);
        }
    }
}
