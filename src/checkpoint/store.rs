//! The tensors of a checkpoint, in one file or several, streamed as rows of f32.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::convert::{append_f32, first_not_finite};
use super::{
    ByteSource, CheckpointError, Encoding, Folder, MAX_JSON, Safetensors, Source, TensorInfo,
};

/// The most bytes of a file that a block of rows takes, unless one row alone takes more.
pub const BLOCK_BYTES: usize = 4 << 20;

/// The tensors of one safetensors file, or of several listed in an index.
pub struct Checkpoint {
    files: Vec<Safetensors>,
    /// The file that holds each tensor.
    tensors: BTreeMap<String, usize>,
    /// The file read last: only one holds a connection open.
    reading: Cell<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `{base}.safetensors`, or the files that `{base}.safetensors.index.json` lists; `base`
    /// is `model` for a model, `sae` for a dictionary. Reads headers only.
    pub async fn open(folder: &Folder, base: &str) -> Result<Self, CheckpointError> {
        let single = format!("{base}.safetensors");
        if let Some(source) = folder.open(&single).await? {
            return Self::from_source(source).await;
        }
        let index = format!("{base}.safetensors.index.json");
        match folder.bytes(&index, MAX_JSON).await? {
            Some(json) => Self::sharded(folder, index, &json).await,
            None => Err(CheckpointError::NoWeights {
                folder: folder.label().into(),
                looked: vec![single, index],
            }),
        }
    }

    /// Opens one safetensors file.
    pub async fn from_source(source: Source) -> Result<Self, CheckpointError> {
        let file = Safetensors::open(source).await?;
        let tensors = file.names().map(|name| (name.to_string(), 0)).collect();
        Ok(Self {
            files: vec![file],
            tensors,
            reading: Cell::new(0),
        })
    }

    async fn sharded(folder: &Folder, index: String, json: &[u8]) -> Result<Self, CheckpointError> {
        let fail = |reason: String| CheckpointError::Index {
            file: index.clone(),
            reason,
        };
        let Index { weight_map } =
            serde_json::from_slice(json).map_err(|e| fail(format!("it cannot be read: {e}")))?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        let mut files = Vec::with_capacity(names.len());
        for &name in &names {
            // A file of this folder, whatever the index says.
            let plain =
                name.ends_with(".safetensors") && !name.contains(['/', '\\', ':', '?', '#', '%']);
            if !plain {
                return Err(fail(format!(
                    "\"{name}\" is not the name of a safetensors file beside it"
                )));
            }
            let file = Safetensors::open(folder.require(name).await?).await?;
            file.source().release();
            files.push(file);
        }
        let mut tensors = BTreeMap::new();
        for (tensor, name) in &weight_map {
            // `names` holds every value of the map.
            let Ok(at) = names.binary_search(&name) else {
                continue;
            };
            if files[at].tensor(tensor).is_none() {
                return Err(fail(format!(
                    "it says that \"{name}\" holds \"{tensor}\", which it does not"
                )));
            }
            tensors.insert(tensor.clone(), at);
        }
        Ok(Self {
            files,
            tensors,
            reading: Cell::new(0),
        })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The directory's entry of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.files[*self.tensors.get(name)?].tensor(name)
    }

    /// Streams a tensor of shape `expected` as blocks of whole rows, in order, to `f(first_row,
    /// rows)`; `rows` is `[n, expected.last()]` in f32. A row is one run of the last dimension: all
    /// other dimensions count rows, and a vector is one row. A block takes at most `block_bytes` or
    /// [`BLOCK_BYTES`] of the file, whichever is less, but at least one row.
    ///
    /// Fails with the tensor's name if it is missing, of another shape, of a type that is no
    /// [`Encoding`], or not finite (with the place); with what `f` returns if `f` fails.
    pub async fn rows<E: From<CheckpointError>>(
        &self,
        name: &str,
        expected: &[usize],
        block_bytes: usize,
        mut f: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = self.reader(name, expected, block_bytes)?;
        while let Some((first_row, rows)) = reader.next().await? {
            f(first_row, rows)?;
        }
        Ok(())
    }

