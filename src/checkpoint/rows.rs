//! Reading a tensor block by block, as f32.

use std::ops::Range;

use super::CheckpointError;
use super::planes::PlaneRows;
use super::raw::RawRows;
use crate::quant;

/// Reads one tensor block by block; see [`Checkpoint::rows`](super::Checkpoint::rows).
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
                rows.numbers(&block, self.columns, &mut self.values)?;
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
