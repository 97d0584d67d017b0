//! The fused operators of the model, with hand-written backward passes, as candle custom ops.
//!
//! All are CPU, `f32`, contiguous. The gradients are checked against finite differences below.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};

use crate::linalg::{self, Into, Mat, Rotary, dot, exp, matmul, sigmoid};

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((from, to))) => Ok(&data[from..to]),
        _ => bail!("the training operators take contiguous f32 tensors"),
    }
}

/// Calls `f` with the tensor's elements, without copying when it is contiguous.
pub fn with_slice<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => Ok(f(slice(cpu, layout)?)),
        _ => bail!("the training operators run on the CPU"),
    }
}

/// `y = x w^T`: `x` `[rows, in]`, `w` `[out, in]`, `y` `[rows, out]`.
struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, inner), (out, _)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        let y = linalg::product(
            Mat::new(slice(x, xl)?, rows, inner),
            Mat::new(slice(w, wl)?, out, inner).t(),
        );
        Ok((CpuStorage::F32(y), (rows, out).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, inner), (out, _)) = (x.dims2()?, w.dims2()?);
        with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| {
                    let g = Mat::new(g, rows, out);
                    let dx = linalg::product(g, Mat::new(w, out, inner));
                    let dw = linalg::product(g.t(), Mat::new(x, rows, inner));
                    (dx, dw)
                })
            })
        })???
        .into_grads((rows, inner), (out, inner))
    }
}

trait IntoGrads {
    fn into_grads(
        self,
        a: impl std::convert::Into<Shape>,
        b: impl std::convert::Into<Shape>,
    ) -> Result<(Option<Tensor>, Option<Tensor>)>;
}

impl IntoGrads for (Vec<f32>, Vec<f32>) {
    fn into_grads(
        self,
        a: impl std::convert::Into<Shape>,
        b: impl std::convert::Into<Shape>,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let cpu = &candle_core::Device::Cpu;
        Ok((
            Some(Tensor::from_vec(self.0, a.into(), cpu)?),
            Some(Tensor::from_vec(self.1, b.into(), cpu)?),
        ))
    }
}

/// `x / rms(x) * w` by rows: `x` `[rows, dim]`, `w` `[dim]`.
struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (slice(x, xl)?, slice(w, wl)?);
        let mut y = vec![0.0; x.len()];
        linalg::rms_norm(&mut y, x, w, self.eps);
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (rows, dim) = x.dims2()?;
        with_slice(x, |x| {
            with_slice(w, |w| {
                with_slice(grad, |g| {
                    let (mut dx, mut dw) = (vec![0.0; rows * dim], vec![0.0; dim]);
                    for ((x, g), dx) in x
                        .chunks_exact(dim)
                        .zip(g.chunks_exact(dim))
                        .zip(dx.chunks_exact_mut(dim))
                    {
                        let inv = 1.0 / (dot(x, x) / dim as f32 + self.eps).sqrt();
                        let mut gwx = 0.0;
                        for i in 0..dim {
                            dw[i] += g[i] * x[i] * inv;
                            dx[i] = g[i] * w[i];
                            gwx += dx[i] * x[i];
                        }
                        let shrink = gwx * inv * inv / dim as f32;
                        for i in 0..dim {
                            dx[i] = inv * (dx[i] - x[i] * shrink);
                        }
                    }
                    (dx, dw)
                })
            })
        })???
        .into_grads((rows, dim), dim)
    }
}

