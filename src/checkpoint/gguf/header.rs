//! The header of a GGUF file: read by growing prefixes, everything in it checked.

use std::collections::BTreeMap;
use std::ops::Range;

use super::metadata::Kind;

/// The most keys, and the most tensors, that make sense.
const MAX_ENTRIES: u64 = 1 << 16;

/// Arrays in arrays at most.
const MAX_DEPTH: usize = 4;

/// The most dimensions of a tensor: GGML's.
const MAX_DIMENSIONS: u32 = 4;

/// Why a header cannot be read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It goes on to this byte of the file at least.
    More(u64),
    /// It is wrong.
    Bad(Part, String),
}

/// The part of a header that is wrong.
#[derive(Debug)]
pub(super) enum Part {
    File,
    Key(String),
    Tensor(String),
}

/// A tensor's entry as the file has it.
pub(super) struct Entry {
    pub name: String,
    /// Innermost dimension first.
    pub dimensions: Vec<u64>,
    pub encoding: u32,
    /// From the start of the data.
    pub offset: u64,
}

/// A header whose parts are each valid; whether the tensors fit the file is not checked yet.
pub(super) struct Header {
    pub metadata: BTreeMap<String, (Kind, Range<usize>)>,
    pub tensors: Vec<Entry>,
    /// Bytes that it takes.
    pub len: u64,
}

/// Reads the header of a file of `len` bytes from its first `bytes`.
pub(super) fn parse(bytes: &[u8], len: u64) -> Result<Header, Stop> {
    let mut cursor = Cursor { bytes, at: 0, len };
    let bad = |reason: &str| Stop::Bad(Part::File, reason.into());
    let magic = cursor.fixed::<4>()?;
    if &magic != b"GGUF" {
        return Err(bad("it does not begin with \"GGUF\": get it again"));
    }
    match cursor.u32()? {
        2 | 3 => {}
        1 => {
            return Err(bad(
                "it has version 1 of the format; 2 and 3 are read: convert the model again",
            ));
        }
        version if version & 0xFFFF == 0 => {
            return Err(bad(
                "its numbers are big-endian; only little-endian files are read",
            ));
        }
        version => {
            return Err(Stop::Bad(
                Part::File,
                format!("it has version {version} of the format; 2 and 3 are read"),
            ));
        }
    }
    let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
    for (count, what) in [(tensors, "tensors"), (keys, "keys")] {
        if count > MAX_ENTRIES {
            return Err(Stop::Bad(
                Part::File,
                format!("it claims {count} {what}; up to {MAX_ENTRIES} make sense: get it again"),
            ));
        }
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..keys {
        let key = cursor.name("a key")?;
        let value = cursor.value().map_err(|stop| match stop {
            Stop::Bad(_, reason) => Stop::Bad(Part::Key(key.clone()), reason),
            more => more,
        })?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Stop::Bad(Part::Key(key), "is there twice".into()));
        }
    }
    let mut entries = Vec::new();
    for _ in 0..tensors {
        let name = cursor.name("a tensor's name")?;
        let (dimensions, encoding, offset) = cursor.entry().map_err(|stop| match stop {
            Stop::Bad(_, reason) => Stop::Bad(Part::Tensor(name.clone()), reason),
            more => more,
        })?;
        entries.push(Entry {
            name,
            dimensions,
            encoding,
            offset,
        });
    }
    Ok(Header {
        metadata,
        tensors: entries,
        len: cursor.at as u64,
    })
}

/// A place in the first bytes of a file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The file's length.
    len: u64,
}

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    fn take(&mut self, n: u64) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => match (self.at as u64).checked_add(n).filter(|&to| to <= self.len) {
                Some(to) => Err(Stop::More(to)),
                None => Err(Stop::Bad(
                    Part::File,
                    format!(
                        "claims {n} bytes from byte {} on, in a file of {}: the file is cut short \
                         or corrupt, get it again",
                        self.at, self.len
                    ),
                )),
            },
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.take(N as u64)?);
        Ok(fixed)
    }

    fn u32(&mut self) -> Result<u32, Stop> {
        self.fixed().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        self.fixed().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, Stop> {
        let len = self.u64()?;
        std::str::from_utf8(self.take(len)?)
            .map_err(|_| Stop::Bad(Part::File, "holds text that is not UTF-8".into()))
    }

    /// A text that names something.
    fn name(&mut self, what: &str) -> Result<String, Stop> {
        let at = self.at;
        let name = self.text().map_err(|stop| match stop {
            Stop::Bad(part, reason) => Stop::Bad(part, format!("{what} at byte {at} {reason}")),
            more => more,
        })?;
        Ok(name.into())
    }

    /// The type of a value, and where it is.
    fn value(&mut self) -> Result<(Kind, Range<usize>), Stop> {
        let kind = self.kind()?;
        let start = self.at;
        self.skip(kind, MAX_DEPTH)?;
        Ok((kind, start..self.at))
    }

    fn kind(&mut self) -> Result<Kind, Stop> {
        let number = self.u32()?;
        Kind::of(number).ok_or_else(|| {
            Stop::Bad(
                Part::File,
                format!("has type {number}, which the format does not know"),
            )
        })
    }

    /// Moves behind a value, which is checked.
    fn skip(&mut self, kind: Kind, depth: usize) -> Result<(), Stop> {
        if let Some(width) = kind.width() {
            self.take(width as u64)?;
            return Ok(());
        }
        if kind == Kind::Text {
            self.text()?;
            return Ok(());
        }
        if depth == 0 {
            return Err(Stop::Bad(
                Part::File,
                format!("holds arrays in arrays, more than {MAX_DEPTH} deep"),
            ));
        }
        let (kind, len) = (self.kind()?, self.u64()?);
        // A text takes the 8 bytes of its length at least, an array 12.
        let least = kind.width().unwrap_or(8) as u64;
        let bytes = len.checked_mul(least);
        let Some(bytes) = bytes.filter(|&bytes| bytes <= self.len - self.at as u64) else {
            return Err(Stop::Bad(
                Part::File,
                format!(
                    "claims {len} values in a file of {} bytes: the file is cut short or corrupt, \
                     get it again",
                    self.len
                ),
            ));
        };
        if kind.width().is_some() {
            self.take(bytes)?;
            return Ok(());
        }
        for _ in 0..len {
            self.skip(kind, depth - 1)?;
        }
        Ok(())
    }

    /// What follows a tensor's name.
    fn entry(&mut self) -> Result<(Vec<u64>, u32, u64), Stop> {
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Stop::Bad(
                Part::File,
                format!("it claims {dimensions} dimensions; up to {MAX_DIMENSIONS} make sense"),
            ));
        }
        let dimensions = (0..dimensions)
            .map(|_| self.u64())
            .collect::<Result<_, _>>()?;
        Ok((dimensions, self.u32()?, self.u64()?))
    }
}
