//! The bytes of one entry of a zip archive, in order.

use std::ops::Range;

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

use super::{ByteSource, CheckpointError, Source};

/// Bytes of the file that are read at a time.
const CHUNK: u64 = 1 << 20;

/// An entry as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    /// Where its bytes are.
    pub range: Range<u64>,
    /// Whether they are deflated.
    pub deflated: bool,
    /// Bytes of it unpacked.
    pub size: u64,
    /// The checksum of these.
    pub crc: u32,
}

/// Reads an entry from its beginning, unpacking it where it is packed.
pub(super) struct Body<'a> {
    source: &'a Source,
    /// The next byte in the file, and the end.
    at: u64,
    end: u64,
    /// Unpacked bytes that are left.
    left: u64,
    inflater: Option<Inflater>,
    /// The checksum so far; none when bytes were jumped over.
    checksum: Option<crc32fast::Hasher>,
    crc: u32,
}

struct Inflater {
    state: Box<InflateState>,
    /// Packed bytes that have been read, and how many are used.
    packed: Vec<u8>,
    used: usize,
}

impl<'a> Body<'a> {
    pub fn new(source: &'a Source, packed: &Packed) -> Self {
        let inflater = || Inflater {
            state: InflateState::new_boxed(DataFormat::Raw),
            packed: Vec::new(),
            used: 0,
        };
        Self {
            source,
            at: packed.range.start,
            end: packed.range.end,
            left: packed.size,
            inflater: packed.deflated.then(inflater),
            checksum: Some(crc32fast::Hasher::new()),
            crc: packed.crc,
        }
    }

    fn corrupt(&self, what: &str) -> CheckpointError {
        CheckpointError::Npz {
            file: self.source.name().into(),
            reason: format!("{what}: the file is corrupt, get it again"),
        }
    }

    /// The next `n` bytes; past the last one, the checksum is compared.
    pub async fn read(&mut self, n: usize) -> Result<Vec<u8>, CheckpointError> {
        if n as u64 > self.left {
            return Err(self.corrupt("an array ends early"));
        }
        let out = match self.inflater {
            None => {
                let bytes = self.source.read(self.at..self.at + n as u64).await?;
                self.at += n as u64;
                bytes
            }
            Some(_) => self.unpack(n).await?,
        };
        self.left -= n as u64;
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&out);
            if self.left == 0 && checksum.clone().finalize() != self.crc {
                return Err(self.corrupt("the checksum of an array is wrong"));
            }
        }
        Ok(out)
    }

    /// Passes over `n` bytes, without reading them where they are not packed and many.
    pub async fn skip(&mut self, n: u64) -> Result<(), CheckpointError> {
        if self.inflater.is_none() && n > CHUNK {
            if n > self.left {
                return Err(self.corrupt("an array ends early"));
            }
            self.checksum = None;
            self.at += n;
            self.left -= n;
            return Ok(());
        }
        let mut left = n;
        while left > 0 {
            let now = left.min(CHUNK);
            self.read(now as usize).await?;
            left -= now;
        }
        Ok(())
    }

    async fn unpack(&mut self, n: usize) -> Result<Vec<u8>, CheckpointError> {
        let mut out = vec![0; n];
        let mut filled = 0;
        while filled < n {
            let Some(inflater) = &mut self.inflater else {
                break;
            };
            if inflater.used == inflater.packed.len() && self.at < self.end {
                let to = self.end.min(self.at + CHUNK);
                inflater.packed = self.source.read(self.at..to).await?;
                inflater.used = 0;
                self.at = to;
            }
            let step = inflate(
                &mut inflater.state,
                &inflater.packed[inflater.used..],
                &mut out[filled..],
                MZFlush::None,
            );
            inflater.used += step.bytes_consumed;
            filled += step.bytes_written;
            let stuck = step.bytes_consumed == 0 && step.bytes_written == 0;
            let ended = matches!(step.status, Ok(MZStatus::StreamEnd)) && filled < n;
            let broken = step.status.is_err() && stuck;
            if ended || broken || (stuck && self.at == self.end) {
                return Err(self.corrupt("an array cannot be unpacked"));
            }
        }
        Ok(out)
    }
}
