//! What can go wrong in the lab.

use crate::checkpoint::{CheckpointError, SourceError};
use crate::generate::GenerateError;
use crate::gpu::GpuError;
use crate::sae::SaeError;
use crate::steering::SteeringError;
use crate::tokens::TokenError;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The evaluation prompts cannot be used.
    #[error("the evaluation prompts: {0}")]
    Sets(String),
    /// A journal cannot be taken up, or a result not be written into it.
    #[error("the journal: {0}")]
    Journal(String),
    /// A recipe cannot be followed.
    #[error("the recipe: {0}")]
    Recipe(String),
    /// A result cannot be read, or has not what is asked of it.
    #[error("the result: {0}")]
    Result(String),
    /// The work was cancelled; what is in the journal is kept.
    #[error("the work was cancelled")]
    Cancelled,
    /// Generating failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The steering was refused.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// The dictionary cannot be used.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// A prompt could not be encoded.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A file cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file's tensors cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