/// SwiGLU: rows of `[gate, up]` (`[rows, 2 * inner]`) to `silu(gate) * up` (`[rows, inner]`).
struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, both) = l.shape().dims2()?;
        let mut y = vec![0.0; rows * both / 2];
        linalg::swiglu(&mut y, slice(x, l)?, both / 2);
        Ok((CpuStorage::F32(y), (rows, both / 2).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, both) = x.dims2()?;
        let inner = both / 2;
        let dx = with_slice(x, |x| {
            with_slice(grad, |g| {
                let mut dx = vec![0.0; rows * both];
                for ((x, g), dx) in x
                    .chunks_exact(both)
                    .zip(g.chunks_exact(inner))
                    .zip(dx.chunks_exact_mut(both))
                {
                    let ((gate, up), (dgate, dup)) = (x.split_at(inner), dx.split_at_mut(inner));
                    for i in 0..inner {
                        let s = sigmoid(gate[i]);
                        let silu = gate[i] * s;
                        dup[i] = g[i] * silu;
                        dgate[i] = g[i] * up[i] * (s + silu * (1.0 - s));
                    }
                }
                dx
            })
        })??;
        Ok(Some(Tensor::from_vec(dx, (rows, both), x.device())?))
    }
}

/// Causal attention with rotary embedding, from the fused projection `[batch * len, 3 * heads *
/// head_dim]` to `[batch * len, heads * head_dim]`. The backward pass recomputes the scores.
struct Attention {
    batch: usize,
    len: usize,
    heads: usize,
    head_dim: usize,
    rotary: Arc<Rotary>,
}

/// One head of one sequence: rotated queries and keys and the attention weights.
struct Head {
    q: Vec<f32>,
    k: Vec<f32>,
    p: Vec<f32>,
}

impl Attention {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Recomputes head `h` of a sequence; `rows` is its `[len, 3 * width]` window.
    fn head(&self, rows: &[f32], h: usize) -> Head {
        let (t, hd, w) = (self.len, self.head_dim, self.width());
        let (mut q, mut k, mut p) = (vec![0.0; t * hd], vec![0.0; t * hd], vec![0.0; t * t]);
        for pos in 0..t {
            let row = &rows[pos * 3 * w..];
            self.rotary
                .apply(&mut q[pos * hd..][..hd], &row[h * hd..][..hd], pos, false);
            self.rotary.apply(
                &mut k[pos * hd..][..hd],
                &row[w + h * hd..][..hd],
                pos,
                false,
            );
        }
        matmul(
            &mut p,
            t,
            Into::Overwrite,
            self.scale(),
            Mat::new(&q, t, hd),
            Mat::new(&k, t, hd).t(),
        );
        for (pos, row) in p.chunks_exact_mut(t).enumerate() {
            linalg::softmax(&mut row[..=pos]);
            row[pos + 1..].fill(0.0);
        }
        Head { q, k, p }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (t, hd, w) = (self.len, self.head_dim, self.width());
        let x = slice(x, l)?;
        let mut y = vec![0.0; self.batch * t * w];
        for (rows, y) in x.chunks_exact(t * 3 * w).zip(y.chunks_exact_mut(t * w)) {
            for h in 0..self.heads {
                let head = self.head(rows, h);
                let v = Mat::strided(&rows[2 * w + h * hd..], t, hd, 3 * w);
                matmul(
                    &mut y[h * hd..],
                    w,
                    Into::Overwrite,
                    1.0,
                    Mat::new(&head.p, t, t),
                    v,
                );
            }
        }
        Ok((CpuStorage::F32(y), (self.batch * t, w).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (t, hd, w) = (self.len, self.head_dim, self.width());
        let dx = with_slice(x, |x| {
            with_slice(grad, |g| {
                let mut dx = vec![0.0; x.len()];
                let (mut dp, mut dq, mut dk) =
                    (vec![0.0; t * t], vec![0.0; t * hd], vec![0.0; t * hd]);
                for ((rows, g), dx) in x
                    .chunks_exact(t * 3 * w)
                    .zip(g.chunks_exact(t * w))
                    .zip(dx.chunks_exact_mut(t * 3 * w))
                {
                    for h in 0..self.heads {
                        let head = self.head(rows, h);
                        let v = Mat::strided(&rows[2 * w + h * hd..], t, hd, 3 * w);
                        let dy = Mat::strided(&g[h * hd..], t, hd, w);
                        let p = Mat::new(&head.p, t, t);
                        matmul(
                            &mut dx[2 * w + h * hd..],
                            3 * w,
                            Into::Overwrite,
                            1.0,
                            p.t(),
                            dy,
                        );
                        matmul(&mut dp, t, Into::Overwrite, 1.0, dy, v.t());
                        for (dp, p) in dp.chunks_exact_mut(t).zip(head.p.chunks_exact(t)) {
                            let mean = dot(dp, p);
                            dp.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean));
                        }
                        let ds = Mat::new(&dp, t, t);
                        matmul(
                            &mut dq,
                            hd,
                            Into::Overwrite,
                            self.scale(),
                            ds,
                            Mat::new(&head.k, t, hd),
                        );
                        matmul(
                            &mut dk,
                            hd,
                            Into::Overwrite,
                            self.scale(),
                            ds.t(),
                            Mat::new(&head.q, t, hd),
                        );
                        for pos in 0..t {
                            let row = &mut dx[pos * 3 * w..];
                            self.rotary.apply(
                                &mut row[h * hd..][..hd],
                                &dq[pos * hd..][..hd],
                                pos,
                                true,
                            );
                            self.rotary.apply(
                                &mut row[w + h * hd..][..hd],
                                &dk[pos * hd..][..hd],
                                pos,
                                true,
                            );
                        }
                    }
                }
                dx
            })
        })??;
        Ok(Some(Tensor::from_vec(dx, x.dims(), x.device())?))
    }
}

