//! Matrix products: one kernel in two skeletons, for few and for many rows of activations.

use super::split::Split;
use super::{Format, Matrix, weights_bindings, weights_part};
use crate::gpu::{Access, Buffer, Gpu, Grid, Kernel, KernelDescriptor, MatmulKind, Step, shaders};
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

/// One kind of product, for matrices of any format. Its kernels are compiled when they are first asked for,
/// each for one format and one skeleton.
pub struct Product {
    /// Its name.
    pub label: &'static str,
    /// The kernel: `rows_of`, `input_row` and `finish`.
    pub kernel: &'static str,
    /// WGSL texts that the kernel needs before it.
    pub parts: Vec<&'static str>,
    /// What is done to the activations.
    pub prologue: Prologue,
    /// The kernel's own bindings, from 6 on.
    pub bindings: &'static [(u32, Access)],
    /// Rows of a decode pass: lanes.
    pub few_rows: usize,
    /// Whether it may compute in f16, where the device does and the weights are not f32.
    pub half: bool,
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
    /// The latent, the token or the row of the fused projection that is the matrix's first row (dictionary
    /// encoder, head, attention projection).
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
    pub x: &'a Buffer,
    /// The prologue's vector `[cols]`; any storage buffer where there is no prologue.
    pub pre: &'a Buffer,
    /// The pass's rows.
    pub rows: &'a Buffer,
    /// The kernel's own buffers.
    pub own: &'a [(u32, &'a Buffer)],
}

/// A product with its buffers, ready to dispatch.
pub struct ProductStep {
    step: Step,
    kind: MatmulKind,
    tile: u32,
    units: u32,
    /// Units of a workgroup of the split skeleton.
    split_units: u32,
}

/// Rows of activations that share one read of the weights in passes of many rows.
const MANY_TILE: u32 = 4;

/// Rows of activations that share one read of the weights, in passes of `rows` rows.
fn few_tile(rows: usize) -> u32 {
    match rows {
        0 | 1 => 1,
        2 => 2,
        _ => MANY_TILE,
    }
}

/// Rows of a decode pass from which a CPU adapter computes it as one of many rows.
const BLOCKS_FROM: usize = 5;
/// Activation rows of a block.
const BLOCK_ROWS: u32 = 8;

/// The skeleton of passes of few `rows` rows, and the rows that share a read of the weights.
fn few_skeleton(gpu: &Gpu, rows: usize) -> (MatmulKind, u32) {
    match gpu.capabilities().few_rows {
        MatmulKind::Thread if rows >= BLOCKS_FROM => (MatmulKind::Block, BLOCK_ROWS),
        MatmulKind::Broadcast if rows >= BLOCKS_FROM => (MatmulKind::Broadcast, BLOCK_ROWS),
        kind => (kind, few_tile(rows)),
    }
}

/// How often a pass of few `rows` rows reads each weight.
pub(crate) fn few_reads(gpu: &Gpu, rows: usize) -> u64 {
    rows.div_ceil(few_skeleton(gpu, rows).1 as usize) as u64
}

