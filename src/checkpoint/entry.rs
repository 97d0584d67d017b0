//! What a checkpoint knows of a tensor, whatever kind of file holds it.

use std::ops::Range;

use super::TensorType;
use super::names::Rows;
use crate::quant::Format;

/// Some whole rows of a tensor, in one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The file's place in the checkpoint.
    pub file: usize,
    pub range: Range<u64>,
}

/// Some whole rows of planes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlanePiece {
    pub rows: usize,
    pub words: Piece,
    pub side: Piece,
}

/// Some whole rows of a tensor of numbers.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    pub piece: Piece,
    pub rows: usize,
    pub dtype: TensorType,
    /// The order of the rows in the file.
    pub order: Rows,
}

/// Rows of a tensor that lie in one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The file's place in the checkpoint.
    pub file: usize,
    /// The first byte in the file.
    pub start: u64,
    /// The rows.
    pub rows: Range<usize>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct TensorEntry {
    /// Its shape, the last dimension contiguous. Rows of planes count with their padding.
    pub shape: Vec<usize>,
    pub(super) content: Content,
}

/// How a tensor is stored.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Numbers, the rows of one piece after those of another.
    Numbers(Vec<Numbers>),
    /// Planes of the project's own format.
    Planes {
        format: Format,
        pieces: Vec<PlanePiece>,
    },
}

impl TensorEntry {
    /// The file that holds the tensor's first row.
    pub(super) fn file(&self) -> usize {
        let first = match &self.content {
            Content::Numbers(pieces) => pieces.first().map(|p| p.piece.file),
            Content::Planes { pieces, .. } => pieces.first().map(|p| p.words.file),
        };
        first.unwrap_or(0)
    }
}

/// Rows of a matrix: all but the last dimension count.
pub(super) fn rows_of(shape: &[usize]) -> usize {
    match shape.split_last() {
        Some((_, outer)) => outer.iter().product(),
        None => 1,
    }
}