/// Weighted cross-entropy: logits `[rows, vocab]` to the sum over rows of `weight * -log p(target)`
/// (`[1]`).
struct CrossEntropy {
    targets: Arc<Vec<u32>>,
    weights: Arc<Vec<f32>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, vocab) = l.shape().dims2()?;
        let loss: f64 = slice(x, l)?
            .chunks_exact(vocab)
            .zip(self.targets.iter().zip(self.weights.iter()))
            .filter(|(_, (_, w))| **w > 0.0)
            .map(|(row, (target, weight))| (weight * row_loss(row, *target)) as f64)
            .sum();
        Ok((CpuStorage::F32(vec![loss as f32]), 1.into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, vocab) = x.dims2()?;
        let scale = grad.to_vec1::<f32>()?[0];
        let dx = with_slice(x, |x| {
            let mut dx = vec![0.0; rows * vocab];
            for (r, (x, dx)) in x
                .chunks_exact(vocab)
                .zip(dx.chunks_exact_mut(vocab))
                .enumerate()
            {
                let weight = scale * self.weights[r];
                if weight != 0.0 {
                    dx.copy_from_slice(x);
                    linalg::softmax(dx);
                    dx.iter_mut().for_each(|d| *d *= weight);
                    dx[self.targets[r] as usize] -= weight;
                }
            }
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, (rows, vocab), x.device())?))
    }
}

/// `-log softmax(row)[target]`
pub fn row_loss(row: &[f32], target: u32) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = row.iter().map(|x| exp(x - max)).sum();
    max + sum.ln() - row[target as usize]
}

/// `x w^T`: `x` `[rows, in]`, `w` `[out, in]`.
pub fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    x.apply_op2(w, Linear)
}

/// RMSNorm by rows: `x` `[rows, dim]`, `w` `[dim]`.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f32) -> Result<Tensor> {
    x.apply_op2(w, RmsNorm { eps })
}

/// SwiGLU: `[rows, 2 * inner]` to `[rows, inner]`.
pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    x.apply_op1(SwiGlu)
}

/// Causal self-attention of `batch` sequences of `len` tokens from the fused projection.
pub fn attention(
    qkv: &Tensor,
    batch: usize,
    len: usize,
    heads: usize,
    head_dim: usize,
    rotary: &Arc<Rotary>,
) -> Result<Tensor> {
    qkv.apply_op1(Attention {
        batch,
        len,
        heads,
        head_dim,
        rotary: rotary.clone(),
    })
}

