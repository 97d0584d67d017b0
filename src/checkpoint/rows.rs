//! Reading a tensor block by block, as f32.

use std::ops::Range;

use super::convert::{append_f32, first_not_finite};
use super::entry::Piece;
use super::planes::PlaneRows;
use super::store::Checkpoint;
use super::{ByteSource, CheckpointError, Encoding};
use crate::quant;

/// Some whole rows of a tensor as its file has them.
pub(super) struct Block {
    /// The file's place in the checkpoint.
    pub file: usize,
    /// The first row.
    pub first: usize,
    pub bytes: Vec<u8>,
}

/// Reads the bytes of whole rows, block by block.
pub(super) struct RawRows<'a> {
    pub checkpoint: &'a Checkpoint,
    pub tensor: String,
    pub encoding: Encoding,
    pub pieces: Vec<Piece>,
    pub row_bytes: u64,
    pub block_rows: usize,
    pub rows: usize,
    pub next: usize,
}

impl RawRows<'_> {
    /// Reads the rows of `range` alone.
    pub fn only(mut self, range: Range<usize>) -> Self {
        self.rows = range.end.min(self.rows);
        self.next = range.start.min(self.rows);
        self
    }

    /// The next block; `None` at the end. No block reaches into the next piece.
    pub async fn next(&mut self) -> Result<Option<Block>, CheckpointError> {
        let first = self.next;
        let left = self.block_rows.min(self.rows - first);
        if left == 0 {
            return Ok(None);
        }
        // Where the row is, counted in bytes of its piece.
        let mut at = first as u64 * self.row_bytes;
        for Piece { file, range } in &self.pieces {
            let len = range.end - range.start;
            if at >= len {
                at -= len;
                continue;
            }
            let bytes = (left as u64 * self.row_bytes).min(len - at);
            let from = range.start + at;
            let source = self.checkpoint.source(*file);
            let bytes = source.read(from..from + bytes).await?;
            self.next += bytes.len() / self.row_bytes.max(1) as usize;
            let file = *file;
            return Ok(Some(Block { file, first, bytes }));
        }
        Ok(None)
    }
}

/// Reads one tensor block by block; see [`Checkpoint::rows`].
pub struct RowReader<'a> {
    rows: Rows<'a>,
    columns: usize,
    values: Vec<f32>,
}

enum Rows<'a> {
    Raw(RawRows<'a>),
    Planes(PlaneRows<'a>),
}

impl<'a> RowReader<'a> {
    pub(super) fn numbers(rows: RawRows<'a>, columns: usize) -> Self {
        Self {
            rows: Rows::Raw(rows),
            columns,
            values: Vec::new(),
        }
    }

    pub(super) fn planes(rows: PlaneRows<'a>, columns: usize) -> Self {
        Self {
            rows: Rows::Planes(rows),
            columns,
            values: Vec::new(),
        }
    }

    /// Reads the rows of `range` alone.
    pub fn only(mut self, range: Range<usize>) -> Self {
        self.rows = match self.rows {
            Rows::Raw(rows) => Rows::Raw(rows.only(range)),
            Rows::Planes(rows) => Rows::Planes(rows.only(range)),
        };
        self
    }

    /// The next block as `(first_row, rows)`, `rows` being `[n, columns]`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        match &mut self.rows {
            Rows::Raw(rows) => {
                let Some(block) = rows.next().await? else {
                    return Ok(None);
                };
                self.values.clear();
                append_f32(rows.encoding, &block.bytes, &mut self.values);
                if let Some(at) = first_not_finite(&self.values) {
                    return Err(CheckpointError::NotFinite {
                        file: rows.checkpoint.source(block.file).name().into(),
                        tensor: rows.tensor.clone(),
                        row: block.first + at / self.columns,
                        column: at % self.columns,
                        value: self.values[at],
                    });
                }
                Ok(Some((block.first, &self.values)))
            }
            Rows::Planes(rows) => {
                let Some((first, planes)) = rows.next().await? else {
                    return Ok(None);
                };
                self.values = quant::dequantize(planes, self.columns);
                Ok(Some((first, &self.values)))
            }
        }
    }
}
