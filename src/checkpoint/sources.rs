//! The kinds of sources as one type.

use std::ops::Range;

use super::SourceError;
use super::source::{ByteSource, MemorySource};

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