/// Weighted sum of cross-entropies, `[1]`.
pub fn cross_entropy(
    logits: &Tensor,
    targets: Arc<Vec<u32>>,
    weights: Arc<Vec<f32>>,
) -> Result<Tensor> {
    logits.apply_op1(CrossEntropy { targets, weights })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::axpy;
    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng, rngs::StdRng};

    /// Compares the gradient of `<f(vars), r>` for a random `r` with central differences.
    fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Var]) -> Result<Tensor>) {
        let seed = rand::random::<u64>();
        println!("{name}: seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut random = |n: usize| {
            (0..n)
                .map(|_| rng.random_range(-1.0..1.0f32))
                .collect::<Vec<_>>()
        };
        let vars: Vec<Var> = shapes
            .iter()
            .map(|s| Var::from_vec(random(s.iter().product()), *s, &Device::Cpu).unwrap())
            .collect();
        let out = f(&vars).unwrap();
        let r = Tensor::from_vec(random(out.elem_count()), out.dims(), &Device::Cpu).unwrap();
        let value = |vars: &[Var]| -> f64 {
            let y = f(vars)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let r = r.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            y.iter().zip(&r).map(|(a, b)| *a as f64 * *b as f64).sum()
        };
        let grads = out.mul(&r).unwrap().sum_all().unwrap().backward().unwrap();
        for (v, var) in vars.iter().enumerate() {
            let got = grads
                .get(var)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let start = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let size = got.iter().map(|g| g.abs()).fold(0.1f32, f32::max);
            for i in 0..start.len() {
                let step = 1e-2;
                let at = |d: f32| {
                    let mut x = start.clone();
                    x[i] += d;
                    var.set(&Tensor::from_vec(x, var.dims(), &Device::Cpu).unwrap())
                        .unwrap();
                    value(&vars)
                };
                let want = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step)))
                    / (12.0 * step as f64);
                at(0.0);
                let error = (got[i] as f64 - want).abs();
                assert!(
                    error < 5e-3 * size as f64,
                    "{name}: gradient {v}[{i}] is {}, not {want}",
                    got[i]
                );
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        check("linear", &[&[5, 7], &[3, 7]], |v| linear(&v[0], &v[1]));
        check("rms norm", &[&[4, 9], &[9]], |v| {
            rms_norm(&v[0], &v[1], 1e-5)
        });
        check("swiglu", &[&[3, 10]], |v| swiglu(&v[0]));
        let rotary = Arc::new(Rotary::new(16, 6, 10000.0));
        check("attention", &[&[2 * 5, 3 * 2 * 6]], |v| {
            attention(&v[0], 2, 5, 2, 6, &rotary)
        });
        let (targets, weights) = (Arc::new(vec![1, 0, 4]), Arc::new(vec![1.0, 0.0, 0.2]));
        check("cross-entropy", &[&[3, 5]], |v| {
            cross_entropy(&v[0], targets.clone(), weights.clone())
        });
    }

    #[test]
    fn attention_ignores_the_future() {
        let rotary = Arc::new(Rotary::new(8, 4, 10000.0));
        let x: Vec<f32> = (0..4 * 12).map(|i| (i as f32 * 0.37).sin()).collect();
        let run = |x: Vec<f32>| {
            let t = Tensor::from_vec(x, (4, 12), &Device::Cpu).unwrap();
            attention(&t, 1, 4, 1, 4, &rotary)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap()
        };
        let mut changed = x.clone();
        changed[3 * 12..].iter_mut().for_each(|v| *v += 1.0);
        let (a, b) = (run(x), run(changed));
        assert_eq!(a[..3], b[..3]);
        assert_ne!(a[3], b[3]);
        let mut moved = vec![0.0; 2];
        axpy(&mut moved, 2.0, &[1.0, 3.0]);
        assert_eq!(moved, [2.0, 6.0]);
    }
}
