//! Muon for the blocks' matrices, Adam for embedding, head and norms.
//!
//! Muon (Jordan et al., 2024): momentum, then a Newton-Schulz iteration that brings the update's
//! singular values near one, so that every direction of a matrix is trained at the same rate.

use std::sync::Mutex;

use candle_core::{Device, Tensor, Var};

use crate::Result;
use crate::linalg::{Into, Mat, axpy, matmul, norm, product};

const MUON_RATE: f32 = 0.015;
const MUON_MOMENTUM: f32 = 0.95;
const MUON_DECAY: f32 = 0.02;
const ADAM_RATE: f32 = 3e-3;
const ADAM_BETAS: (f32, f32) = (0.9, 0.98);
const ADAM_EPS: f32 = 1e-8;
/// Adam's gradients are scaled down to this norm, over all its parameters together.
const ADAM_CLIP: f32 = 1.0;

enum Rule {
    Muon { momentum: Vec<f32> },
    Adam { mean: Vec<f32>, square: Vec<f32> },
}

/// One parameter with its optimiser state.
struct Slot {
    name: String,
    var: Var,
    rule: Rule,
}

/// The optimiser of a whole model.
pub struct Optimizer {
    slots: Vec<Slot>,
    step: i32,
}

/// The five-step Newton-Schulz iteration of Muon on a row-major `[rows, cols]` matrix.
fn orthogonalise(g: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let (a, b, c) = (3.4445, -4.7750, 2.0315);
    let wide = rows <= cols;
    let (m, n) = if wide { (rows, cols) } else { (cols, rows) };
    let mut x = vec![0.0; m * n];
    let inv = 1.0 / (norm(g) + 1e-7);
    for i in 0..m {
        for j in 0..n {
            x[i * n + j] = inv
                * if wide {
                    g[i * cols + j]
                } else {
                    g[j * cols + i]
                };
        }
    }
    for _ in 0..5 {
        let gram = product(Mat::new(&x, m, n), Mat::new(&x, m, n).t());
        let mut poly: Vec<f32> = gram.iter().map(|v| b * v).collect();
        matmul(
            &mut poly,
            m,
            Into::Accumulate,
            c,
            Mat::new(&gram, m, m),
            Mat::new(&gram, m, m),
        );
        for i in 0..m {
            poly[i * m + i] += a;
        }
        x = product(Mat::new(&poly, m, m), Mat::new(&x, m, n));
    }
    if wide {
        return x;
    }
    let mut out = vec![0.0; rows * cols];
    for i in 0..m {
        for j in 0..n {
            out[j * cols + i] = x[i * n + j];
        }
    }
    out
}

impl Slot {
    fn update(&mut self, grad: &[f32], rate: f32, step: i32) -> Result<()> {
        let mut w = self.var.flatten_all()?.to_vec1::<f32>()?;
        match &mut self.rule {
            Rule::Muon { momentum } => {
                let (rows, cols) = self.var.dims2()?;
                let mut ahead = grad.to_vec();
                for ((m, g), a) in momentum.iter_mut().zip(grad).zip(&mut ahead) {
                    *m = MUON_MOMENTUM * *m + g;
                    *a += MUON_MOMENTUM * *m;
                }
                let update = orthogonalise(&ahead, rows, cols);
                let lr = MUON_RATE * rate;
                w.iter_mut().for_each(|w| *w *= 1.0 - lr * MUON_DECAY);
                axpy(
                    &mut w,
                    -lr * (rows as f32 / cols as f32).max(1.0).sqrt(),
                    &update,
                );
            }
            Rule::Adam { mean, square } => {
                let (b1, b2) = ADAM_BETAS;
                let (c1, c2) = (1.0 - b1.powi(step), 1.0 - b2.powi(step));
                for i in 0..w.len() {
                    mean[i] = b1 * mean[i] + (1.0 - b1) * grad[i];
                    square[i] = b2 * square[i] + (1.0 - b2) * grad[i] * grad[i];
                    w[i] -=
                        ADAM_RATE * rate * (mean[i] / c1) / ((square[i] / c2).sqrt() + ADAM_EPS);
                }
            }
        }
        Ok(self
            .var
            .set(&Tensor::from_vec(w, self.var.dims(), &Device::Cpu)?)?)
    }
}

