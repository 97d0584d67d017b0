//! Matrices of weights on the GPU and their products with rows of activations.
//!
//! A product is assembled from twins: the weights' format, a skeleton (one invocation a unit, one
//! workgroup a unit, or tiles), and the kernel that says what becomes of the sums.

mod product;

pub(crate) use product::few_reads;
pub use product::{Operands, Product, ProductShape, ProductSpec, ProductStep, Prologue};

use crate::gpu::{Access, Gpu, GpuError, shaders};
use crate::quant;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Unquantised, 4 bytes a weight.
    F32,
    /// 4 bits in groups of 32 along K with an f16 scale, 4.5 bits a weight.
    Q4,
}

impl Format {
    /// The weight twin.
    pub fn part(self) -> &'static str {
        match self {
            Format::F32 => shaders::WEIGHTS_F32,
            Format::Q4 => shaders::WEIGHTS_Q4,
        }
    }

    /// The weight twin's bindings.
    pub fn bindings(self) -> &'static [(u32, Access)] {
        match self {
            Format::F32 => &[(1, Access::Read)],
            Format::Q4 => &[(1, Access::Read), (2, Access::Read)],
        }
    }
}

enum Planes {
    F32 {
        /// `[rows, groups * 32]`
        dense: wgpu::Buffer,
    },
    Q4 {
        /// `[rows, groups, 4]` u32
        words: wgpu::Buffer,
        /// `[rows, ceil(groups / 2)]` u32
        scales: wgpu::Buffer,
    },
}

/// A matrix `[rows, cols]` of weights on the GPU; `cols` is the dimension that a product sums over.
pub struct Matrix {
    rows: usize,
    cols: usize,
    planes: Planes,
}

impl Matrix {
    /// A matrix of zeros.
    pub async fn zeros(
        gpu: &Gpu,
        what: &str,
        [rows, cols]: [usize; 2],
        format: Format,
    ) -> Result<Self, GpuError> {
        let planes = match format {
            Format::F32 => Planes::F32 {
                dense: gpu
                    .storage(what, (rows * quant::groups(cols) * quant::GROUP * 4) as u64)
                    .await?,
            },
            Format::Q4 => Planes::Q4 {
                words: gpu
                    .storage(what, (rows * quant::row_words(cols) * 4) as u64)
                    .await?,
                scales: gpu
                    .storage(what, (rows * quant::row_scales(cols) * 4) as u64)
                    .await?,
            },
        };
        Ok(Self { rows, cols, planes })
    }

    /// Writes whole rows from row `first` on: `values` `[n, cols]`, quantised here if the format asks.
    pub fn write_rows(&self, gpu: &Gpu, first: usize, values: &[f32]) {
        let padded = quant::groups(self.cols) * quant::GROUP;
        match &self.planes {
            Planes::F32 { dense } if padded == self.cols => {
                gpu.write(dense, (first * padded * 4) as u64, values)
            }
            Planes::F32 { dense } => {
                let mut rows = Vec::with_capacity(values.len() / self.cols * padded);
                for row in values.chunks_exact(self.cols) {
                    rows.extend_from_slice(row);
                    rows.resize(rows.len().next_multiple_of(padded), 0.0);
                }
                gpu.write(dense, (first * padded * 4) as u64, &rows);
            }
            Planes::Q4 { words, scales } => {
                let block = quant::quantize_rows(values, self.cols);
                let at = |per_row: usize| (first * per_row * 4) as u64;
                gpu.write(words, at(quant::row_words(self.cols)), &block.words);
                gpu.write(scales, at(quant::row_scales(self.cols)), &block.scales);
            }
        }
    }

    /// Rows: the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: what a product sums over.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        match self.planes {
            Planes::F32 { .. } => Format::F32,
            Planes::Q4 { .. } => Format::Q4,
        }
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        match &self.planes {
            Planes::F32 { dense } => dense.size(),
            Planes::Q4 { words, scales } => words.size() + scales.size(),
        }
    }

    /// The buffers at the weight twin's bindings.
    pub fn buffers(&self) -> Vec<(u32, &wgpu::Buffer)> {
        match &self.planes {
            Planes::F32 { dense } => vec![(1, dense)],
            Planes::Q4 { words, scales } => vec![(1, words), (2, scales)],
        }
    }
}
