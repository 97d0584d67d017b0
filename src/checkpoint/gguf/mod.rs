//! The directory of one GGUF file, read and checked without its data.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3.

mod header;
mod metadata;

use std::collections::BTreeMap;
use std::ops::Range;

use super::safetensors::other_format;
use super::split::Split;
use super::{ByteSource, CheckpointError, Encoding, Folder, MAX_HEADER, Source};
use header::{Entry, Part, Stop};
pub use metadata::{Array, Metadata, Value};

/// The first bytes of a file that are read: the whole header of most models without a vocabulary.
const FIRST_READ: u64 = 256 << 10;

/// The alignment of the data of a file that names none.
const ALIGNMENT: u64 = 32;

/// One tensor in a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// How its numbers are stored.
    pub encoding: Encoding,
    /// Its shape, the last dimension contiguous (the file has it the other way round).
    pub shape: Vec<usize>,
    /// Which of the model's files holds it, from 0.
    pub file: usize,
    /// Where its bytes are, counted from the start of the file.
    pub range: Range<u64>,
}

/// One GGUF model, in a file or in several: its metadata, its directory, and the sources of its data.
pub struct Gguf {
    source: Source,
    /// The further files of a model that is split.
    more: Vec<Source>,
    metadata: Metadata,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Gguf {
    /// Reads and checks the header, and nothing else of the file. A file may have no tensors: one
    /// of a vocabulary only.
    ///
    /// Refused: a header longer than [`MAX_HEADER`] or than the file, malformed or repeated
    /// entries, encodings that are not known, shapes that do not fit their encoding, tensors that
    /// are not aligned, overlap, or reach beyond the file.
    pub async fn open(source: Source) -> Result<Self, CheckpointError> {
        let file = source.name().to_string();
        let bad = |part: Part, reason: String| match part {
            Part::File => CheckpointError::Gguf {
                file: file.clone(),
                reason,
            },
            Part::Key(key) => CheckpointError::Key {
                file: file.clone(),
                key,
                reason,
            },
            Part::Tensor(tensor) => CheckpointError::Tensor {
                file: file.clone(),
                tensor,
                reason,
            },
        };
        let len = source.len().await?;
        let mut bytes = Vec::new();
        let mut end = FIRST_READ.min(len);
        let header = loop {
            let more = source.read(bytes.len() as u64..end).await?;
            if bytes.is_empty() {
                bytes = more;
            } else {
                bytes.extend_from_slice(&more);
            }
            if let Some(what) = bytes.first_chunk().and_then(other_format)
                && !bytes.starts_with(b"GGUF")
            {
                return Err(bad(Part::File, format!("it is {what}")));
            }
            match header::parse(&bytes, len) {
                Ok(header) => break header,
                Err(Stop::Bad(part, reason)) => return Err(bad(part, reason)),
                Err(Stop::More(to)) if to > MAX_HEADER => {
                    return Err(bad(
                        Part::File,
                        format!("its header has more than {MAX_HEADER} bytes: get it again"),
                    ));
                }
                // Doubled, so that reading again from the start is no more than twice the work.
                Err(Stop::More(to)) => end = to.max(2 * end).min(MAX_HEADER).min(len),
            }
        };
        source.put_back(header.len, &bytes[header.len as usize..]);
        bytes.truncate(header.len as usize);
        bytes.shrink_to_fit();
        let metadata = Metadata::new(file.clone(), bytes, header.metadata);
        let alignment = metadata.unsigned("general.alignment")?.unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(metadata.bad(
                "general.alignment",
                format!("is {alignment}; a power of two up to 2^20 is needed"),
            ));
        }
        let start = header.len.next_multiple_of(alignment);
        let tensors = directory(header.tensors, start, len, alignment)
            .map_err(|(tensor, reason)| bad(Part::Tensor(tensor), reason))?;
        Ok(Self {
            source,
            more: Vec::new(),
            metadata,
            tensors,
        })
    }

    /// Opens the one model in `.gguf` files of a folder, if there is one; several are refused. There is
    /// none beside a model of `config.json` and `.safetensors`, nor under an address, where files cannot
    /// be listed.
    pub async fn find(folder: &Folder) -> Result<Option<Self>, CheckpointError> {
        let mut files = folder.names()?.unwrap_or_default();
        let has = |is: &dyn Fn(&str) -> bool| files.iter().any(|name| is(name));
        if has(&|name| name == "config.json") && has(&|name| name.ends_with(".safetensors")) {
            return Ok(None);
        }
        files.retain(|name| is_model(name));
        let Some(first) = files.first() else {
            return Ok(None);
        };
        let parts = Split::names_with(first);
        if !files.iter().all(|name| parts.contains(name)) {
            return Err(CheckpointError::SeveralModels {
                folder: folder.label().into(),
                files,
            });
        }
        let mut opened = Vec::with_capacity(parts.len());
        for name in parts {
            let Some(source) = folder.open(&name).await? else {
                return Err(CheckpointError::MissingPart {
                    folder: folder.described(),
                    file: name,
                });
            };
            let part = Self::open(source).await?;
            if !opened.is_empty() {
                // Only the first is read next.
                part.source.release();
            }
            opened.push(part);
        }
        Self::join(opened)
    }

