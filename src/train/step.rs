//! One step of training on the GPU.

use std::rc::Rc;

use super::bound::{BIAS, Bound, Buffers, DECODER, Tensor, bind, factor};
use super::kernels::Kernels;
use super::lists::{AUXILIARY, Listed, Use, by_latent, largest};
use super::{Scale, Selection, Settings, TrainError, Weights};
use crate::gpu::{Buffer, Gpu};
use crate::matrix::{Format, Matrix};
use crate::quant::GROUP;
use crate::sae::Activation;

/// What a step has seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The squared error over the variance: the share of variance unexplained, on the rows of the step.
    pub loss: f64,
    /// Active latents of a row, on average.
    pub l0: f64,
    /// Latents that are dead.
    pub dead: usize,
}

/// A dictionary under training, with Adam's moments, on the GPU.
pub struct Trainer {
    gpu: Rc<Gpu>,
    settings: Settings,
    scale: Scale,
    width: usize,
    /// The width, rounded up to whole groups with zeros.
    padded: usize,
    /// Steps taken.
    taken: usize,
    /// Steps since each latent was active, `[latents]`.
    silent: Vec<u32>,
    /// The smallest activation of a step that counts, averaged over the latest steps; 0 for TopK.
    threshold: f32,
    /// encoder `[latents, padded]`, bias `[latents]`, decoder `[latents, padded]`, b_dec `[padded]`
    tensors: [Tensor; 4],
    buffers: Buffers,
    bound: Bound,
}

/// What the latest step weighs in the threshold: about fifty count.
const LATEST: f32 = 0.02;

