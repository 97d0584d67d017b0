//! The project's own prequantised format: planes as they lie in GPU memory, in safetensors files.
//!
//! The matrix `NAME` is the tensors `NAME.FORMAT.side` and `NAME.FORMAT.words`, U32 `[rows, words a
//! row]`, with `FORMAT` one of q4, q4m, q5, q6 and q8. One too large for a file is cut by rows:
//! `NAME.FORMAT.side.0`, `NAME.FORMAT.words.0`, then `.1` and so on. Vectors are F32 under their own
//! names.

use std::collections::BTreeMap;

use super::entry::{Content, Piece, PlanePiece, TensorEntry};
use super::files::File;
use super::{ByteSource, CheckpointError, Dtype, TensorInfo, TensorType};
use crate::quant::{Format, GROUP};

/// The planes among the tensors of a checkpoint, as they are found.
#[derive(Default)]
pub(super) struct Found {
    /// By the matrix's name, the format's and the piece's number: its words and its side.
    pieces: BTreeMap<(String, &'static str, usize), [Option<Plane>; 2]>,
}

struct Plane {
    piece: Piece,
    info: TensorInfo,
}

impl Found {
    /// Takes the tensor if its name is that of a plane.
    pub fn take(&mut self, name: &str, info: &TensorInfo, piece: &Piece) -> bool {
        let Some((matrix, format, which, number)) = parse(name) else {
            return false;
        };
        let key = (matrix.to_string(), format, number);
        let plane = Plane {
            piece: piece.clone(),
            info: info.clone(),
        };
        self.pieces.entry(key).or_default()[which] = Some(plane);
        true
    }

    /// The matrices that the planes make up.
    pub fn finish(self, files: &[File]) -> Result<Vec<(String, TensorEntry)>, CheckpointError> {
        let mut entries: Vec<(String, TensorEntry)> = Vec::new();
        for ((matrix, name, number), planes) in self.pieces {
            let file = planes.iter().flatten().next().map_or(0, |p| p.piece.file);
            let fail = |reason: &str| CheckpointError::Entry {
                file: files
                    .get(file)
                    .map_or(String::new(), |f| f.source().name().into()),
                tensor: format!("{matrix}.{name}"),
                reason: reason.into(),
            };
            let [Some(words), Some(side)] = planes else {
                return Err(fail("one of its two planes is missing"));
            };
            let Some(format) = Format::from_name(name) else {
                continue;
            };
            let u32s = TensorType::Other(Dtype::U32);
            let (&[rows, row_words], &[side_rows, row_side]) =
                (&words.info.shape[..], &side.info.shape[..])
            else {
                return Err(fail("its planes are no matrices"));
            };
            // Words say how many groups a row has; the side plane has to agree.
            let groups = row_words / format.group_words();
            let columns = groups * GROUP;
            let agree = words.info.dtype == u32s
                && side.info.dtype == u32s
                && rows == side_rows
                && format.row_words(columns) == row_words
                && format.row_side(columns) == row_side;
            if !agree {
                return Err(fail("its planes do not fit each other"));
            }
            let piece = PlanePiece {
                rows,
                words: words.piece,
                side: side.piece,
            };
            match entries.last_mut() {
                Some((last, entry)) if *last == matrix => match &mut entry.content {
                    Content::Planes { format: f, pieces }
                        if *f == format && pieces.len() == number && entry.shape[1] == columns =>
                    {
                        entry.shape[0] += rows;
                        pieces.push(piece);
                    }
                    _ => return Err(fail("its pieces do not fit each other")),
                },
                _ if number > 0 => return Err(fail("its first piece is missing")),
                _ => entries.push((
                    matrix,
                    TensorEntry {
                        shape: vec![rows, columns],
                        content: Content::Planes {
                            format,
                            pieces: vec![piece],
                        },
                    },
                )),
            }
        }
        Ok(entries)
    }
}

/// A plane's name: the matrix's, the format's, 0 for words or 1 for side, the piece's number.
fn parse(name: &str) -> Option<(&str, &'static str, usize, usize)> {
    let (rest, last) = name.rsplit_once('.')?;
    let (rest, plane, number) = match last.parse() {
        Ok(number) => {
            let (rest, plane) = rest.rsplit_once('.')?;
            (rest, plane, number)
        }
        Err(_) => (rest, last, 0),
    };
    let which = ["words", "side"].iter().position(|p| *p == plane)?;
    let (matrix, format) = rest.rsplit_once('.')?;
    let format = Format::from_name(format).filter(|f| *f != Format::F32)?;
    Some((matrix, format.name(), which, number))
}
