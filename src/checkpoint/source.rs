//! Files read by ranges.

use std::ops::Range;
use std::sync::Arc;

use super::progress::Meter;
use super::{Cancel, SourceError};

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

/// One of the kinds of [`ByteSource`].
pub enum Source {
    /// Bytes in memory.
    Memory(MemorySource),
    /// A file on disk.
    #[cfg(not(target_arch = "wasm32"))]
    File(super::FileSource),
    /// An address.
    #[cfg(target_arch = "wasm32")]
    Http(super::HttpSource),
    /// A browser `File` or `Blob`.
    #[cfg(target_arch = "wasm32")]
    Blob(super::BlobSource),
}

impl ByteSource for Source {
    async fn len(&self) -> Result<u64, SourceError> {
        match self {
            Self::Memory(s) => s.len().await,
            #[cfg(not(target_arch = "wasm32"))]
            Self::File(s) => s.len().await,
            #[cfg(target_arch = "wasm32")]
            Self::Http(s) => s.len().await,
            #[cfg(target_arch = "wasm32")]
            Self::Blob(s) => s.len().await,
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::Memory(s) => s.read(range).await,
            #[cfg(not(target_arch = "wasm32"))]
            Self::File(s) => s.read(range).await,
            #[cfg(target_arch = "wasm32")]
            Self::Http(s) => s.read(range).await,
            #[cfg(target_arch = "wasm32")]
            Self::Blob(s) => s.read(range).await,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Memory(s) => s.name(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::File(s) => s.name(),
            #[cfg(target_arch = "wasm32")]
            Self::Http(s) => s.name(),
            #[cfg(target_arch = "wasm32")]
            Self::Blob(s) => s.name(),
        }
    }
}

impl Source {
    /// The whole file, refused beyond `cap` bytes.
    pub async fn read_all(&self, cap: u64) -> Result<Vec<u8>, SourceError> {
        let len = self.len().await?;
        if len > cap {
            let file = self.name().into();
            return Err(SourceError::TooLarge { file, len, cap });
        }
        self.read(0..len).await
    }

    /// Whether the bytes are on this machine, so that many small reads are cheap.
    pub fn is_local(&self) -> bool {
        #[cfg(target_arch = "wasm32")]
        if let Self::Http(_) = self {
            return false;
        }
        true
    }

    /// Lets go of an open connection, if there is one; the next read opens another.
    pub(super) fn release(&self) {
        #[cfg(target_arch = "wasm32")]
        if let Self::Http(source) = self {
            source.release();
        }
    }

    /// Takes back the bytes from `at` on that were read last and are not needed yet, where reading them
    /// again would take a request.
    #[cfg_attr(not(target_arch = "wasm32"), allow(unused_variables))]
    pub(super) fn put_back(&self, at: u64, bytes: &[u8]) {
        #[cfg(target_arch = "wasm32")]
        if let Self::Http(source) = self {
            source.put_back(at, bytes);
        }
    }
}

impl From<MemorySource> for Source {
    fn from(source: MemorySource) -> Self {
        Self::Memory(source)
    }
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
