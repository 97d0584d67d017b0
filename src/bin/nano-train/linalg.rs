//! Matrix products and elementwise functions on plain `f32` slices, shared by the training
//! operators and the inference code.

use gemm::{Parallelism, gemm};

/// A read-only matrix: a slice with a row stride and a column stride, in elements.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major `[rows, cols]` matrix.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A `[rows, cols]` window of a row-major matrix whose rows are `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || data.len() >= (rows - 1) * row_stride + cols,
            "matrix out of bounds"
        );
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// The transpose, without moving data.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// What happens to the destination's old contents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// `out = scale * a b`
    Overwrite,
    /// `out += scale * a b`
    Accumulate,
}

/// `out (=|+=) scale * a b`, `out` row-major with rows `out_stride` apart. Single-threaded.
pub fn matmul(out: &mut [f32], out_stride: usize, into: Into, scale: f32, a: Mat, b: Mat) {
    assert_eq!(a.cols, b.rows, "inner sizes differ");
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    assert!(
        out.len() >= (a.rows - 1) * out_stride + b.cols,
        "destination out of bounds"
    );
    // SAFETY: the bounds of all three matrices were checked against their slices above and in
    // `Mat::strided`, and `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            into == Into::Accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A fresh row-major product `a b`.
pub fn product(a: Mat, b: Mat) -> Vec<f32> {
    let mut out = vec![0.0; a.rows * b.cols];
    matmul(&mut out, b.cols, Into::Overwrite, 1.0, a, b);
    out
}

/// `e^x` in a form that the compiler vectorises; relative error under 1e-6 for |x| < 87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x - n * LN2_HI - n * LN2_LO;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    e * f32::from_bits((((n as i32) + 127) << 23) as u32)
}

/// The logistic function.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The Euclidean norm.
pub fn norm(x: &[f32]) -> f32 {
    dot(x, x).sqrt()
}

/// The inner product.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for i in 0..16 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// `y += scale * x`
pub fn axpy(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// `out = x / rms(x) * weight` for every row of `x` (`[rows, dim]`); returns `1 / rms` per row.
pub fn rms_norm(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let dim = weight.len();
    out.chunks_exact_mut(dim)
        .zip(x.chunks_exact(dim))
        .map(|(out, x)| {
            let inv = 1.0 / (dot(x, x) / dim as f32 + eps).sqrt();
            for i in 0..dim {
                out[i] = x[i] * inv * weight[i];
            }
            inv
        })
        .collect()
}

/// `silu(gate) * up` for rows of `[gate, up]` (`[rows, 2 * inner]` to `[rows, inner]`).
pub fn swiglu(out: &mut [f32], gate_up: &[f32], inner: usize) {
    for (out, row) in out
        .chunks_exact_mut(inner)
        .zip(gate_up.chunks_exact(2 * inner))
    {
        let (gate, up) = row.split_at(inner);
        for i in 0..inner {
            out[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    }
}

/// Softmax of `row` in place.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = exp(*x - max);
        sum += *x;
    }
    let inv = 1.0 / sum;
    row.iter_mut().for_each(|x| *x *= inv);
}

/// Sine and cosine of the rotary embedding, `[positions, head_dim / 2]` each.
pub struct Rotary {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotary {
    /// Tables for `positions` positions of heads of `head_dim`.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let half = head_dim / 2;
        let angle = |p: usize, i: usize| p as f64 / theta.powf(2.0 * i as f64 / head_dim as f64);
        let table = |f: fn(f64) -> f64| {
            (0..positions)
                .flat_map(|p| (0..half).map(move |i| f(angle(p, i)) as f32))
                .collect()
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
            half,
        }
    }

    /// Rotates one head's vector to position `pos`; `backward` applies the transpose.
    pub fn apply(&self, out: &mut [f32], x: &[f32], pos: usize, backward: bool) {
        let h = self.half;
        let (cos, sin) = (&self.cos[pos * h..][..h], &self.sin[pos * h..][..h]);
        let sign = if backward { -1.0 } else { 1.0 };
        for i in 0..h {
            let (a, b, s) = (x[i], x[i + h], sign * sin[i]);
            out[i] = a * cos[i] - b * s;
            out[i + h] = b * cos[i] + a * s;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_matches_the_library() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01 + 0.003;
            let (got, want) = (exp(x) as f64, (x as f64).exp());
            assert!(
                ((got - want) / want).abs() < 1e-6,
                "exp({x}) = {got}, not {want}"
            );
        }
    }
}
