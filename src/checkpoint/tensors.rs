//! The tensors of a checkpoint's files, the parts of fused matrices put together.

use std::collections::BTreeMap;

use super::entry::{Content, Numbers, Piece, TensorEntry, rows_of};
use super::files::File;
use super::names::{self, Rows};
use super::{ByteSource, CheckpointError, Gguf, TensorType, own};

/// A tensor of a file on its way into a [`TensorEntry`].
struct Part<'a> {
    /// Its place among the parts of its matrix.
    place: usize,
    name: &'a str,
    shape: &'a [usize],
    numbers: Numbers,
}

/// The parts of tensors by the tensors' names.
type Parts<'a> = BTreeMap<String, Vec<Part<'a>>>;

/// The tensors of safetensors files: `names` are those to take, each with its file. The parts of fused
/// matrices are put together.
pub(super) fn of_safetensors<'a>(
    files: &'a [File],
    names: impl Iterator<Item = (&'a str, usize)>,
) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let mut parts = Parts::new();
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
        let target = names::of_safetensors(name);
        parts.entry(target.name).or_default().push(Part {
            place: target.part,
            name,
            shape: &info.shape,
            numbers: Numbers {
                piece,
                rows: rows_of(&info.shape),
                dtype: info.dtype,
                order: Rows::AsRead,
            },
        });
    }
    let label = |file: usize| files[file].source().name().to_string();
    let mut tensors = put_together(parts, label)?;
    for (name, entry) in planes.finish(files)? {
        tensors.insert(name, entry);
    }
    Ok(tensors)
}

/// The tensors of a GGUF file under Hugging Face's names, the parts of fused matrices put together.
pub(super) fn of_gguf(gguf: &Gguf) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let turned = names::turned(gguf.metadata())?;
    let mut parts = Parts::new();
    for name in gguf.names() {
        let Some(tensor) = gguf.tensor(name) else {
            continue;
        };
        let target = names::of_gguf(name);
        let order = match target.rotary {
            true => turned,
            false => Rows::AsRead,
        };
        let rows = rows_of(&tensor.shape);
        if let Rows::Interleaved { head } = order
            && !rows.is_multiple_of(head)
        {
            return Err(CheckpointError::Tensor {
                file: gguf.name_of(tensor.file).into(),
                tensor: name.into(),
                reason: format!("its {rows} rows are no whole number of heads of {head}"),
            });
        }
        parts.entry(target.name).or_default().push(Part {
            place: target.part,
            name,
            shape: &tensor.shape,
            numbers: Numbers {
                piece: Piece {
                    file: tensor.file,
                    range: tensor.range.clone(),
                },
                rows,
                dtype: TensorType::Encoding(tensor.encoding),
                order,
            },
        });
    }
    put_together(parts, |file| gguf.name_of(file).into())
}

/// Every tensor of its parts; `label` gives the name of a file.
fn put_together(
    parts: Parts<'_>,
    label: impl Fn(usize) -> String,
) -> Result<BTreeMap<String, TensorEntry>, CheckpointError> {
    let mut tensors = BTreeMap::new();
    for (name, mut parts) in parts {
        parts.sort_by_key(|part| part.place);
        let entry = fused(parts, &label)?;
        tensors.insert(name, entry);
    }
    Ok(tensors)
}

/// One tensor whose rows are those of the parts, in order. The parts may be stored differently.
fn fused(
    parts: Vec<Part<'_>>,
    label: impl Fn(usize) -> String,
) -> Result<TensorEntry, CheckpointError> {
    let first = &parts[0];
    let mut shape = first.shape.to_vec();
    for (before, part) in parts.iter().zip(&parts[1..]) {
        let fail = |reason: String| CheckpointError::Tensor {
            file: label(part.numbers.piece.file),
            tensor: part.name.into(),
            reason,
        };
        if part.place == before.place {
            return Err(fail(format!(
                "the file also has \"{}\", which is the same matrix: choose another file",
                before.name
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
    let pieces = parts.into_iter().map(|part| part.numbers).collect();
    Ok(TensorEntry {
        shape,
        content: Content::Numbers(pieces),
    })
}
