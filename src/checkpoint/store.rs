//! The tensors of a checkpoint, in whatever files they are, streamed block by block.

use std::collections::BTreeMap;
use std::ops::Range;

use super::convert::{append_f32, first_not_finite};
use super::entry::{Content, Run, TensorEntry, rows_of};
use super::files::{BLOCK_BYTES, File, Files};
use super::planes::{PlaneReader, PlaneRows};
use super::raw::{RawPiece, RawRows};
use super::rows::RowReader;
use super::shards::{self, Shards};
use super::{
    ByteSource, CheckpointError, Folder, Gguf, MAX_JSON, Safetensors, Source, SourceError,
};
use super::{names, repack, tensors};
use crate::quant::{Format, GROUP};

/// The tensors of one safetensors file, of several listed in an index, or of a GGUF file, under
/// Hugging Face's names. Files of the project's own format hold planes in place of matrices; see
/// [`Checkpoint::planes`].
pub struct Checkpoint {
    files: Files,
    tensors: BTreeMap<String, TensorEntry>,
    /// Tensors of files that are not there, each with the file that the index names.
    absent: BTreeMap<String, String>,
    /// The folder of those files, for messages.
    folder: String,
}

impl Checkpoint {
    /// Opens `{base}.safetensors`, or the files that `{base}.safetensors.index.json` lists; `base`
    /// is `model` for a model, `sae` for a dictionary. Where neither is there and files can be listed, the
    /// only `.safetensors` file beside them, or all files of one that is split without an index. Reads
    /// headers only.
    pub async fn open(folder: &Folder, base: &str) -> Result<Self, CheckpointError> {
        let single = format!("{base}.safetensors");
        if let Some(source) = folder.open(&single).await? {
            return Self::from_source(source).await;
        }
        let index = format!("{base}.safetensors.index.json");
        if let Some(json) = folder.bytes(&index, MAX_JSON).await? {
            let shards = Shards::of_index(folder, &index, &json).await?;
            return Self::of_shards(shards, folder);
        }
        let files = shards::only(folder, base);
        match &files[..] {
            [] => Err(CheckpointError::NoWeights {
                folder: folder.described(),
                looked: vec![single, index],
            }),
            [file] => Self::from_source(folder.require(file).await?).await,
            files => Self::of_shards(Shards::all(folder, files).await?, folder),
        }
    }

    /// Opens one safetensors file.
    pub async fn from_source(source: Source) -> Result<Self, CheckpointError> {
        let file = Safetensors::open(source).await?;
        let names: Vec<String> = file.names().map(Into::into).collect();
        let files = vec![File::Safetensors(file)];
        let tensors = tensors::of_safetensors(&files, names.iter().map(|name| (&name[..], 0)))?;
        Ok(Self::new(files, tensors))
    }

    /// The tensors of a GGUF model.
    ///
    /// Fails if it has the parts of a fused matrix that cannot be put together: of different widths, or
    /// twice the same.
    pub fn from_gguf(mut gguf: Gguf) -> Result<Self, CheckpointError> {
        let tensors = tensors::of_gguf(&gguf)?;
        let more = gguf.take_more();
        let mut files = vec![File::Gguf(gguf)];
        files.extend(more.into_iter().map(File::Part));
        Ok(Self::new(files, tensors))
    }

    /// The tensors of several safetensors files.
    fn of_shards(shards: Shards, folder: &Folder) -> Result<Self, CheckpointError> {
        let Shards {
            files,
            tensors,
            absent,
        } = shards;
        let files: Vec<File> = files.into_iter().map(File::Safetensors).collect();
        let tensors = tensors::of_safetensors(&files, tensors.iter().map(|(t, at)| (&t[..], *at)))?;
        let absent = absent.into_iter();
        let absent = absent
            .map(|(name, file)| (names::of_safetensors(&name).name, file))
            .collect();
        Ok(Self {
            absent,
            folder: folder.described(),
            ..Self::new(files, tensors)
        })
    }

    fn new(files: Vec<File>, tensors: BTreeMap<String, TensorEntry>) -> Self {
        Self {
            files: Files::new(files),
            tensors,
            absent: BTreeMap::new(),
            folder: String::new(),
        }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What is known of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.get(name)
    }

    /// The GGUF model, if the tensors are one's.
    pub fn gguf(&self) -> Option<&Gguf> {
        match self.files.all() {
            [File::Gguf(gguf), ..] => Some(gguf),
            _ => None,
        }
    }

