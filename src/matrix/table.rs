//! A matrix that may be larger than a buffer.

use super::{Format, Matrix};
use crate::gpu::{Gpu, GpuError};
use crate::quant::Planes;

/// Rows of a matrix of `cols` columns whose planes take at most `most` bytes each: an even number, so
/// that pairs of rows do not straddle parts, and at least one pair.
pub fn rows_that_fit(format: Format, cols: usize, most: u64) -> usize {
    let fit = usize::try_from(most / format.row_bytes(cols).max(1)).unwrap_or(usize::MAX);
    (fit / 2 * 2).max(2)
}

/// A matrix `[rows, cols]` in runs of rows that fit a buffer each, for the embedding and the head: with
/// WebGPU's default limits a vocabulary of 200,000 does not fit one.
pub struct Table {
    rows: usize,
    cols: usize,
    format: Format,
    per_part: usize,
    parts: Vec<Matrix>,
}

impl Table {
    /// A table of zero bits, in buffers of at most `most` bytes.
    pub fn zeros(
        gpu: &Gpu,
        what: &str,
        [rows, cols]: [usize; 2],
        format: Format,
        most: u64,
    ) -> Result<Self, GpuError> {
        let per_part = rows_that_fit(format, cols, most);
        let mut parts = Vec::with_capacity(rows.div_ceil(per_part));
        for first in (0..rows).step_by(per_part) {
            let count = per_part.min(rows - first);
            parts.push(Matrix::zeros(gpu, what, [count, cols], format)?);
        }
        Ok(Self {
            rows,
            cols,
            format,
            per_part,
            parts,
        })
    }

    /// Writes whole rows from row `first` on, which are in the table's format.
    pub fn write_planes(&self, gpu: &Gpu, mut first: usize, planes: &Planes) {
        let (mut words, mut side) = (&planes.words[..], &planes.side[..]);
        while let Some(part) = self.parts.get(first / self.per_part) {
            let (format, cols) = (part.format(), part.cols());
            let local = first % self.per_part;
            let room = part.rows() - local;
            // A block may end one part and begin the next.
            let count = room.min(words.len() / format.row_words(cols).max(1));
            if count == 0 {
                break;
            }
            let now = words.split_at(count * format.row_words(cols));
            let beside = side.split_at(count * format.row_side(cols));
            part.write(gpu, local, now.0, beside.0);
            (words, side) = (now.1, beside.1);
            first += count;
        }
    }

    /// The parts, each with its first row.
    pub fn parts(&self) -> impl Iterator<Item = (usize, &Matrix)> {
        let numbered = self.parts.iter().enumerate();
        numbered.map(|(i, part)| (i * self.per_part, part))
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.parts.iter().map(Matrix::gpu_bytes).sum()
    }
}