impl Product {
    /// The kernel for `units` units of matrices of `cols` columns in `format`, in the skeleton for many rows or
    /// for few.
    pub fn compile(
        &self,
        gpu: &Gpu,
        format: Format,
        [units, cols]: [usize; 2],
        many: bool,
    ) -> Kernel {
        let (kind, tile) = self.skeleton(gpu, format, many);
        let mut parts = vec![shaders::ROWS, shaders::MATMUL_INPUT, weights_part(format)];
        parts.extend_from_slice(&self.parts);
        parts.push(self.kernel);
        let tail = !cols.is_multiple_of(quant::GROUP);
        let mut constants = vec![
            ("PROLOGUE", self.prologue as u32 as f64),
            ("TAIL", f64::from(u8::from(tail))),
        ];
        match kind {
            MatmulKind::Thread => {
                parts.extend([shaders::MATMUL_ACCUMULATE, shaders::MATMUL_THREAD]);
                constants.push(("ROW_TILE", f64::from(tile)));
            }
            MatmulKind::Split => {
                let split = self.split(gpu, format, [units, cols], tile);
                let (team_sum, subgroup) = gpu.team_part(split.team());
                parts.extend([
                    team_sum,
                    split.arithmetic(),
                    shaders::MATMUL_SUMS,
                    shaders::MATMUL_SPLIT,
                ]);
                constants.extend(split.constants());
                constants.extend(subgroup.map(|size| ("SUBGROUP", f64::from(size))));
            }
            MatmulKind::Tile => parts.push(shaders::MATMUL_TILE),
            MatmulKind::Matrices => parts.push(shaders::MATMUL_MATRICES),
            MatmulKind::Block => parts.extend([shaders::MATMUL_EIGHT, shaders::MATMUL_BLOCK]),
            MatmulKind::Broadcast => {
                parts.extend([shaders::MATMUL_EIGHT, shaders::MATMUL_BROADCAST]);
                let size = gpu.capabilities().subgroup_size.unwrap_or_default();
                constants.push(("SUBGROUP", f64::from(size)));
                constants.push(("ROW_TILE", f64::from(tile)));
            }
        }
        let mut bindings = vec![
            (0, Access::Read),
            (3, Access::Uniform),
            (4, Access::Read),
            (5, Access::Uniform),
        ];
        bindings.extend_from_slice(weights_bindings(format));
        bindings.extend_from_slice(self.bindings);
        gpu.kernel(&KernelDescriptor {
            label: self.label,
            parts: &parts,
            constants: &constants,
            bindings: &bindings,
        })
    }

    /// The device's skeleton for many rows or for few, and the rows that share a read of the weights.
    fn skeleton(&self, gpu: &Gpu, format: Format, many: bool) -> (MatmulKind, u32) {
        let capabilities = gpu.capabilities();
        let exact = !self.half || format == Format::F32;
        match many {
            true if capabilities.many_rows == MatmulKind::Matrices && exact => {
                (MatmulKind::Tile, MANY_TILE)
            }
            true if capabilities.many_rows == MatmulKind::Broadcast => {
                (MatmulKind::Broadcast, BLOCK_ROWS)
            }
            true => (capabilities.many_rows, MANY_TILE),
            false => few_skeleton(gpu, self.few_rows),
        }
    }

    /// The layout of the split skeleton.
    fn split(&self, gpu: &Gpu, format: Format, [units, cols]: [usize; 2], tile: u32) -> Split {
        let half = self.half && gpu.capabilities().half_products && format == Format::Q4;
        Split::of(gpu, half, [units, quant::groups(cols)], tile)
    }

    /// Binds a product in the skeleton for many rows, or for few.
    pub fn bind(&self, gpu: &Gpu, many: bool, operands: &Operands<'_>) -> ProductStep {
        let matrix = operands.matrix;
        let units = operands.shape.units;
        let size = [units as usize, matrix.cols()];
        let kernel = self.compile(gpu, matrix.format(), size, many);
        let shape = gpu.uniform("shape", operands.shape);
        let mut buffers = matrix.buffers();
        buffers.extend([
            (0, operands.x),
            (3, &shape),
            (4, operands.pre),
            (5, operands.rows),
        ]);
        buffers.extend_from_slice(operands.own);
        let (kind, tile) = self.skeleton(gpu, matrix.format(), many);
        ProductStep {
            step: kernel.bind(gpu, &buffers),
            kind,
            tile,
            units,
            split_units: self.split(gpu, matrix.format(), size, tile).units(),
        }
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
                let workgroups = self.units.div_ceil(self.split_units);
                let x = workgroups.clamp(1, 32_768);
                [x, rows.div_ceil(self.tile), workgroups.div_ceil(x)]
            }
            MatmulKind::Tile => [self.units.div_ceil(16), rows.div_ceil(32), 1],
            MatmulKind::Matrices => [self.units.div_ceil(32), rows.div_ceil(64), 1],
            MatmulKind::Block => [self.units.div_ceil(4 * 16), rows.div_ceil(BLOCK_ROWS), 1],
            MatmulKind::Broadcast => [self.units.div_ceil(4 * 16), rows.div_ceil(self.tile), 1],
        }
    }
}