    /// Makes one model of its files, of which the first has the metadata.
    ///
    /// Refused: files that say that they are other parts, or of more, and a tensor that is in two.
    fn join(parts: Vec<Self>) -> Result<Option<Self>, CheckpointError> {
        let count = parts.len();
        let mut whole: Option<Self> = None;
        for (at, part) in parts.into_iter().enumerate() {
            if count > 1 {
                part.check_part("split.no", at)?;
                part.check_part("split.count", count)?;
            }
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.add(part)?,
            }
        }
        if let Some(whole) = whole.as_ref().filter(|_| count > 1) {
            whole.check_part("split.tensors.count", whole.tensors.len())?;
        }
        Ok(whole)
    }

    /// Refuses a file whose key says another number, if it says one.
    fn check_part(&self, key: &str, number: usize) -> Result<(), CheckpointError> {
        match self.metadata.unsigned(key)? {
            Some(says) if says != number as u64 => Err(self.metadata.bad(
                key,
                format!("is {says}, and {number} is needed: the files are not of one model"),
            )),
            _ => Ok(()),
        }
    }

    /// Adds the next file of the model.
    fn add(&mut self, part: Self) -> Result<(), CheckpointError> {
        self.more.push(part.source);
        for (name, mut tensor) in part.tensors {
            tensor.file = self.more.len();
            if self.tensors.contains_key(&name) {
                return Err(CheckpointError::Tensor {
                    file: self.name_of(tensor.file).into(),
                    tensor: name,
                    reason: "another of the model's files has it too: get them again".into(),
                });
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The directory's entry of a tensor, by the name that the file has for it.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Where the bytes of the first file come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it has a vocabulary.
    pub fn has_vocabulary(&self) -> bool {
        self.metadata.get("tokenizer.ggml.tokens").is_some()
    }

    /// The model's files.
    pub fn parts(&self) -> usize {
        1 + self.more.len()
    }

    /// The name of one of the model's files.
    pub(super) fn name_of(&self, file: usize) -> &str {
        let more = file.checked_sub(1).and_then(|at| self.more.get(at));
        more.unwrap_or(&self.source).name()
    }

    /// All bytes of a tensor.
    pub async fn read(&self, tensor: &GgufTensor) -> Result<Vec<u8>, CheckpointError> {
        let more = tensor.file.checked_sub(1).and_then(|at| self.more.get(at));
        let source = more.unwrap_or(&self.source);
        Ok(source.read(tensor.range.clone()).await?)
    }

    /// Takes the sources of the further files.
    pub(super) fn take_more(&mut self) -> Vec<Source> {
        std::mem::take(&mut self.more)
    }
}

/// Whether a file may be a model's: not a vocabulary, nor what lets a model see images.
fn is_model(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let other = ["mmproj", "ggml-vocab"];
    name.ends_with(".gguf") && !other.iter().any(|start| name.starts_with(start))
}

/// Checks the entries against each other and against the file: data from `start` to `end`. A
/// failure is a tensor's name and what is wrong with it.
fn directory(
    mut entries: Vec<Entry>,
    start: u64,
    end: u64,
    alignment: u64,
) -> Result<BTreeMap<String, GgufTensor>, (String, String)> {
    entries.sort_by_key(|entry| entry.offset);
    let mut tensors = BTreeMap::new();
    let mut covered = start;
    for entry in entries {
        let (tensor, to) = place(&entry, start, end, alignment, covered)
            .map_err(|reason| (entry.name.clone(), reason))?;
        covered = covered.max(to);
        if tensors.insert(entry.name.clone(), tensor).is_some() {
            return Err((entry.name, "it is listed twice".into()));
        }
    }
    Ok(tensors)
}

/// Says that a tensor of an encoding that is not read cannot be used.
fn unread(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24..=28 => "I8, I16, I32, I64 or F64",
        29 => "IQ1_M",
        34 | 35 => "TQ1_0 or TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    };
    let read: Vec<String> = Encoding::ALL.iter().map(Encoding::to_string).collect();
    format!(
        "its encoding ({name}, number {number}) is not read; {} are: choose a file of one of these",
        read.join(", ")
    )
}

/// Checks one entry; those before it reach to byte `covered`. Gives the byte after its last.
fn place(
    entry: &Entry,
    start: u64,
    end: u64,
    alignment: u64,
    covered: u64,
) -> Result<(GgufTensor, u64), String> {
    let encoding = Encoding::from_ggml(entry.encoding).ok_or_else(|| unread(entry.encoding))?;
    let (block, block_bytes) = (encoding.block() as u64, encoding.block_bytes() as u64);
    let row = entry.dimensions.first().copied().unwrap_or(1);
    if !row.is_multiple_of(block) {
        return Err(format!(
            "its rows of {row} numbers are not whole blocks of {block}"
        ));
    }
    let rows = entry.dimensions.iter().skip(1);
    let bytes = rows.fold((row / block).checked_mul(block_bytes), |bytes, dim| {
        bytes?.checked_mul(*dim)
    });
    let range = start.checked_add(entry.offset).and_then(|from| {
        let to = from.checked_add(bytes?)?;
        Some(from..to)
    });
    let Some(range) = range.filter(|range| range.end <= end) else {
        return Err(format!(
            "shape {:?} from byte {} of the data on reaches beyond the file's {end} bytes",
            entry.dimensions, entry.offset
        ));
    };
    if !entry.offset.is_multiple_of(alignment) {
        return Err(format!(
            "it starts at byte {} of the data, which is no multiple of {alignment}",
            entry.offset
        ));
    }
    if range.start < covered && !range.is_empty() {
        return Err("it overlaps the one before".into());
    }
    let shape = entry.dimensions.iter().rev();
    let shape = shape
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("shape {:?} is too large", entry.dimensions))?;
    let to = range.end;
    let tensor = GgufTensor {
        encoding,
        shape,
        file: 0,
        range,
    };
    Ok((tensor, to))
}
