//! Which tensors go into which file.

use std::ops::Range;

use phi3_steer::checkpoint::{Checkpoint, CheckpointError};
use phi3_steer::phi3::PlainFormats;
use phi3_steer::quant::Format;

use crate::header::Entry;
use crate::layout::{Shape, Tensor};

/// The most bytes of a file.
pub const SHARD_BYTES: u64 = 64 << 20;

/// More than a tensor's entry takes in a file's header.
const ENTRY_BYTES: u64 = 256;

/// A file of tensors.
#[derive(Default)]
pub struct Shard {
    pub parts: Vec<Part>,
}

/// What one or two tensors of a file hold.
pub enum Part {
    /// A vector in f32.
    Vector { name: String, len: usize },
    /// Some rows of a matrix as planes, the side plane before the words.
    Planes {
        name: String,
        shape: [usize; 2],
        format: Format,
        rows: Range<usize>,
        /// Its number, of a matrix that is cut.
        number: Option<usize>,
    },
}

impl Part {
    /// The part's tensors in the order of the file.
    pub fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Vector { name, len } => vec![Entry {
                name: name.clone(),
                dtype: "F32",
                shape: vec![*len],
                bytes: 4 * *len as u64,
            }],
            Self::Planes {
                name,
                shape,
                format,
                rows,
                number,
            } => {
                let number = number.map_or(String::new(), |number| format!(".{number}"));
                let columns = shape[1];
                let planes = [
                    ("side", format.row_side(columns)),
                    ("words", format.row_words(columns)),
                ];
                let entry = |(plane, words): (&str, usize)| Entry {
                    name: format!("{name}.{}.{plane}{number}", format.name()),
                    dtype: "U32",
                    shape: vec![rows.len(), words],
                    bytes: 4 * (rows.len() * words) as u64,
                };
                planes.map(entry).into()
            }
        }
    }

    /// Bytes of the part's numbers.
    fn data_bytes(&self) -> u64 {
        self.entries().iter().map(|entry| entry.bytes).sum()
    }
}

impl Shard {
    /// The names of the file's tensors.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let entries = self.parts.iter().flat_map(Part::entries);
        entries.map(|entry| entry.name)
    }

    /// Bytes of the file's numbers.
    pub fn data_bytes(&self) -> u64 {
        self.parts.iter().map(Part::data_bytes).sum()
    }
}

/// Shares the tensors out over files of at most [`SHARD_BYTES`], in order; a matrix that is larger
/// is cut by rows.
pub fn shards(
    checkpoint: &Checkpoint,
    tensors: &[Tensor],
    plain: PlainFormats,
) -> Result<Vec<Shard>, CheckpointError> {
    let mut shards = vec![Shard::default()];
    let mut used = ENTRY_BYTES;
    for tensor in tensors {
        for part in parts(checkpoint, tensor, plain)? {
            let bytes = part.data_bytes() + 2 * ENTRY_BYTES;
            if used + bytes > SHARD_BYTES {
                shards.push(Shard::default());
                used = ENTRY_BYTES;
            }
            used += bytes;
            if let Some(shard) = shards.last_mut() {
                shard.parts.push(part);
            }
        }
    }
    Ok(shards)
}

/// The parts of a tensor, one unless it is too large for a file.
fn parts(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    plain: PlainFormats,
) -> Result<Vec<Part>, CheckpointError> {
    let name = &tensor.name;
    let shape = match tensor.shape {
        Shape::Matrix(shape) => shape,
        Shape::Vector(len) => {
            // Fails now rather than after hours, if it is missing or of another length.
            checkpoint.reader(name, &[len], 1)?;
            return Ok(vec![Part::Vector {
                name: name.clone(),
                len,
            }]);
        }
    };
    let format = checkpoint.planes(name, shape, plain.of(name))?.format();
    let [rows, columns] = shape;
    let row_bytes = 4 * (format.row_words(columns) + format.row_side(columns)) as u64;
    let most = ((SHARD_BYTES - 3 * ENTRY_BYTES) / row_bytes.max(1)).max(1) as usize;
    let pieces = rows.div_ceil(most).max(1);
    let piece_rows = rows.div_ceil(pieces);
    let pieces = (0..pieces).map(|i| Part::Planes {
        name: name.clone(),
        shape,
        format,
        rows: i * piece_rows..rows.min((i + 1) * piece_rows),
        number: (pieces > 1).then_some(i),
    });
    Ok(pieces.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_of_planes() {
        let part = Part::Planes {
            name: "lm_head.weight".into(),
            shape: [10, 100],
            format: Format::Q6,
            rows: 4..7,
            number: Some(1),
        };
        let [side, words] = &part.entries()[..] else {
            panic!("two planes")
        };
        assert_eq!(side.name, "lm_head.weight.q6.side.1");
        assert_eq!(side.shape, [3, 12]);
        assert_eq!(words.name, "lm_head.weight.q6.words.1");
        assert_eq!((words.bytes, part.data_bytes()), (3 * 64, 3 * (64 + 48)));
    }
}