impl Optimizer {
    /// An optimiser for parameters under their Hugging Face names.
    pub fn new(params: &[(String, &Var)]) -> Self {
        let slots = params
            .iter()
            .map(|(name, var)| {
                let zeros = vec![0.0; var.elem_count()];
                let rule = if name.contains(".layers.") && var.rank() == 2 {
                    Rule::Muon { momentum: zeros }
                } else {
                    Rule::Adam {
                        mean: zeros.clone(),
                        square: zeros,
                    }
                };
                Slot {
                    name: name.clone(),
                    var: (*var).clone(),
                    rule,
                }
            })
            .collect();
        Self { slots, step: 0 }
    }

    /// One step on `threads` threads; `grads` in the order of the parameters, `rate` the schedule's
    /// factor on both learning rates.
    pub fn step(&mut self, grads: &mut [Vec<f32>], rate: f32, threads: usize) -> Result<()> {
        self.step += 1;
        let adam = |s: &Slot| matches!(s.rule, Rule::Adam { .. });
        let total = self
            .slots
            .iter()
            .zip(grads.iter())
            .filter(|(s, _)| adam(s))
            .map(|(_, g)| norm(g).powi(2))
            .sum::<f32>()
            .sqrt();
        let shrink = (ADAM_CLIP / (total + 1e-6)).min(1.0);
        for (_, g) in self
            .slots
            .iter()
            .zip(grads.iter_mut())
            .filter(|(s, _)| adam(s))
        {
            g.iter_mut().for_each(|g| *g *= shrink);
        }
        let step = self.step;
        let queue = Mutex::new(self.slots.iter_mut().zip(grads.iter()));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        loop {
                            let next = queue
                                .lock()
                                .map_err(|_| "an optimiser thread panicked")?
                                .next();
                            let Some((slot, grad)) = next else {
                                return Ok(());
                            };
                            slot.update(grad, rate, step)?;
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|w| w.join().map_err(|_| "an optimiser thread panicked")?)
        })
    }

    /// The state under the parameters' names, for a checkpoint, with the number of steps done.
    pub fn state(&self) -> (i32, Vec<(String, &[f32])>) {
        let mut all = Vec::new();
        for s in &self.slots {
            match &s.rule {
                Rule::Muon { momentum } => {
                    all.push((format!("momentum.{}", s.name), &momentum[..]))
                }
                Rule::Adam { mean, square } => {
                    all.push((format!("mean.{}", s.name), &mean[..]));
                    all.push((format!("square.{}", s.name), &square[..]));
                }
            }
        }
        (self.step, all)
    }

    /// Restores what [`Optimizer::state`] gave.
    pub fn restore(&mut self, step: i32, find: impl Fn(&str) -> Result<Vec<f32>>) -> Result<()> {
        self.step = step;
        for s in &mut self.slots {
            match &mut s.rule {
                Rule::Muon { momentum } => *momentum = find(&format!("momentum.{}", s.name))?,
                Rule::Adam { mean, square } => {
                    *mean = find(&format!("mean.{}", s.name))?;
                    *square = find(&format!("square.{}", s.name))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonalised_matrices_have_singular_values_near_one() {
        for (rows, cols) in [(6, 11), (11, 6)] {
            let g: Vec<f32> = (0..rows * cols)
                .map(|i| ((i * i) as f32 * 0.7).sin())
                .collect();
            let x = orthogonalise(&g, rows, cols);
            let m = Mat::new(&x, rows, cols);
            let gram = if rows < cols {
                product(m, m.t())
            } else {
                product(m.t(), m)
            };
            let k = rows.min(cols);
            for i in 0..k {
                let s = gram[i * k + i];
                assert!(
                    (0.4..1.6).contains(&s),
                    "squared singular direction {i} of {rows}x{cols} is {s}"
                );
            }
        }
    }
}
