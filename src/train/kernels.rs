//! The kernels of a training step.

use crate::gpu::{Access, Gpu, Kernel, KernelDescriptor, shaders};
use crate::matrix::{Product, Prologue};

const READ: Access = Access::Read;
const WRITE: Access = Access::Write;
const UNIFORM: Access = Access::Uniform;

/// Invocations of a workgroup that sums over a row or a column.
const SUMMING: f64 = 64.0;

/// All kernels but the encoder's product.
pub struct Kernels {
    pub keep_dead: Kernel,
    pub topk: Kernel,
    /// From the input, `b_dec` subtracted.
    pub residual: Kernel,
    /// From what is left.
    pub rest: Kernel,
    pub squares: Kernel,
    pub slot_gradient: Kernel,
    pub weight_gradient: Kernel,
    pub offset_gradient: Kernel,
    pub tangent: Kernel,
    pub unit_rows: Kernel,
    pub adam: Kernel,
}

impl Kernels {
    pub fn new(gpu: &Gpu) -> Self {
        let plain = |label, text, bindings: &[(u32, Access)]| {
            gpu.kernel(&KernelDescriptor {
                label,
                parts: &[text],
                constants: &[],
                bindings,
            })
        };
        let summing = |label, text, bindings: &[(u32, Access)]| {
            gpu.kernel(&KernelDescriptor {
                label,
                parts: &[gpu.reduction_part(), text],
                constants: &[("WG", SUMMING)],
                bindings,
            })
        };
        let residual = |centred: f64| {
            gpu.kernel(&KernelDescriptor {
                label: "train residual",
                parts: &[shaders::TRAIN_RESIDUAL],
                constants: &[("CENTRED", centred)],
                bindings: &[
                    (0, READ),
                    (1, READ),
                    (2, READ),
                    (3, UNIFORM),
                    (4, READ),
                    (6, WRITE),
                ],
            })
        };
        Self {
            keep_dead: plain(
                "train keep_dead",
                shaders::TRAIN_KEEP_DEAD,
                &[(0, WRITE), (1, READ), (3, UNIFORM)],
            ),
            topk: gpu.kernel(&KernelDescriptor {
                label: "topk",
                parts: &[shaders::ROWS, shaders::TOPK],
                constants: &[("RENAMED", 0.0)],
                bindings: &[(0, READ), (1, WRITE), (2, READ), (3, UNIFORM), (5, UNIFORM)],
            }),
            residual: residual(1.0),
            rest: residual(0.0),
            squares: summing(
                "train squares",
                shaders::TRAIN_SQUARES,
                &[(0, READ), (3, UNIFORM), (6, WRITE)],
            ),
            slot_gradient: plain(
                "train slot_gradient",
                shaders::TRAIN_SLOT_GRADIENT,
                &[(0, READ), (1, READ), (2, READ), (3, UNIFORM), (6, WRITE)],
            ),
            weight_gradient: plain(
                "train weight_gradient",
                shaders::TRAIN_WEIGHT_GRADIENT,
                &[
                    (0, READ),
                    (1, READ),
                    (2, READ),
                    (3, UNIFORM),
                    (4, READ),
                    (5, READ),
                    (6, READ),
                    (7, WRITE),
                    (8, WRITE),
                ],
            ),
            offset_gradient: summing(
                "train offset_gradient",
                shaders::TRAIN_OFFSET_GRADIENT,
                &[(0, READ), (1, READ), (2, READ), (3, UNIFORM), (6, WRITE)],
            ),
            tangent: summing(
                "train tangent",
                shaders::TRAIN_TANGENT,
                &[(0, READ), (1, WRITE), (3, UNIFORM)],
            ),
            unit_rows: summing(
                "train unit_rows",
                shaders::TRAIN_UNIT_ROWS,
                &[(0, WRITE), (3, UNIFORM)],
            ),
            adam: plain(
                "train adam",
                shaders::TRAIN_ADAM,
                &[(0, WRITE), (1, READ), (2, WRITE), (3, UNIFORM), (4, WRITE)],
            ),
        }
    }
}

/// The encoder's product with many rows.
pub fn encoder_product() -> Product {
    Product {
        label: "train encode",
        kernel: shaders::TRAIN_ENCODE,
        parts: Vec::new(),
        prologue: Prologue::Subtract,
        bindings: &[(6, READ), (7, WRITE)],
        few_rows: 1,
        half: false,
    }
}
