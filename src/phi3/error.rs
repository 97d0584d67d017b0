//! What can go wrong with a model.

use crate::checkpoint::{CheckpointError, SourceError};
use crate::gpu::GpuError;

/// An error of loading or running a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` cannot be used.
    #[error("config.json: {0}")]
    Config(String),
    /// The weights cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file's bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A sequence does not fit.
    #[error("{tokens} tokens do not fit the context of {context}: shorten the conversation")]
    ContextFull {
        /// Tokens that were to be held.
        tokens: usize,
        /// What the model was loaded for.
        context: usize,
    },
}
