//! The directory of one safetensors file, read and checked without its data.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. The names of the types come from
//! the `safetensors` crate; its directory is not used because its offsets are `usize`, which on
//! wasm32 ends at 4 GiB, less than the first shard of Phi-3 Mini.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

pub use ::safetensors::Dtype;

use super::{ByteSource, CheckpointError, Source, TensorType};

/// The longest header that is read, in bytes: that of the reference implementation.
pub const MAX_HEADER: u64 = 100_000_000;

/// One tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its numbers.
    pub dtype: TensorType,
    /// Its shape, the last dimension contiguous.
    pub shape: Vec<usize>,
    /// Where its bytes are, counted from the start of the file.
    pub range: Range<u64>,
}

/// One safetensors file: its directory, and the source of its data.
pub struct Safetensors {
    source: Source,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Safetensors {
    /// Reads and checks the header, and nothing else of the file.
    ///
    /// Refused: a header longer than [`MAX_HEADER`] or than the file, malformed or repeated
    /// entries, shapes that do not match their bytes, tensors that overlap, leave holes, or reach
    /// beyond the file, bytes after the last tensor.
    pub async fn open(source: Source) -> Result<Self, CheckpointError> {
        let file = source.name().to_string();
        let header = |reason: String| CheckpointError::Header {
            file: file.clone(),
            reason,
        };
        let len = source.len().await?;
        if len < 8 {
            return Err(header(format!(
                "it has {len} bytes, not even the 8 that a header length takes: get it again"
            )));
        }
        let start = source.read(0..8).await?;
        let mut eight = [0; 8];
        eight.copy_from_slice(&start);
        let header_len = u64::from_le_bytes(eight);
        if header_len > MAX_HEADER || header_len > len - 8 {
            return Err(header(match other_format(&eight) {
                Some(what) => format!("it is {what}"),
                None => format!(
                    "its header claims {header_len} bytes, in a file of {len}: the file is cut short \
                     or corrupt, get it again"
                ),
            }));
        }
        let json = source.read(8..8 + header_len).await?;
        let Header(entries) = serde_json::from_slice(&json)
            .map_err(|e| header(format!("its header cannot be read: {e}")))?;
        let tensors = directory(&file, entries, 8 + header_len, len)?;
        Ok(Self { source, tensors })
    }

    /// The directory's entry of a tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Where the file's bytes come from.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// What a file that is no safetensors file is instead, by its first bytes.
pub(super) fn other_format(start: &[u8; 8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 6] = [
        (
            b"version ",
            "a Git LFS pointer: get the file itself, with `git lfs pull`",
        ),
        (
            b"<!",
            "a web page, most likely an error page: check the address",
        ),
        (
            b"<html",
            "a web page, most likely an error page: check the address",
        ),
        (b"GGUF", "a GGUF file: its name must end in .gguf"),
        (
            b"PK\x03\x04",
            "a PyTorch or zip file: get the checkpoint in safetensors format",
        ),
        (b"\x1f\x8b", "a gzip file: unpack it first"),
    ];
    let found = known.iter().find(|(magic, _)| start.starts_with(magic));
    found.map(|(_, what)| *what)
}

/// The header's entries in the order of the file, so that a repeated name can be seen.
struct Header(Vec<(String, Entry)>);

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        continue;
                    }
                    let entry = map
                        .next_value()
                        .map_err(|e| A::Error::custom(format_args!("tensor \"{name}\": {e}")))?;
                    entries.push((name, entry));
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Checks the entries against each other and against the file: data from `start` to `end`.
fn directory(
    file: &str,
    mut entries: Vec<(String, Entry)>,
    start: u64,
    end: u64,
) -> Result<BTreeMap<String, TensorInfo>, CheckpointError> {
    entries.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut tensors = BTreeMap::new();
    let mut covered = 0;
    for (name, entry) in entries {
        let fail = |reason: String| CheckpointError::Entry {
            file: file.into(),
            tensor: name.clone(),
            reason,
        };
        let (from, to) = entry.data_offsets;
        if to < from || to > end - start {
            return Err(fail(format!(
                "its bytes {from}..{to} are outside the file's {} bytes of data",
                end - start
            )));
        }
        if from != covered {
            let what = if from < covered {
                "overlaps the one before"
            } else {
                "leaves a hole before it"
            };
            return Err(fail(format!(
                "it {what} (it starts at byte {from}, not {covered})"
            )));
        }
        covered = to;
        let bits = entry
            .shape
            .iter()
            .try_fold(entry.dtype.bitsize() as u64, |size, &dim| {
                size.checked_mul(dim)
            });
        if bits != (to - from).checked_mul(8) || bits.is_none() {
            return Err(fail(format!(
                "shape {:?} of {} does not take the {} bytes it has",
                entry.shape,
                entry.dtype,
                to - from
            )));
        }
        // An empty tensor may have dimensions that no memory could hold.
        let shape = entry
            .shape
            .iter()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<_, _>>()
            .map_err(|_| fail(format!("shape {:?} is too large", entry.shape)))?;
        let info = TensorInfo {
            dtype: entry.dtype.into(),
            shape,
            range: start + from..start + to,
        };
        if tensors.insert(name.clone(), info).is_some() {
            return Err(fail("it is listed twice".into()));
        }
    }
    if covered != end - start {
        return Err(CheckpointError::Header {
            file: file.into(),
            reason: format!(
                "its tensors take {covered} bytes but {} follow the header: the file is corrupt, get \
                 it again",
                end - start
            ),
        });
    }
    Ok(tensors)
}
