//! What can go wrong with a dictionary.

use super::HookPoint;
use crate::checkpoint::{CheckpointError, SourceError};
use crate::gpu::GpuError;

/// An error of loading or running a dictionary.
#[derive(Debug, thiserror::Error)]
pub enum SaeError {
    /// The bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tensors cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// `cfg.json` makes no sense.
    #[error("{file}: {reason}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The dictionary is of a kind that is not computed here.
    #[error(
        "{file}: {what}: only sparsify's TopK autoencoders of the residual stream are supported, choose or train one of those"
    )]
    Unsupported {
        /// The file.
        file: String,
        /// What is not supported.
        what: String,
    },
    /// The dictionary belongs to a model of another width.
    #[error(
        "{file}: the dictionary reads vectors of {dictionary} elements, but the model's residual stream has {model}: it was trained on another model"
    )]
    WrongWidth {
        /// The file.
        file: String,
        /// The dictionary's width.
        dictionary: usize,
        /// The model's hidden size.
        model: usize,
    },
    /// The name of a hook point is not understood.
    #[error(
        "\"{0}\" names no place in the residual stream: use \"layers.N\" for the output of block N, counted from 0"
    )]
    BadHook(String),
    /// The hook point is past the model's last block.
    #[error("{hook} is not in the model, which has {layers} blocks: layers.0 to layers.{}", layers - 1)]
    NoSuchBlock {
        /// The hook point.
        hook: HookPoint,
        /// The model's blocks.
        layers: usize,
    },
    /// There is no dictionary where it was looked for.
    #[error(
        "no dictionary in {folder}: it should hold cfg.json and sae.safetensors, or a folder {wanted} that does"
    )]
    NotFound {
        /// The folder.
        folder: String,
        /// The sub-folder looked for.
        wanted: String,
    },
    /// Several dictionaries are there and none was named.
    #[error("{folder} holds several dictionaries ({found}): say which one is meant")]
    Several {
        /// The folder.
        folder: String,
        /// Their hook points.
        found: String,
    },
    /// The dictionary is of another hook point than the one asked for.
    #[error("{folder} is the dictionary of {found}, but {asked} was asked for")]
    OtherHook {
        /// The folder.
        folder: String,
        /// The folder's hook point.
        found: HookPoint,
        /// The hook point asked for.
        asked: HookPoint,
    },
    /// A dictionary is to be used in a model without saying where.
    #[error(
        "nothing says which block's output the dictionary in {folder} belongs to: name its folder \"layers.N\" or give the hook point"
    )]
    HookUnknown {
        /// The folder.
        folder: String,
    },
    /// Vectors to encode are not of the dictionary's width.
    #[error("{count} numbers are not whole vectors of {width} elements")]
    NotWholeRows {
        /// How many numbers there are.
        count: usize,
        /// The dictionary's width.
        width: usize,
    },
}
