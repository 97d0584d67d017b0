//! A dictionary's matrices from their files to the GPU, in blocks.
//!
//! A block is written to a staging buffer as the file has it; a kernel brings it into the matrix's planes,
//! quantised where they are. A file's `[width, latents]` comes in slabs of 64 rows, two groups of every
//! latent, so that nothing is ever transposed in the host's memory and no more than a slab is on the way.

use super::SaeError;
use super::formats::{Described, Weights};
use crate::checkpoint::BLOCK_BYTES;
use crate::gpu::{Access, Buffer, Gpu, Kernel, KernelDescriptor, shaders};
use crate::matrix::{Format, Matrix, weights_bindings};
use crate::quant;

/// Columns that an invocation stores: two groups.
const PAIR: usize = 2 * quant::GROUP;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct StoreShape {
    columns: u32,
    groups: u32,
    rows: u32,
    first_row: u32,
    first_pair: u32,
    pairs: u32,
    row_stride: u32,
    column_stride: u32,
    offset: u32,
    scale: f32,
    unused: [u32; 2],
}

/// A matrix that a block goes to: some consecutive latents.
pub(super) struct Target<'a> {
    /// The first latent.
    pub first: usize,
    pub matrix: &'a Matrix,
    /// What each row is multiplied by, `[rows]`.
    pub gains: &'a Buffer,
}

/// Stores blocks of matrices.
pub(super) struct Upload<'a> {
    gpu: &'a Gpu,
    kernel: Kernel,
    staging: Option<Buffer>,
}

impl<'a> Upload<'a> {
    /// Compiles the kernel for matrices of `format`.
    pub fn new(gpu: &'a Gpu, format: Format) -> Result<Self, SaeError> {
        let twin = match format {
            Format::F32 => shaders::STORE_F32,
            Format::Q8 => shaders::STORE_Q8,
            other => {
                return Err(SaeError::Storage(other));
            }
        };
        let mut bindings = vec![(0, Access::Read), (3, Access::Uniform), (4, Access::Read)];
        bindings.extend(
            weights_bindings(format)
                .iter()
                .map(|(at, _)| (*at, Access::Write)),
        );
        let kernel = gpu.kernel(&KernelDescriptor {
            label: "store_weights",
            parts: &[shaders::STORE_WEIGHTS, twin],
            constants: &[],
            bindings: &bindings,
        });
        Ok(Self {
            gpu,
            kernel,
            staging: None,
        })
    }

