//! The buffers of a training step, and its kernels bound to them.

use super::kernels::{Kernels, encoder_product};
use super::{Scale, Settings, TrainError};
use crate::gpu::{self, Buffer, Gpu};
use crate::matrix::{Matrix, Operands, ProductShape, ProductStep};

/// A tensor with its gradient and Adam's moments.
pub struct Tensor {
    pub elements: usize,
    pub weight: Buffer,
    pub gradient: Buffer,
    pub mean: Buffer,
    pub square: Buffer,
    /// `AdamStep`
    pub uniform: Buffer,
    pub adam: gpu::Step,
}

pub const ENCODER: usize = 0;
pub const BIAS: usize = 1;
pub const DECODER: usize = 2;
pub const B_DEC: usize = 3;

/// What a step is written to and read from.
pub struct Buffers {
    /// `[rows, padded]`
    pub x: Buffer,
    /// `[latents]`
    pub dead: Buffer,
    /// `[rows, k]` of [`Activation`]
    pub codes: Buffer,
    /// `[rows, auxiliary]` of [`Activation`]
    pub dead_codes: Buffer,
    /// `[rows]`
    pub squares: Buffer,
    /// `[rows, k]`
    pub by_codes: Buffer,
    /// `[rows, auxiliary]`
    pub by_dead_codes: Buffer,
    /// `[rows * (k + auxiliary)]` of [`Use`]
    pub uses: Buffer,
    /// `[latents + 1]`
    pub starts: Buffer,
}

/// The kernels with their buffers.
pub struct Bound {
    pub encode: ProductStep,
    pub topk: gpu::Step,
    pub residual: gpu::Step,
    pub squares: gpu::Step,
    pub by_codes: gpu::Step,
    pub keep_dead: gpu::Step,
    pub dead_topk: gpu::Step,
    pub rest: gpu::Step,
    pub by_dead_codes: gpu::Step,
    pub by_weights: gpu::Step,
    pub by_offset: gpu::Step,
    pub tangent: gpu::Step,
    pub unit_rows: gpu::Step,
}

