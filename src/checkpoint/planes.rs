//! Reading a matrix block by block, as planes.

use std::ops::Range;

use super::entry::PlanePiece;
use super::files::Files;
use super::raw::RawRows;
use super::{BLOCK_BYTES, ByteSource, CheckpointError, repack};
use crate::quant::{Format, GROUP, Planes, quantize};

/// The most bytes of a side plane that are held while its words are read: a file's planes are then
/// read from front to back, and most tensors in two runs.
const SIDE_BYTES: usize = 8 << 20;

/// Reads one matrix block by block as planes; see [`Checkpoint::planes`](super::Checkpoint::planes).
pub struct PlaneReader<'a> {
    rows: Rows<'a>,
    format: Format,
    columns: usize,
    values: Vec<f32>,
    planes: Planes,
}

enum Rows<'a> {
    /// Numbers, plain or in quantised blocks.
    Numbers(RawRows<'a>),
    /// The project's own format.
    Planes(PlaneRows<'a>),
}

impl<'a> PlaneReader<'a> {
    /// The rows in `format`, which must be the joint one of their encodings (see [`repack::joint`]).
    pub(super) fn numbers(rows: RawRows<'a>, columns: usize, format: Format) -> Self {
        Self::new(Rows::Numbers(rows), columns, format)
    }

    pub(super) fn planes(rows: PlaneRows<'a>, columns: usize) -> Self {
        let format = rows.format;
        Self::new(Rows::Planes(rows), columns, format)
    }

    fn new(rows: Rows<'a>, columns: usize, format: Format) -> Self {
        Self {
            rows,
            format,
            columns,
            values: Vec::new(),
            planes: Planes::new(format),
        }
    }

    /// The format of the planes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Reads the rows of `range` alone.
    pub fn only(mut self, range: Range<usize>) -> Self {
        self.rows = match self.rows {
            Rows::Numbers(rows) => Rows::Numbers(rows.only(range)),
            Rows::Planes(rows) => Rows::Planes(rows.only(range)),
        };
        self
    }

    /// The next rows as `(first_row, planes)`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &Planes)>, CheckpointError> {
        match &mut self.rows {
            Rows::Planes(rows) => rows.next().await,
            Rows::Numbers(rows) => {
                let Some(block) = rows.next().await? else {
                    return Ok(None);
                };
                if !repack::fits(block.encoding, self.format) {
                    rows.numbers(&block, self.columns, &mut self.values)?;
                    self.planes = quantize(&self.values, self.columns, self.format);
                    return Ok(Some((block.first, &self.planes)));
                }
                self.planes.words.clear();
                self.planes.side.clear();
                repack::append(
                    block.encoding,
                    block.row_bytes,
                    &block.bytes,
                    &mut self.planes,
                );
                let row_side = self.format.row_side(self.columns);
                check(
                    rows.files,
                    block.file,
                    &rows.tensor,
                    block.first,
                    &self.planes,
                    row_side,
                )?;
                Ok(Some((block.first, &self.planes)))
            }
        }
    }
}

/// Refuses planes with a scale or minimum that is no number.
fn check(
    files: &Files,
    file: usize,
    tensor: &str,
    first: usize,
    planes: &Planes,
    row_side: usize,
) -> Result<(), CheckpointError> {
    match repack::first_not_finite(planes.format, &planes.side, row_side) {
        None => Ok(()),
        Some((row, group, value)) => Err(CheckpointError::NotFinite {
            file: files.name(file).into(),
            tensor: tensor.into(),
            row: first + row,
            column: group * GROUP,
            value,
        }),
    }
}

/// Reads planes of the project's own format block by block.
pub(super) struct PlaneRows<'a> {
    pub files: &'a Files,
    pub tensor: String,
    pub format: Format,
    pieces: Vec<PlanePiece>,
    row_words: usize,
    row_side: usize,
    /// The side plane's words of rows `side_first` on.
    side: Vec<u32>,
    side_first: usize,
    next: usize,
    rows: usize,
    block_rows: usize,
    planes: Planes,
}

impl<'a> PlaneRows<'a> {
    /// Planes of rows of `columns` weights; a block takes at most `block_bytes` of words, but at
    /// least a row.
    pub fn new(
        files: &'a Files,
        tensor: &str,
        format: Format,
        pieces: Vec<PlanePiece>,
        columns: usize,
        block_bytes: usize,
    ) -> Self {
        let row_words = format.row_words(columns);
        let block = block_bytes.min(BLOCK_BYTES);
        Self {
            files,
            tensor: tensor.into(),
            format,
            row_words,
            row_side: format.row_side(columns),
            side: Vec::new(),
            side_first: 0,
            next: 0,
            rows: pieces.iter().map(|piece| piece.rows).sum(),
            block_rows: (block / (4 * row_words).max(1)).max(1),
            pieces,
            planes: Planes::new(format),
        }
    }

    /// Reads the rows of `range` alone.
    pub fn only(mut self, range: Range<usize>) -> Self {
        self.rows = range.end.min(self.rows);
        self.next = range.start.min(self.rows);
        self
    }

    /// The next rows as `(first_row, planes)`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &Planes)>, CheckpointError> {
        let first = self.next;
        let Some((piece, within)) = self.piece(first).filter(|_| first < self.rows) else {
            return Ok(None);
        };
        let PlanePiece { rows, words, side } = piece;
        let left = (rows - within).min(self.rows - first);
        let side_rows = self.side.len() / self.row_side.max(1);
        if !(self.side_first..self.side_first + side_rows).contains(&first) {
            let n = (SIDE_BYTES / (4 * self.row_side).max(1)).clamp(1, left);
            let at = side.range.start + (within * self.row_side * 4) as u64;
            let to = at + (n * self.row_side * 4) as u64;
            let bytes = self.files.source(side.file).read(at..to).await?;
            self.side.clear();
            append_words(&bytes, &mut self.side);
            self.side_first = first;
        }
        let held = self.side_first + self.side.len() / self.row_side.max(1) - first;
        let n = self.block_rows.min(left).min(held);
        let at = words.range.start + (within * self.row_words * 4) as u64;
        let to = at + (n * self.row_words * 4) as u64;
        let file = words.file;
        let bytes = self.files.source(file).read(at..to).await?;
        self.planes.words.clear();
        append_words(&bytes, &mut self.planes.words);
        let from = (first - self.side_first) * self.row_side;
        self.planes.side.clear();
        self.planes
            .side
            .extend_from_slice(&self.side[from..from + n * self.row_side]);
        check(
            self.files,
            file,
            &self.tensor,
            first,
            &self.planes,
            self.row_side,
        )?;
        self.next += n;
        Ok(Some((first, &self.planes)))
    }

    /// The piece that holds a row, and the row's place in it.
    fn piece(&self, mut row: usize) -> Option<(PlanePiece, usize)> {
        for piece in &self.pieces {
            if row < piece.rows {
                return Some((piece.clone(), row));
            }
            row -= piece.rows;
        }
        None
    }
}

fn append_words(bytes: &[u8], words: &mut Vec<u32>) {
    let fours = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    words.extend(fours.map(u32::from_le_bytes));
}