/// A side of a grid at most.
const SIDE: usize = 32_768;
/// `n` workgroups folded into two sides.
fn folded(n: usize) -> [u32; 2] {
    let x = n.clamp(1, SIDE);
    [x as u32, n.div_ceil(x) as u32]
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AdamStep {
    n4: u32,
    rate: f32,
    correction1: f32,
    correction2: f32,
}

impl Trainer {
    /// A trainer of `weights`, which are in units of `scale`, before its first step.
    pub async fn new(
        gpu: &Rc<Gpu>,
        settings: &Settings,
        scale: &Scale,
        weights: &Weights,
    ) -> Result<Self, TrainError> {
        settings.check()?;
        let (latents, width) = (weights.latents, weights.width);
        let padded = width.next_multiple_of(GROUP);
        let kernels = Kernels::new(gpu);
        let matrix = Matrix::zeros(gpu, "train encoder", [latents, padded], Format::F32)?;
        let encoder = matrix.buffers()[0].1.clone();
        let floats = |what: &str, n: usize| gpu.storage(what, 4 * n as u64);
        let tensor = |what: &str, elements: usize, weight: Option<Buffer>| {
            let weight = weight.map_or_else(|| floats(what, elements), Ok)?;
            let gradient = floats("train gradient", elements)?;
            let mean = floats("train mean", elements)?;
            let square = floats("train square", elements)?;
            let uniform = gpu.uniform("adam step", &<AdamStep as bytemuck::Zeroable>::zeroed());
            let adam = kernels.adam.bind(
                gpu,
                &[
                    (0, &weight),
                    (1, &gradient),
                    (2, &mean),
                    (3, &uniform),
                    (4, &square),
                ],
            );
            Ok::<_, TrainError>(Tensor {
                elements,
                weight,
                gradient,
                mean,
                square,
                uniform,
                adam,
            })
        };
        let tensors = [
            tensor("train encoder", latents * padded, Some(encoder))?,
            tensor("train bias", latents, None)?,
            tensor("train decoder", latents * padded, None)?,
            tensor("train b_dec", padded, None)?,
        ];
        let (rows, k, auxiliary) = (settings.rows, settings.slots(), settings.auxiliary.max(1));
        let slot = size_of::<Activation>() / 4;
        let buffers = Buffers {
            x: floats("train x", rows * padded)?,
            dead: floats("train dead", latents)?,
            codes: floats("train codes", rows * k * slot)?,
            dead_codes: floats("train dead codes", rows * auxiliary * slot)?,
            squares: floats("train squares", rows)?,
            by_codes: floats("train code gradients", rows * k)?,
            by_dead_codes: floats("train dead code gradients", rows * auxiliary)?,
            uses: gpu.storage(
                "train uses",
                (rows * (k + auxiliary) * size_of::<Use>()) as u64,
            )?,
            starts: floats("train starts", latents + 1)?,
        };
        let bound = bind(gpu, settings, scale, &kernels, &matrix, &tensors, &buffers)?;
        gpu.settle().await?;
        let mut trainer = Self {
            gpu: gpu.clone(),
            settings: settings.clone(),
            scale: scale.clone(),
            width,
            padded,
            taken: 0,
            silent: vec![0; latents],
            threshold: 0.0,
            tensors,
            buffers,
            bound,
        };
        trainer.set_weights(weights);
        Ok(trainer)
    }

    /// How it is trained.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What its vectors are divided by.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Steps taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Steps since each latent was active, `[latents]`.
    pub fn silent(&self) -> &[u32] {
        &self.silent
    }

    /// Above which activations count, in units of the scale, where a row has as many as it has ([`Selection`]).
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Goes on after `taken` steps, with latents `silent` for so many.
    pub fn resume(&mut self, taken: usize, silent: Vec<u32>, threshold: f32) {
        self.taken = taken;
        self.silent = silent;
        self.threshold = threshold;
    }

    fn set_weights(&mut self, weights: &Weights) {
        let all = [
            &weights.encoder,
            &weights.bias,
            &weights.decoder,
            &weights.b_dec,
        ];
        for (which, values) in all.into_iter().enumerate() {
            self.write(which, &self.tensors[which].weight, values);
        }
    }

    /// Replaces Adam's moments: means, then squares, in the layout of the weights.
    pub fn set_moments(&mut self, moments: &[Weights; 2]) {
        for (i, weights) in moments.iter().enumerate() {
            let all = [
                &weights.encoder,
                &weights.bias,
                &weights.decoder,
                &weights.b_dec,
            ];
            for (which, values) in all.into_iter().enumerate() {
                let tensor = &self.tensors[which];
                let to = if i == 0 { &tensor.mean } else { &tensor.square };
                self.write(which, to, values);
            }
        }
    }

    /// Writes a tensor, its rows padded.
    fn write(&self, which: usize, to: &Buffer, values: &[f32]) {
        match which {
            BIAS => self.gpu.write(to, 0, values),
            _ => self.gpu.write(to, 0, &self.pad(values, 1.0)),
        }
    }

    /// Rows `[n, width]` times `factor` as `[n, padded]`.
    fn pad(&self, rows: &[f32], factor: f32) -> Vec<f32> {
        let n = rows.len() / self.width;
        let mut out = vec![0.0; n * self.padded];
        for (to, from) in out
            .chunks_exact_mut(self.padded)
            .zip(rows.chunks_exact(self.width))
        {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * factor;
            }
        }
        out
    }

    /// The dictionary, in units of the scale.
    pub async fn weights(&self) -> Result<Weights, TrainError> {
        self.gather(|tensor| &tensor.weight).await
    }

    /// Adam's moments in the layout of the weights: means, then squares.
    pub async fn moments(&self) -> Result<[Weights; 2], TrainError> {
        let means = self.gather(|tensor| &tensor.mean).await?;
        Ok([means, self.gather(|tensor| &tensor.square).await?])
    }

    /// The last step's gradients in the layout of the weights; the decoder's without its part along the
    /// rows.
    pub async fn gradients(&self) -> Result<Weights, TrainError> {
        self.gather(|tensor| &tensor.gradient).await
    }

    async fn gather(&self, of: fn(&Tensor) -> &Buffer) -> Result<Weights, TrainError> {
        let mut all: [Vec<f32>; 4] = Default::default();
        for (which, tensor) in self.tensors.iter().enumerate() {
            let values: Vec<f32> = self.gpu.read_vec(of(tensor), 0, tensor.elements).await?;
            all[which] = match which {
                BIAS => values,
                _ => {
                    let rows = values.chunks_exact(self.padded);
                    rows.flat_map(|row| &row[..self.width]).copied().collect()
                }
            };
        }
        let [encoder, bias, decoder, b_dec] = all;
        Ok(Weights {
            width: self.width,
            latents: self.settings.latents,
            encoder,
            bias,
            decoder,
            b_dec,
        })
    }

    /// Latents that are dead.
    fn dead(&self) -> Vec<u32> {
        let after = self.settings.dead_after;
        self.silent.iter().map(|s| u32::from(*s > after)).collect()
    }

    /// Takes a step on `rows` `[rows, width]`, vectors as they are.
    pub async fn step(&mut self, rows: &[f32]) -> Result<Step, TrainError> {
        let settings = &self.settings;
        let count = settings.rows;
        if rows.len() != count * self.width {
            return Err(TrainError::TooFewRows {
                rows: (rows.len() / self.width) as u64,
                needed: count,
            });
        }
        self.gpu
            .write(&self.buffers.x, 0, &self.pad(rows, 1.0 / self.scale.unit));
        let dead = self.dead();
        let many_dead = dead.iter().filter(|d| **d == 1).count();
        let auxiliary = many_dead > 0 && settings.auxiliary > 0;
        if auxiliary {
            self.gpu.write(&self.buffers.dead, 0, &dead);
        }
        self.encode();
        let (gpu, buffers) = (&self.gpu, &self.buffers);
        let listed = count * settings.slots();
        let mut codes: Vec<Activation> = Vec::new();
        if settings.selection == Selection::BatchTopK {
            codes = gpu.read_vec(&buffers.codes, 0, listed).await?;
            let least = largest(&mut codes, count * settings.k);
            gpu.write(&buffers.codes, 0, &codes);
            self.threshold = match self.taken {
                0 => least,
                _ => self.threshold + (least - self.threshold) * LATEST,
            };
        }
        self.forward(auxiliary);
        if settings.selection == Selection::TopK {
            codes = gpu.read_vec(&buffers.codes, 0, listed).await?;
        }
        let by_codes: Vec<f32> = gpu.read_vec(&buffers.by_codes, 0, codes.len()).await?;
        let squares: Vec<f32> = gpu.read_vec(&buffers.squares, 0, count).await?;
        let error: f64 = squares.iter().map(|s| f64::from(*s)).sum();
        let loss = error / (count as f64 * f64::from(self.scale.variance));
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step: self.taken });
        }
        let factor = factor(settings, &self.scale);
        let mut lists = vec![Listed {
            codes: &codes,
            gradients: &by_codes,
            k: settings.slots(),
            factor,
            mark: 0,
        }];
        let (dead_codes, by_dead_codes): (Vec<Activation>, Vec<f32>);
        if auxiliary {
            let slots = count * settings.auxiliary;
            dead_codes = gpu.read_vec(&buffers.dead_codes, 0, slots).await?;
            by_dead_codes = gpu.read_vec(&buffers.by_dead_codes, 0, slots).await?;
            lists.push(Listed {
                codes: &dead_codes,
                gradients: &by_dead_codes,
                k: settings.auxiliary,
                factor: factor * settings.auxiliary_weight,
                mark: AUXILIARY,
            });
        }
        let sorted = by_latent(settings.latents, &lists);
        gpu.write(&buffers.uses, 0, &sorted.uses);
        gpu.write(&buffers.starts, 0, &sorted.starts);
        gpu.write(&self.tensors[BIAS].gradient, 0, &sorted.by_bias);
        self.update();
        self.silent
            .iter_mut()
            .for_each(|s| *s = s.saturating_add(1));
        let mut active = 0;
        for code in &codes {
            if let Some(silent) = self.silent.get_mut(code.feature as usize) {
                *silent = 0;
                active += 1;
            }
        }
        self.taken += 1;
        Ok(Step {
            loss,
            l0: f64::from(active) / count as f64,
            dead: many_dead,
        })
    }

    /// Submits the pre-activations and the largest of each row.
    fn encode(&self) {
        let rows = self.settings.rows as u32;
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.bound.encode.dispatch(&mut pass, rows);
        self.bound.topk.dispatch(&mut pass, [1, rows, 1]);
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
    }

    /// Submits what the gradients are made of: residuals, gradients by activations, and what is dead.
    fn forward(&self, auxiliary: bool) {
        let (settings, bound) = (&self.settings, &self.bound);
        let rows = settings.rows as u32;
        let columns = (self.padded / 4).div_ceil(64) as u32;
        let slots = |k: usize| folded((settings.rows * k).div_ceil(64));
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bound.residual.dispatch(&mut pass, [columns, rows, 1]);
        bound.squares.dispatch(&mut pass, [1, rows, 1]);
        let [x, y] = slots(settings.slots());
        bound.by_codes.dispatch(&mut pass, [x, y, 1]);
        if auxiliary {
            let groups = settings.latents.div_ceil(64) as u32;
            bound.keep_dead.dispatch(&mut pass, [groups, rows, 1]);
            bound.dead_topk.dispatch(&mut pass, [1, rows, 1]);
            bound.rest.dispatch(&mut pass, [columns, rows, 1]);
            let [x, y] = slots(settings.auxiliary);
            bound.by_dead_codes.dispatch(&mut pass, [x, y, 1]);
        }
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
    }

    /// Submits the gradients by the weights and Adam's step.
    fn update(&self) {
        let step = self.taken as i32 + 1;
        for tensor in &self.tensors {
            let uniform = AdamStep {
                n4: tensor.elements.div_ceil(4) as u32,
                rate: self.settings.rate_at(self.taken),
                correction1: 1.0 - 0.9f32.powi(step),
                correction2: 1.0 - 0.999f32.powi(step),
            };
            self.gpu.write(&tensor.uniform, 0, &[uniform]);
        }
        let bound = &self.bound;
        let columns = (self.padded / 4).div_ceil(64) as u32;
        let [y, z] = folded(self.settings.latents);
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        bound.by_weights.dispatch(&mut pass, [columns, y, z]);
        bound
            .by_offset
            .dispatch(&mut pass, [(self.padded / 4) as u32, 1, 1]);
        let frozen = self.settings.frozen_decoder;
        bound.tangent.dispatch(&mut pass, [1, y, z]);
        let moving = self.tensors.iter().enumerate();
        for (_, tensor) in moving.filter(|(which, _)| !(frozen && *which == DECODER)) {
            let [x, y] = folded(tensor.elements.div_ceil(4 * 64));
            tensor.adam.dispatch(&mut pass, [x, y, 1]);
        }
        if !frozen {
            bound.unit_rows.dispatch(&mut pass, [1, y, z]);
        }
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
    }
}
