//! Files read by ranges.

use std::ops::Range;
use std::sync::Arc;

use super::progress::Meter;
use super::{Cancel, SourceError};

/// The longest file that is read, in bytes: more than any model's.
pub(super) const MAX_FILE: u64 = 1 << 38;

/// A file whose bytes are read by ranges.
// Futures are not `Send` in a browser, and a file's length is no container's.
#[allow(async_fn_in_trait, clippy::len_without_is_empty)]
pub trait ByteSource {
    /// The file's length in bytes.
    async fn len(&self) -> Result<u64, SourceError>;
    /// The bytes of `range`, all of them: a range beyond the end is an error, and so is a file that
    /// ends early.
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError>;
    /// The file's name, for messages.
    fn name(&self) -> &str;
}

/// A range checked against the file's length, as a place in memory.
pub(super) fn check_range(file: &str, range: &Range<u64>, len: u64) -> Result<(), SourceError> {
    if range.start > range.end || range.end > len {
        return Err(SourceError::OutOfRange {
            file: file.into(),
            range: range.clone(),
            len,
        });
    }
    // Only wasm32 has addresses shorter than u64.
    if usize::try_from(range.end - range.start).is_err() {
        return Err(SourceError::TooLarge {
            file: file.into(),
            len: range.end - range.start,
            cap: usize::MAX as u64,
        });
    }
    Ok(())
}

/// A file that is already in memory.
pub struct MemorySource {
    name: String,
    bytes: Arc<[u8]>,
    meter: Meter,
    cancel: Cancel,
}

impl MemorySource {
    /// A file called `name` (for messages) with these bytes.
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self::watched(name.into(), bytes.into(), Meter::default(), Cancel::new())
    }

    pub(super) fn watched(name: String, bytes: Arc<[u8]>, meter: Meter, cancel: Cancel) -> Self {
        Self {
            name,
            bytes,
            meter,
            cancel,
        }
    }
}

impl ByteSource for MemorySource {
    async fn len(&self) -> Result<u64, SourceError> {
        Ok(self.bytes.len() as u64)
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        self.cancel.check(&self.name)?;
        let len = self.bytes.len() as u64;
        check_range(&self.name, &range, len)?;
        self.meter.add(range.end - range.start, len);
        Ok(self.bytes[range.start as usize..range.end as usize].to_vec())
    }

    fn name(&self) -> &str {
        &self.name
    }
}
