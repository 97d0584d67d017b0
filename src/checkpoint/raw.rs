//! Whole rows of a tensor as they are in a file, block by block.

use std::ops::Range;

use super::convert::{append_f32, first_not_finite};
use super::entry::{Numbers, Piece};
use super::files::Files;
use super::names::Rows as Order;
use super::{ByteSource, CheckpointError, Encoding};

/// Some whole rows of a tensor, in the model's order.
pub(super) struct Block {
    /// The file's place in the checkpoint.
    pub file: usize,
    /// The first row.
    pub first: usize,
    pub encoding: Encoding,
    pub row_bytes: usize,
    pub bytes: Vec<u8>,
}

/// Some whole rows of a tensor as they are in a file.
#[derive(Clone, Debug)]
pub(super) struct RawPiece {
    pub piece: Piece,
    pub rows: usize,
    pub encoding: Encoding,
    pub order: Order,
    pub row_bytes: u64,
}

impl RawPiece {
    /// The piece of a tensor with so many columns; `None` if a row is no whole number of blocks, or the
    /// numbers are of a type that is no [`Encoding`].
    pub fn new(numbers: &Numbers, columns: usize) -> Option<Self> {
        let encoding = numbers.dtype.encoding()?;
        Some(Self {
            piece: numbers.piece.clone(),
            rows: numbers.rows,
            encoding,
            order: numbers.order,
            row_bytes: encoding.bytes(columns as u64)?,
        })
    }
}

/// Reads the bytes of whole rows, block by block.
pub(super) struct RawRows<'a> {
    pub files: &'a Files,
    pub tensor: String,
    pub pieces: Vec<RawPiece>,
    /// Bytes of a block at most, if a row, or a head whose rows are interleaved, takes no more.
    pub block_bytes: u64,
    /// The row after the last.
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
        if first >= self.rows {
            return Ok(None);
        }
        // The row's place in its piece.
        let mut within = first;
        for piece in &self.pieces {
            if within >= piece.rows {
                within -= piece.rows;
                continue;
            }
            let left = (piece.rows - within).min(self.rows - first);
            let fit = (self.block_bytes / piece.row_bytes.max(1)).max(1);
            let fit = usize::try_from(fit).unwrap_or(usize::MAX);
            // Rows that are read, and those of them that are asked for.
            let (read, wanted) = match piece.order {
                Order::AsRead => {
                    let read = within..within + fit.min(left);
                    (read.clone(), read)
                }
                Order::Interleaved { head } => {
                    let start = within / head * head;
                    let heads = (fit / head).max(1);
                    let end = (start + heads * head).min(piece.rows);
                    (start..end, within..end.min(within + left))
                }
            };
            let at = |row: usize| piece.piece.range.start + row as u64 * piece.row_bytes;
            let file = piece.piece.file;
            let source = self.files.source(file);
            let bytes = source.read(at(read.start)..at(read.end)).await?;
            let row_bytes = piece.row_bytes as usize;
            let bytes = match piece.order {
                Order::AsRead => bytes,
                Order::Interleaved { head } => {
                    let bytes = halves_apart(&bytes, head, row_bytes);
                    let skip = (wanted.start - read.start) * row_bytes;
                    bytes[skip..skip + wanted.len() * row_bytes].to_vec()
                }
            };
            self.next += wanted.len();
            return Ok(Some(Block {
                file,
                first,
                encoding: piece.encoding,
                row_bytes,
                bytes,
            }));
        }
        Ok(None)
    }

    /// A block's numbers, `[rows, columns]`, in place of what `values` holds.
    pub fn numbers(
        &self,
        block: &Block,
        columns: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), CheckpointError> {
        values.clear();
        append_f32(block.encoding, &block.bytes, values);
        match first_not_finite(values) {
            None => Ok(()),
            Some(at) => Err(CheckpointError::NotFinite {
                file: self.files.name(block.file).into(),
                tensor: self.tensor.clone(),
                row: block.first + at / columns,
                column: at % columns,
                value: values[at],
            }),
        }
    }
}

/// Whole heads whose halves take turns, with the halves one after the other.
fn halves_apart(bytes: &[u8], head: usize, row_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for head_bytes in bytes.chunks_exact((head * row_bytes).max(1)) {
        for half in 0..2 {
            for j in 0..head / 2 {
                let at = (2 * j + half) * row_bytes;
                out.extend_from_slice(&head_bytes[at..at + row_bytes]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_head_come_apart() {
        // Two heads of six rows of two bytes; the row's number in the model in both.
        let rows = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let bytes: Vec<u8> = rows.iter().flat_map(|row| [*row, *row]).collect();
        let expected: Vec<u8> = (0..12).flat_map(|row| [row, row]).collect();
        assert_eq!(halves_apart(&bytes, 6, 2), expected);
    }
}