    /// As [`Checkpoint::rows`], for a caller that has to await something between blocks.
    pub fn reader(
        &self,
        name: &str,
        expected: &[usize],
        block_bytes: usize,
    ) -> Result<RowReader<'_>, CheckpointError> {
        let Some(&at) = self.tensors.get(name) else {
            return Err(self.missing(name));
        };
        let Some(info) = self.files[at].tensor(name) else {
            return Err(self.missing(name));
        };
        let source = self.files[at].source();
        let file = || source.name().to_string();
        if info.shape != expected {
            return Err(CheckpointError::WrongShape {
                file: file(),
                tensor: name.into(),
                found: info.shape.clone(),
                expected: expected.into(),
            });
        }
        let Some(encoding) = info.dtype.encoding() else {
            return Err(CheckpointError::WrongType {
                file: file(),
                tensor: name.into(),
                dtype: info.dtype,
            });
        };
        if self.reading.replace(at) != at {
            for (other, file) in self.files.iter().enumerate() {
                if other != at {
                    file.source().release();
                }
            }
        }
        let (columns, outer) = match expected.split_last() {
            Some((&columns, outer)) => (columns, outer),
            None => (1, &[][..]),
        };
        let Some(row_bytes) = encoding.bytes(columns as u64) else {
            return Err(CheckpointError::Entry {
                file: file(),
                tensor: name.into(),
                reason: format!("a row of {columns} is no whole number of {encoding} blocks"),
            });
        };
        let block = block_bytes.min(BLOCK_BYTES) as u64;
        Ok(RowReader {
            source,
            tensor: name.into(),
            encoding,
            start: info.range.start,
            columns,
            // No rows where a row has no columns: there is nothing to read.
            rows: if columns == 0 {
                0
            } else {
                outer.iter().product()
            },
            row_bytes,
            block_rows: (block / row_bytes.max(1)).max(1) as usize,
            next: 0,
            values: Vec::new(),
        })
    }

    /// The vector `name` of `len` numbers, whole.
    pub async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        let mut out = Vec::with_capacity(len);
        self.rows(name, &[len], BLOCK_BYTES, |_, rows| {
            out.extend_from_slice(rows);
            Ok::<_, CheckpointError>(())
        })
        .await?;
        Ok(out)
    }

    fn missing(&self, name: &str) -> CheckpointError {
        CheckpointError::MissingTensor {
            tensor: name.into(),
            files: self
                .files
                .iter()
                .map(|f| f.source().name().into())
                .collect(),
        }
    }
}

/// Reads one tensor block by block; see [`Checkpoint::rows`].
pub struct RowReader<'a> {
    source: &'a Source,
    tensor: String,
    encoding: Encoding,
    start: u64,
    columns: usize,
    rows: usize,
    row_bytes: u64,
    block_rows: usize,
    next: usize,
    values: Vec<f32>,
}

impl RowReader<'_> {
    /// The next block as `(first_row, rows)`, `rows` being `[n, columns]`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(usize, &[f32])>, CheckpointError> {
        let first = self.next;
        let n = self.block_rows.min(self.rows - first);
        if n == 0 {
            return Ok(None);
        }
        let start = self.start + first as u64 * self.row_bytes;
        let bytes = self
            .source
            .read(start..start + n as u64 * self.row_bytes)
            .await?;
        self.values.clear();
        append_f32(self.encoding, &bytes, &mut self.values);
        if let Some(at) = first_not_finite(&self.values) {
            return Err(CheckpointError::NotFinite {
                file: self.source.name().into(),
                tensor: self.tensor.clone(),
                row: first + at / self.columns,
                column: at % self.columns,
                value: self.values[at],
            });
        }
        self.next += n;
        Ok(Some((first, &self.values)))
    }
}