/// Bytes of a `Rows` uniform: a count in 16 bytes, then 256 rows of 16.
const ROWS_BYTES: u64 = 16 + 256 * 16;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SlotShape {
    width4: u32,
    k: u32,
    latents: u32,
    slots: u32,
    factor: f32,
    unused: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct OffsetShape {
    width4: u32,
    rows: u32,
    latents: u32,
    factor: f32,
}

/// -2 over what the squared error is divided by.
pub fn factor(settings: &Settings, scale: &Scale) -> f32 {
    -2.0 / (settings.rows as f32 * scale.variance)
}

/// Binds the kernels.
pub fn bind(
    gpu: &Gpu,
    settings: &Settings,
    scale: &Scale,
    kernels: &Kernels,
    matrix: &Matrix,
    tensors: &[Tensor; 4],
    buffers: &Buffers,
) -> Result<Bound, TrainError> {
    let (rows, latents) = (settings.rows, settings.latents as u32);
    let padded = matrix.cols();
    let width4 = (padded / 4) as u32;
    let weight = |which: usize| &tensors[which].weight;
    let gradient = |which: usize| &tensors[which].gradient;
    let storage = |what: &str, n: usize| gpu.storage(what, 4 * n as u64);
    let pre = storage("train pre-activations", rows * settings.latents)?;
    let residual = storage("train residuals", rows * padded)?;
    let rest = storage("train rests", rows * padded)?;
    let pass_rows = gpu.buffer("train rows", ROWS_BYTES, wgpu::BufferUsages::UNIFORM)?;
    gpu.write(&pass_rows, 0, &[rows as u32, 0, 0, 0]);
    let product_shape = ProductShape::of(matrix);
    let encode = encoder_product().bind(
        gpu,
        true,
        &Operands {
            matrix,
            shape: &product_shape,
            x: &buffers.x,
            pre: weight(B_DEC),
            rows: &pass_rows,
            own: &[(6, weight(BIAS)), (7, &pre)],
        },
    );
    let uniform = |words: [u32; 4]| gpu.uniform("train shape", &words);
    let topk = |k: usize, out: &Buffer| {
        let shape = uniform([latents, k as u32, 0, 0]);
        let bindings = [(0, &pre), (1, out), (2, &pre), (3, &shape), (5, &pass_rows)];
        kernels.topk.bind(gpu, &bindings)
    };
    let residual_shape = |k: usize| uniform([width4, k as u32, latents, 0]);
    let slots = |k: usize, factor: f32, codes: &Buffer, rest: &Buffer, out: &Buffer| {
        let shape = SlotShape {
            width4,
            k: k as u32,
            latents,
            slots: (rows * k) as u32,
            factor,
            unused: [0; 3],
        };
        let shape = gpu.uniform("train slot shape", &shape);
        let bindings = [
            (0, codes),
            (1, rest),
            (2, weight(DECODER)),
            (3, &shape),
            (6, out),
        ];
        kernels.slot_gradient.bind(gpu, &bindings)
    };
    let (k, auxiliary) = (settings.slots(), settings.auxiliary.max(1));
    let factor = factor(settings, scale);
    let offset_shape = OffsetShape {
        width4,
        rows: rows as u32,
        latents,
        factor,
    };
    let offset_shape = gpu.uniform("train offset shape", &offset_shape);
    let by_rows = uniform([width4, latents, 0, 0]);
    Ok(Bound {
        encode,
        topk: topk(k, &buffers.codes),
        residual: kernels.residual.bind(
            gpu,
            &[
                (0, &buffers.codes),
                (1, &buffers.x),
                (2, weight(DECODER)),
                (3, &residual_shape(k)),
                (4, weight(B_DEC)),
                (6, &residual),
            ],
        ),
        squares: kernels.squares.bind(
            gpu,
            &[
                (0, &residual),
                (3, &uniform([width4, 0, 0, 0])),
                (6, &buffers.squares),
            ],
        ),
        by_codes: slots(k, factor, &buffers.codes, &residual, &buffers.by_codes),
        keep_dead: kernels.keep_dead.bind(
            gpu,
            &[
                (0, &pre),
                (1, &buffers.dead),
                (3, &uniform([latents, 0, 0, 0])),
            ],
        ),
        dead_topk: topk(auxiliary, &buffers.dead_codes),
        rest: kernels.rest.bind(
            gpu,
            &[
                (0, &buffers.dead_codes),
                (1, &residual),
                (2, weight(DECODER)),
                (3, &residual_shape(auxiliary)),
                (4, weight(B_DEC)),
                (6, &rest),
            ],
        ),
        by_dead_codes: slots(
            auxiliary,
            factor * settings.auxiliary_weight,
            &buffers.dead_codes,
            &rest,
            &buffers.by_dead_codes,
        ),
        by_weights: kernels.weight_gradient.bind(
            gpu,
            &[
                (0, &buffers.x),
                (1, &buffers.uses),
                (2, &buffers.starts),
                (3, &by_rows),
                (4, weight(B_DEC)),
                (5, &residual),
                (6, &rest),
                (7, gradient(ENCODER)),
                (8, gradient(DECODER)),
            ],
        ),
        by_offset: kernels.offset_gradient.bind(
            gpu,
            &[
                (0, &residual),
                (1, gradient(BIAS)),
                (2, weight(ENCODER)),
                (3, &offset_shape),
                (6, gradient(B_DEC)),
            ],
        ),
        tangent: kernels.tangent.bind(
            gpu,
            &[(0, weight(DECODER)), (1, gradient(DECODER)), (3, &by_rows)],
        ),
        unit_rows: kernels
            .unit_rows
            .bind(gpu, &[(0, weight(DECODER)), (3, &by_rows)]),
    })
}
