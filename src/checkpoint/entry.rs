//! What a checkpoint knows of its tensors, whatever kind of file holds them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::own::{self, PlanePiece};
use super::{CheckpointError, Encoding, Gguf, Safetensors, Source, TensorType, names};
use crate::quant::Format;

/// A file of tensors.
pub(super) enum File {
    Safetensors(Safetensors),
    Gguf(Gguf),
    /// A further file of a GGUF model.
    Part(Source),
}

impl File {
    pub fn source(&self) -> &Source {
        match self {
            Self::Safetensors(file) => file.source(),
            Self::Gguf(file) => file.source(),
            Self::Part(source) => source,
        }
    }
}

/// Some whole rows of a tensor, in one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The file's place in the checkpoint.
    pub file: usize,
    pub range: Range<u64>,
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
    Numbers {
        dtype: TensorType,
        pieces: Vec<Piece>,
    },
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
            Content::Numbers { pieces, .. } => pieces.first().map(|p| p.file),
            Content::Planes { pieces, .. } => pieces.first().map(|p| p.words.file),
        };
        first.unwrap_or(0)
    }
}

/// The tensors of safetensors files: `names` are those to take, each with its file.
pub(super) fn of_safetensors<'a>(
    files: &[File],
    names: impl Iterator<Item = (&'a str, usize)>,
) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let mut tensors = BTreeMap::new();
    let mut planes = own::Found::default();
    for (name, at) in names {
        let Some(File::Safetensors(file)) = files.get(at) else {
            continue;
        };
        let Some(info) = file.tensor(name) else {
            continue;
        };
        let piece = Piece {
            file: at,
            range: info.range.clone(),
        };
        if planes.take(name, info, &piece) {
            continue;
        }
        let content = Content::Numbers {
            dtype: info.dtype,
            pieces: vec![piece],
        };
        let shape = info.shape.clone();
        tensors.insert(name.into(), TensorEntry { shape, content });
    }
    for (name, entry) in planes.finish(files)? {
        tensors.insert(name, entry);
    }
    Ok(tensors)
}

/// A tensor of a GGUF file on its way into a [`TensorEntry`].
struct Part<'a> {
    place: usize,
    name: &'a str,
    encoding: Encoding,
    shape: &'a [usize],
    file: usize,
    range: &'a Range<u64>,
}

/// The tensors of a GGUF file under Hugging Face's names, the parts of fused matrices put together.
pub(super) fn of_gguf(gguf: &Gguf) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let mut parts: BTreeMap<String, Vec<Part<'_>>> = BTreeMap::new();
    for name in gguf.names() {
        let Some(tensor) = gguf.tensor(name) else {
            continue;
        };
        let target = names::target(name);
        parts.entry(target.name).or_default().push(Part {
            place: target.part,
            name,
            encoding: tensor.encoding,
            shape: &tensor.shape,
            file: tensor.file,
            range: &tensor.range,
        });
    }
    let mut tensors = BTreeMap::new();
    for (name, mut parts) in parts {
        parts.sort_by_key(|part| part.place);
        let entry = fused(gguf, &parts)?;
        tensors.insert(name, entry);
    }
    Ok(tensors)
}

/// One tensor whose rows are those of the parts, in order.
fn fused(gguf: &Gguf, parts: &[Part<'_>]) -> Result<TensorEntry, CheckpointError> {
    let first = &parts[0];
    let mut shape = first.shape.to_vec();
    for (before, part) in parts.iter().zip(&parts[1..]) {
        let fail = |reason: String| CheckpointError::Tensor {
            file: gguf.name_of(part.file).into(),
            tensor: part.name.into(),
            reason,
        };
        if part.place == before.place {
            return Err(fail(format!(
                "the file also has \"{}\", which is the same matrix: choose another file",
                before.name
            )));
        }
        if part.encoding != first.encoding {
            return Err(fail(format!(
                "it is stored as {}, but \"{}\", with which it makes up one matrix, as {}: choose a \
                 file where they are stored alike (Q4_0, Q8_0 or F16)",
                part.encoding, first.name, first.encoding
            )));
        }
        let ([rows, columns], [more, same]) = (&mut shape[..], part.shape) else {
            return Err(fail("it is a part of a matrix but no matrix".into()));
        };
        if columns != same {
            return Err(fail(format!(
                "its rows have {same} numbers, those of \"{}\", with which it makes up one matrix, \
                 {columns}",
                first.name
            )));
        }
        *rows += more;
    }
    let pieces = parts.iter().map(|part| Piece {
        file: part.file,
        range: part.range.clone(),
    });
    Ok(TensorEntry {
        shape,
        content: Content::Numbers {
            dtype: TensorType::Encoding(first.encoding),
            pieces: pieces.collect(),
        },
    })
}