    /// The places of a tensor's rows, in no order; a vector is one row. None of a tensor that is not there.
    pub fn runs(&self, name: &str) -> Vec<Run> {
        let Some(entry) = self.tensors.get(name) else {
            return Vec::new();
        };
        let mut first = 0;
        let mut run = |rows: usize, file: usize, start: u64| {
            let rows = first..first + rows;
            first = rows.end;
            Run { file, start, rows }
        };
        match &entry.content {
            Content::Planes { pieces, .. } => {
                let runs = pieces.iter().map(|piece| {
                    let start = piece.words.range.start.min(piece.side.range.start);
                    run(piece.rows, piece.words.file, start)
                });
                runs.collect()
            }
            Content::Numbers(pieces) => {
                let runs = pieces
                    .iter()
                    .map(|part| run(part.rows, part.piece.file, part.piece.range.start));
                runs.collect()
            }
        }
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
        let columns = expected.last().copied().unwrap_or(1);
        let entry = self.entry(name, expected)?;
        match &entry.content {
            Content::Planes { format, pieces } => {
                let pieces = pieces.clone();
                let rows = PlaneRows::new(&self.files, name, *format, pieces, columns, block_bytes);
                Ok(RowReader::planes(rows, columns))
            }
            Content::Numbers(_) => {
                let rows = self.raw(name, entry, expected, block_bytes)?;
                Ok(RowReader::numbers(rows, columns))
            }
        }
    }

