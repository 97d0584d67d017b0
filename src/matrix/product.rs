//! Matrix products: one kernel in two skeletons, for few and for many rows of activations.

use super::{Format, Matrix, weights_bindings, weights_part};
use crate::gpu::{
    Access, Gpu, GpuError, Grid, Kernel, KernelDescriptor, MatmulKind, Step, shaders,
};
use crate::quant;

/// What happens to the activations before the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prologue {
    /// Nothing.
    None,
    /// RMSNorm with a weight `[cols]`.
    Norm,
    /// An offset `[cols]` is subtracted.
    Subtract,
}

/// What a product is made of.
pub struct ProductSpec<'a> {
    /// Its name.
    pub label: &'a str,
    /// The kernel: `rows_of`, `input_row` and `finish`.
    pub kernel: &'a str,
    /// WGSL texts that the kernel needs before it.
    pub parts: &'a [&'a str],
    /// What is done to the activations.
    pub prologue: Prologue,
    /// The weights' format.
    pub format: Format,
    /// Columns of the matrices.
    pub cols: usize,
    /// The kernel's own bindings, from 6 on.
    pub bindings: &'a [(u32, Access)],
    /// Rows of a decode pass: lanes.
    pub few_rows: usize,
}

/// The kernels' `Shape` uniform: what a product needs to know of its matrix and its model.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
pub struct ProductShape {
    /// Pairs of matrix rows.
    pub units: u32,
    /// Rows of the matrix.
    pub matrix_rows: u32,
    /// Columns over 4.
    pub k4: u32,
    /// Groups of 32 columns.
    pub groups: u32,
    /// Query heads (attention projection).
    pub heads: u32,
    /// Key and value heads (attention projection).
    pub kv_heads: u32,
    /// Elements of a head (attention projection).
    pub head_dim: u32,
    /// Elements of a head that are rotated (attention projection).
    pub rotary_dim: u32,
    /// Positions that a lane's cache holds (attention projection).
    pub capacity: u32,
    /// The MLP's inner size (gate and up projection); latents in all (dictionary encoder); tokens in
    /// all (head).
    pub inner: u32,
    /// RMSNorm's epsilon.
    pub epsilon: f32,
    /// The latent or token that is the matrix's first row (dictionary encoder, head).
    pub first: u32,
}

impl ProductShape {
    /// The shape of a product with `matrix` whose units are pairs of neighbouring rows.
    pub fn of(matrix: &Matrix) -> Self {
        Self {
            units: matrix.rows().div_ceil(2) as u32,
            matrix_rows: matrix.rows() as u32,
            k4: (matrix.cols() / 4) as u32,
            groups: quant::groups(matrix.cols()) as u32,
            ..Default::default()
        }
    }
}

/// What a product works on.
pub struct Operands<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// Its sizes.
    pub shape: &'a ProductShape,
    /// Activations `[rows, cols]`.
    pub x: &'a wgpu::Buffer,
    /// The prologue's vector `[cols]`; any storage buffer where there is no prologue.
    pub pre: &'a wgpu::Buffer,
    /// The pass's rows.
    pub rows: &'a wgpu::Buffer,
    /// The kernel's own buffers.
    pub own: &'a [(u32, &'a wgpu::Buffer)],
}

struct Skeleton {
    kernel: Kernel,
    kind: MatmulKind,
    tile: u32,
}

/// A compiled product, for few and for many rows.
pub struct Product {
    few: Skeleton,
    many: Skeleton,
}

/// A product with its buffers, ready to dispatch.
pub struct ProductStep {
    step: Step,
    kind: MatmulKind,
    tile: u32,
    units: u32,
}

/// Invocations that share a unit in the split skeleton.
const SPLIT: u32 = 32;

/// Rows of activations that share one read of the weights, in passes of `rows` rows.
fn few_tile(rows: usize) -> u32 {
    match rows {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// How often a pass of few `rows` rows reads each weight.
pub(crate) fn few_reads(rows: usize) -> u64 {
    rows.div_ceil(few_tile(rows) as usize) as u64
}

impl Product {
    /// Compiles the product in the device's variants.
    pub async fn new(gpu: &Gpu, spec: &ProductSpec<'_>) -> Result<Self, GpuError> {
        let capabilities = gpu.capabilities();
        let tile = few_tile(spec.few_rows);
        Ok(Self {
            few: Skeleton::new(gpu, spec, capabilities.few_rows, tile).await?,
            many: Skeleton::new(gpu, spec, capabilities.many_rows, 4).await?,
        })
    }

    /// Binds a product in the skeleton for many rows, or for few.
    pub fn bind(&self, gpu: &Gpu, many: bool, operands: &Operands<'_>) -> ProductStep {
        let skeleton = if many { &self.many } else { &self.few };
        let shape = gpu.uniform("shape", operands.shape);
        let mut buffers = operands.matrix.buffers();
        buffers.extend([
            (0, operands.x),
            (3, &shape),
            (4, operands.pre),
            (5, operands.rows),
        ]);
        buffers.extend_from_slice(operands.own);
        ProductStep {
            step: skeleton.kernel.bind(gpu, &buffers),
            kind: skeleton.kind,
            tile: skeleton.tile,
            units: operands.shape.units,
        }
    }
}

impl Skeleton {
    async fn new(
        gpu: &Gpu,
        spec: &ProductSpec<'_>,
        kind: MatmulKind,
        tile: u32,
    ) -> Result<Self, GpuError> {
        let mut parts = vec![
            shaders::ROWS,
            shaders::MATMUL_INPUT,
            weights_part(spec.format),
        ];
        parts.extend_from_slice(spec.parts);
        parts.push(spec.kernel);
        let mut constants = vec![
            ("PROLOGUE", spec.prologue as u32 as f64),
            (
                "TAIL",
                f64::from(u8::from(!spec.cols.is_multiple_of(quant::GROUP))),
            ),
        ];
        match kind {
            MatmulKind::Thread => {
                parts.extend([shaders::MATMUL_ACCUMULATE, shaders::MATMUL_THREAD]);
                constants.push(("ROW_TILE", tile as f64));
            }
            MatmulKind::Split => {
                parts.extend([
                    gpu.reduction_part(),
                    shaders::MATMUL_ACCUMULATE,
                    shaders::MATMUL_SPLIT,
                ]);
                constants.extend([("ROW_TILE", tile as f64), ("WG", SPLIT as f64)]);
            }
            MatmulKind::Tile => parts.push(shaders::MATMUL_TILE),
        }
        let mut bindings = vec![
            (0, Access::Read),
            (3, Access::Uniform),
            (4, Access::Read),
            (5, Access::Uniform),
        ];
        bindings.extend_from_slice(weights_bindings(spec.format));
        bindings.extend_from_slice(spec.bindings);
        let kernel = gpu
            .kernel(&KernelDescriptor {
                label: spec.label,
                parts: &parts,
                constants: &constants,
                bindings: &bindings,
            })
            .await?;
        Ok(Self { kernel, kind, tile })
    }
}

impl ProductStep {
    /// Records the product for `rows` rows of activations.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        self.step.dispatch(pass, self.grid(rows));
    }

    fn grid(&self, rows: u32) -> Grid {
        match self.kind {
            MatmulKind::Thread => [self.units.div_ceil(64), rows.div_ceil(self.tile), 1],
            MatmulKind::Split => {
                let x = self.units.min(32_768);
                [x, rows.div_ceil(self.tile), self.units.div_ceil(x)]
            }
            MatmulKind::Tile => [self.units.div_ceil(16), rows.div_ceil(32), 1],
        }
    }
}
