//! The files of a checkpoint.

use std::cell::Cell;

use super::{ByteSource, Gguf, Safetensors, Source};

/// The most bytes of a file that a block of rows takes, unless one row alone takes more.
pub const BLOCK_BYTES: usize = 4 << 20;

/// A file of tensors.
pub(super) enum File {
    Safetensors(Safetensors),
    Gguf(Gguf),
    /// A further file of a GGUF model.
    Part(Source),
}

impl File {
    pub fn source(&self) -> &Source {
        match self {
            Self::Safetensors(file) => file.source(),
            Self::Gguf(file) => file.source(),
            Self::Part(source) => source,
        }
    }
}

/// The files of a checkpoint, read one at a time.
pub(super) struct Files {
    all: Vec<File>,
    /// The file read last: only one holds a connection open.
    reading: Cell<usize>,
}

impl Files {
    pub fn new(all: Vec<File>) -> Self {
        Self {
            all,
            reading: Cell::new(0),
        }
    }

    pub fn all(&self) -> &[File] {
        &self.all
    }

    /// The name of a file, for messages.
    pub fn name(&self, file: usize) -> &str {
        self.all[file].source().name()
    }

    /// The source of a file that is about to be read; the others let go of their connections.
    pub fn source(&self, file: usize) -> &Source {
        if self.reading.replace(file) != file {
            for (other, f) in self.all.iter().enumerate() {
                if other != file {
                    f.source().release();
                }
            }
        }
        self.all[file].source()
    }
}