    /// Reads the matrix `name` of shape `[rows, columns]` as planes: kept as the file has them where
    /// it is quantised (GGUF's K-quants with their scales rounded to f16), else quantised to
    /// `format`: F32, Q4 or Q8. A fused matrix whose parts are stored differently is in a format that
    /// keeps them all, or in Q8 where there is none; [`Checkpoint::formats`] says which of its rows can
    /// be had as they are, and [`Checkpoint::planes_of`] reads them.
    ///
    /// Fails as [`Checkpoint::rows`] does; a scale that is not finite, or too large for f16, is no
    /// number either.
    pub fn planes(
        &self,
        name: &str,
        shape: [usize; 2],
        format: Format,
    ) -> Result<PlaneReader<'_>, CheckpointError> {
        self.planes_of(name, shape, 0..shape[0], format)
    }

    /// The rows of the matrix `name` that are kept in one format each, in order: a single run unless it
    /// is put together of parts that are stored differently.
    pub fn formats(
        &self,
        name: &str,
        shape: [usize; 2],
        format: Format,
    ) -> Result<Vec<(Range<usize>, Format)>, CheckpointError> {
        let entry = self.entry(name, &shape)?;
        let Content::Numbers(_) = &entry.content else {
            let format = self.planes(name, shape, format)?.format();
            return Ok(vec![(0..shape[0], format)]);
        };
        let raw = self.raw(name, entry, &shape, BLOCK_BYTES)?;
        let mut runs: Vec<(Range<usize>, Format)> = Vec::new();
        for piece in &raw.pieces {
            let own = repack::joint([piece.encoding].into_iter(), format);
            match runs.last_mut() {
                Some((rows, last)) if *last == own => rows.end += piece.rows,
                last => {
                    let first = last.map_or(0, |(rows, _)| rows.end);
                    runs.push((first..first + piece.rows, own));
                }
            }
        }
        Ok(runs)
    }

    /// As [`Checkpoint::planes`], the rows of `range` alone, in the format that they have in common.
    pub fn planes_of(
        &self,
        name: &str,
        shape: [usize; 2],
        range: Range<usize>,
        format: Format,
    ) -> Result<PlaneReader<'_>, CheckpointError> {
        let columns = shape[1];
        let entry = self.entry(name, &shape)?;
        match &entry.content {
            Content::Planes { format, pieces } => {
                let pieces = pieces.clone();
                let rows = PlaneRows::new(&self.files, name, *format, pieces, columns, BLOCK_BYTES);
                Ok(PlaneReader::planes(rows, columns).only(range))
            }
            Content::Numbers(_) => {
                let rows = self.raw(name, entry, &shape, BLOCK_BYTES)?;
                let mut first = 0;
                let encodings = rows.pieces.iter().filter_map(|piece| {
                    let own = first..first + piece.rows;
                    first = own.end;
                    (own.start < range.end && range.start < own.end).then_some(piece.encoding)
                });
                let format = repack::joint(encodings, format);
                Ok(PlaneReader::numbers(rows, columns, format).only(range))
            }
        }
    }

    /// The tensor `name`, which must have shape `expected`.
    fn entry(&self, name: &str, expected: &[usize]) -> Result<&TensorEntry, CheckpointError> {
        // A matrix may be there as planes.
        let planes = format!("{name}.");
        let is_its = |tensor: &&String| *tensor == name || tensor.starts_with(&planes);
        let later = self.absent.range(name.to_string()..);
        let mut later = later.take_while(|(tensor, _)| tensor.starts_with(name));
        if let Some((_, file)) = later.find(|(tensor, _)| is_its(tensor)) {
            return Err(SourceError::NotFound {
                file: file.clone(),
                folder: self.folder.clone(),
            }
            .into());
        }
        let Some(entry) = self.tensors.get(name) else {
            return Err(CheckpointError::MissingTensor {
                tensor: name.into(),
                files: (self.files.all().iter())
                    .map(|f| f.source().name().into())
                    .collect(),
            });
        };
        let fits = match (&entry.content, expected, &entry.shape[..]) {
            // How much of a row's last group is padding is not in the file.
            (Content::Planes { .. }, [rows, columns], [n, padded]) => {
                rows == n && columns.next_multiple_of(GROUP) == *padded
            }
            _ => entry.shape == expected,
        };
        if !fits {
            return Err(CheckpointError::WrongShape {
                file: self.files.name(entry.file()).into(),
                tensor: name.into(),
                found: entry.shape.clone(),
                expected: expected.into(),
            });
        }
        Ok(entry)
    }

    /// Reads a tensor's bytes.
    fn raw(
        &self,
        name: &str,
        entry: &TensorEntry,
        shape: &[usize],
        block_bytes: usize,
    ) -> Result<RawRows<'_>, CheckpointError> {
        let columns = shape.last().copied().unwrap_or(1);
        let numbers = match &entry.content {
            Content::Numbers(numbers) => &numbers[..],
            Content::Planes { .. } => &[],
        };
        let mut pieces = Vec::with_capacity(numbers.len());
        for part in numbers {
            let file = || self.files.name(part.piece.file).to_string();
            let Some(encoding) = part.dtype.encoding() else {
                return Err(CheckpointError::WrongType {
                    file: file(),
                    tensor: name.into(),
                    dtype: part.dtype,
                });
            };
            pieces.push(
                RawPiece::new(part, columns).ok_or_else(|| CheckpointError::Entry {
                    file: file(),
                    tensor: name.into(),
                    reason: format!("a row of {columns} is no whole number of {encoding} blocks"),
                })?,
            );
        }
        Ok(RawRows {
            files: &self.files,
            tensor: name.into(),
            pieces,
            block_bytes: block_bytes.min(BLOCK_BYTES) as u64,
            // No rows where a row has no columns: there is nothing to read.
            rows: if columns == 0 { 0 } else { rows_of(shape) },
            next: 0,
        })
    }

    /// Column `at` of the matrix `name` of shape `expected`, read element by element; none where the
    /// file is at an address, which would take a request for each, or quantised.
    pub async fn column(
        &self,
        name: &str,
        expected: [usize; 2],
        at: usize,
    ) -> Result<Option<Vec<f32>>, CheckpointError> {
        let entry = self.entry(name, &expected)?;
        let Content::Numbers(pieces) = &entry.content else {
            return Ok(None);
        };
        let [part] = &pieces[..] else {
            return Ok(None);
        };
        let encoding = part.dtype.encoding().filter(|e| !e.is_quantised());
        let piece = &part.piece;
        let source = self.files.source(piece.file);
        let Some(encoding) = encoding.filter(|_| source.is_local()) else {
            return Ok(None);
        };
        let number = encoding.block_bytes() as u64;
        let mut values = Vec::with_capacity(expected[0]);
        for row in 0..expected[0] as u64 {
            let from = piece.range.start + (row * expected[1] as u64 + at as u64) * number;
            let bytes = source.read(from..from + number).await?;
            append_f32(encoding, &bytes, &mut values);
        }
        match first_not_finite(&values) {
            Some(row) => Err(CheckpointError::NotFinite {
                file: source.name().into(),
                tensor: name.into(),
                row,
                column: at,
                value: values[row],
            }),
            None => Ok(Some(values)),
        }
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
}
