//! Plain references in f64.

use phi3_steer::matrix::{Format, Prologue};
use phi3_steer::quant;

/// The weights `[n, k]` that a matrix of `format` stands for.
pub fn effective(weights: &[f32], k: usize, format: Format) -> Vec<f64> {
    let read_back = quant::dequantize(&quant::quantize(weights, k, format), k);
    read_back.into_iter().map(f64::from).collect()
}

/// `w [n, k]` times each row of `x [rows, k]`: `[rows, n]`.
pub fn product(w: &[f64], x: &[f64], k: usize) -> Vec<f64> {
    x.chunks_exact(k)
        .flat_map(|row| {
            w.chunks_exact(k)
                .map(move |weights| weights.iter().zip(row).map(|(a, b)| a * b).sum())
        })
        .collect()
}

/// `x [rows, k]` after a prologue with the vector `pre [k]`.
pub fn after(prologue: Prologue, x: &[f32], pre: &[f32], epsilon: f64) -> Vec<f64> {
    let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let pre: Vec<f64> = pre.iter().copied().map(f64::from).collect();
    match prologue {
        Prologue::None => x,
        Prologue::Norm => norm(&x, &pre, epsilon),
        Prologue::Subtract => x
            .chunks_exact(pre.len())
            .flat_map(|row| row.iter().zip(&pre).map(|(v, p)| v - p))
            .collect(),
    }
}

/// RMSNorm of each row.
pub fn norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    x.chunks_exact(weight.len())
        .flat_map(|row| {
            let squares: f64 = row.iter().map(|v| v * v).sum();
            let scale = (squares / row.len() as f64 + epsilon).sqrt().recip();
            row.iter().zip(weight).map(move |(v, w)| v * scale * w)
        })
        .collect()
}

/// The gate's activation.
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The rotary embedding of one head in Hugging Face's order: (j, j + rotary/2) turn together. LongRoPE
/// divides frequency j by `factors[j]` and multiplies cosines and sines by `size`.
pub fn rotate(head: &mut [f64], theta: f64, position: usize, factors: &[f64], size: f64) {
    let half = factors.len();
    for (j, factor) in factors.iter().enumerate() {
        let inverse = 1.0 / (factor * theta.powf(j as f64 / half as f64));
        let angle = position as f64 * inverse;
        let (a, b) = (head[j], head[j + half]);
        head[j] = (a * angle.cos() - b * angle.sin()) * size;
        head[j + half] = (b * angle.cos() + a * angle.sin()) * size;
    }
}

/// Attention of one query over keys and values `[positions, head_dim]`.
pub fn attend(query: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
    let scale = (query.len() as f64).sqrt().recip();
    let scores: Vec<f64> = keys
        .chunks_exact(query.len())
        .map(|key| key.iter().zip(query).map(|(k, q)| k * q).sum::<f64>() * scale)
        .collect();
    let top = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = vec![0.0; query.len()];
    for (weight, value) in weights.iter().zip(values.chunks_exact(query.len())) {
        for (s, v) in sum.iter_mut().zip(value) {
            *s += weight / total * v;
        }
    }
    sum
}