    /// Streams the matrix `weights` of all latents into `targets`, multiplied by `scale` and the targets'
    /// gains. Where `norms` is given, it takes the rows' norms, and each is written, inverted, to its gain
    /// before the row is stored.
    pub async fn matrix(
        &mut self,
        described: &Described,
        weights: &Weights,
        targets: &[Target<'_>],
        scale: f32,
        norms: Option<&mut [f32]>,
    ) -> Result<(), SaeError> {
        if weights.transposed {
            if let Some(norms) = norms {
                column_norms(described, weights, norms).await?;
                for target in targets {
                    self.write_gains(target, target.first, norms_of(norms, target));
                }
            }
            self.columns(described, weights, targets, scale).await
        } else {
            self.rows(described, weights, targets, scale, norms).await
        }
    }

    /// A matrix of one row a latent.
    async fn rows(
        &mut self,
        described: &Described,
        weights: &Weights,
        targets: &[Target<'_>],
        scale: f32,
        mut norms: Option<&mut [f32]>,
    ) -> Result<(), SaeError> {
        let (width, latents) = (described.width, described.latents);
        let shape = weights.shape(width, latents);
        let mut reader = described
            .tensors
            .rows(weights.name, &shape, 0..latents)
            .await?;
        // A file of half precision has twice the numbers in a block.
        let staging = self.staging(2 * BLOCK_BYTES.max(width * 2))?;
        while let Some((first, rows)) = reader.next().await? {
            self.gpu.write(&staging, 0, rows);
            let count = rows.len() / width;
            if let Some(norms) = &mut norms {
                for (norm, row) in norms[first..first + count]
                    .iter_mut()
                    .zip(rows.chunks(width))
                {
                    *norm = norm_of(row);
                }
            }
            for target in targets {
                let from = first.max(target.first);
                let to = (first + count).min(target.first + target.matrix.rows());
                if from >= to {
                    continue;
                }
                if let Some(norms) = &norms {
                    self.write_gains(target, from, &norms[from..to]);
                }
                self.store(
                    &staging,
                    target,
                    &StoreShape {
                        rows: (to - from) as u32,
                        first_row: (from - target.first) as u32,
                        pairs: width.div_ceil(PAIR) as u32,
                        row_stride: width as u32,
                        column_stride: 1,
                        offset: ((from - first) * width) as u32,
                        scale,
                        ..shape_of(target.matrix)
                    },
                );
            }
            self.gpu.pace().await?;
        }
        Ok(())
    }

    /// A matrix of one column a latent.
    async fn columns(
        &mut self,
        described: &Described,
        weights: &Weights,
        targets: &[Target<'_>],
        scale: f32,
    ) -> Result<(), SaeError> {
        let (width, latents) = (described.width, described.latents);
        let shape = weights.shape(width, latents);
        let pairs = (BLOCK_BYTES / (PAIR * latents * 4)).max(1);
        let slab = pairs * PAIR;
        let staging = self.staging(slab * latents * 4)?;
        let mut reader = described
            .tensors
            .rows(weights.name, &shape, 0..width)
            .await?;
        let mut first = 0;
        let mut held = 0;
        while let Some((_, mut rows)) = reader.next().await? {
            while !rows.is_empty() {
                let count = (rows.len() / latents).min(slab - held);
                let (now, later) = rows.split_at(count * latents);
                self.gpu.write(&staging, (held * latents * 4) as u64, now);
                held += count;
                rows = later;
                if held == slab || first + held == width {
                    for target in targets {
                        self.store(
                            &staging,
                            target,
                            &StoreShape {
                                rows: target.matrix.rows() as u32,
                                first_pair: (first / PAIR) as u32,
                                pairs: held.div_ceil(PAIR) as u32,
                                row_stride: 1,
                                column_stride: latents as u32,
                                offset: target.first as u32,
                                scale,
                                ..shape_of(target.matrix)
                            },
                        );
                    }
                    first += held;
                    held = 0;
                }
                self.gpu.pace().await?;
            }
        }
        Ok(())
    }

    /// One row of a matrix.
    pub async fn row(
        &mut self,
        values: &[f32],
        target: &Target<'_>,
        row: usize,
        scale: f32,
    ) -> Result<(), SaeError> {
        let staging = self.staging(size_of_val(values))?;
        self.gpu.write(&staging, 0, values);
        self.store(
            &staging,
            target,
            &StoreShape {
                rows: 1,
                first_row: row as u32,
                pairs: values.len().div_ceil(PAIR) as u32,
                column_stride: 1,
                scale,
                ..shape_of(target.matrix)
            },
        );
        self.gpu.pace().await?;
        Ok(())
    }

    /// A staging buffer of at least `bytes`.
    fn staging(&mut self, bytes: usize) -> Result<Buffer, SaeError> {
        let bytes = bytes as u64;
        if let Some(staging) = self.staging.as_ref().filter(|s| s.size() >= bytes) {
            return Ok(staging.clone());
        }
        let staging = self.gpu.storage("block of a dictionary", bytes)?;
        self.staging = Some(staging.clone());
        Ok(staging)
    }

    fn write_gains(&self, target: &Target<'_>, first: usize, norms: &[f32]) {
        let gains: Vec<f32> = norms
            .iter()
            .map(|norm| if *norm > 0.0 { 1.0 / norm } else { 0.0 })
            .collect();
        let at = (first - target.first) * 4;
        self.gpu.write(target.gains, at as u64, &gains);
    }

    /// Stores what the staging buffer holds; later writes to it come after.
    fn store(&self, staging: &Buffer, target: &Target<'_>, shape: &StoreShape) {
        let uniform = self.gpu.uniform("block", shape);
        let mut buffers = target.matrix.buffers();
        buffers.extend([(0, staging), (3, &uniform), (4, target.gains)]);
        let step = self.kernel.bind(self.gpu, &buffers);
        let device = self.gpu.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.dispatch(&mut pass, [shape.rows.div_ceil(64), shape.pairs, 1]);
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
    }
}

fn shape_of(matrix: &Matrix) -> StoreShape {
    StoreShape {
        columns: matrix.cols() as u32,
        groups: quant::groups(matrix.cols()) as u32,
        ..bytemuck::Zeroable::zeroed()
    }
}

fn norms_of<'n>(norms: &'n [f32], target: &Target<'_>) -> &'n [f32] {
    &norms[target.first..target.first + target.matrix.rows()]
}

/// A vector's length.
pub(super) fn norm_of(row: &[f32]) -> f32 {
    let squares: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
    squares.sqrt() as f32
}

/// The norms of the columns of a matrix of one column a latent, which takes a pass over the file.
async fn column_norms(
    described: &Described,
    weights: &Weights,
    norms: &mut [f32],
) -> Result<(), SaeError> {
    let shape = weights.shape(described.width, described.latents);
    let mut reader = described
        .tensors
        .rows(weights.name, &shape, 0..described.width)
        .await?;
    let mut squares = vec![0.0f64; norms.len()];
    while let Some((_, rows)) = reader.next().await? {
        for row in rows.chunks(norms.len()) {
            for (sum, v) in squares.iter_mut().zip(row) {
                *sum += f64::from(*v).powi(2);
            }
        }
    }
    for (norm, sum) in norms.iter_mut().zip(squares) {
        *norm = sum.sqrt() as f32;
    }
    Ok(())
}
