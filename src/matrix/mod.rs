//! Matrices of weights on the GPU and their products with rows of activations.
//!
//! A product is assembled from twins: the weights' format, a skeleton (one invocation a unit, a
//! team a unit, or tiles), and the kernel that says what becomes of the sums.

mod known;
mod product;
mod split;
mod table;

pub use known::{open_checked, products_hold};
pub(crate) use product::few_reads;
pub use product::{Operands, Product, ProductShape, ProductStep, Prologue};
pub use table::{Table, rows_that_fit};

pub use crate::quant::Format;

use crate::gpu::{Access, Buffer, Gpu, GpuError, shaders};
use crate::quant::{self, Planes};

/// The weight twin of a format.
pub fn weights_part(format: Format) -> &'static str {
    match format {
        Format::F32 => shaders::WEIGHTS_F32,
        Format::Q4 => shaders::WEIGHTS_Q4,
        Format::Q4M => shaders::WEIGHTS_Q4M,
        Format::Q5 => shaders::WEIGHTS_Q5,
        Format::Q6 => shaders::WEIGHTS_Q6,
        Format::Q8 => shaders::WEIGHTS_Q8,
    }
}

/// The weight twin's bindings.
pub fn weights_bindings(format: Format) -> &'static [(u32, Access)] {
    match format {
        Format::F32 => &[(1, Access::Read)],
        _ => &[(1, Access::Read), (2, Access::Read)],
    }
}

/// A matrix `[rows, cols]` of weights on the GPU; `cols` is the dimension that a product sums over.
pub struct Matrix {
    rows: usize,
    cols: usize,
    format: Format,
    /// `[rows, words a row]` u32
    words: Buffer,
    /// `[rows, side a row]` u32, where the format has one
    side: Option<Buffer>,
}

impl Matrix {
    /// A matrix of zero bits.
    pub fn zeros(
        gpu: &Gpu,
        what: &str,
        [rows, cols]: [usize; 2],
        format: Format,
    ) -> Result<Self, GpuError> {
        let plane = |row: usize| gpu.storage(what, (rows * row * 4) as u64);
        let side = match format.row_side(cols) {
            0 => None,
            row => Some(plane(row)?),
        };
        Ok(Self {
            rows,
            cols,
            format,
            words: plane(format.row_words(cols))?,
            side,
        })
    }

    /// Writes whole rows from row `first` on: `values` `[n, cols]`, quantised here if the format asks.
    /// For the formats that [`quant::quantize`] makes.
    pub fn write_rows(&self, gpu: &Gpu, first: usize, values: &[f32]) {
        if self.format == Format::F32 && self.cols.is_multiple_of(quant::GROUP) {
            gpu.write(&self.words, (first * self.cols * 4) as u64, values);
            return;
        }
        self.write_planes(gpu, first, &quant::quantize(values, self.cols, self.format));
    }

    /// Writes whole rows from row `first` on, which are in the matrix's format.
    pub fn write_planes(&self, gpu: &Gpu, first: usize, planes: &Planes) {
        debug_assert_eq!(planes.format, self.format);
        self.write(gpu, first, &planes.words, &planes.side);
    }

    /// Writes the planes of whole rows from row `first` on: `words` `[n, words a row]`, `side` `[n, side a
    /// row]`.
    fn write(&self, gpu: &Gpu, first: usize, words: &[u32], side: &[u32]) {
        let at = |row: usize| (first * row * 4) as u64;
        gpu.write(&self.words, at(self.format.row_words(self.cols)), words);
        if let Some(buffer) = &self.side {
            gpu.write(buffer, at(self.format.row_side(self.cols)), side);
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
        self.format
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.words.size() + self.side.as_ref().map_or(0, |side| side.size())
    }

    /// The buffers at the weight twin's bindings.
    pub fn buffers(&self) -> Vec<(u32, &Buffer)> {
        let side = self.side.as_ref().map(|side| (2, side));
        [Some((1, &self.words)), side]
            .into_iter()
            .flatten()
            .collect()
    }
}
