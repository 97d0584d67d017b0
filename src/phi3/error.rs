//! What can go wrong with a model.

use crate::checkpoint::{CheckpointError, SourceError, shown_place, shown_sentence};
use crate::gpu::GpuError;
use crate::tokens::TokenError;

/// An error of loading or running a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` cannot be used.
    #[error("config.json: {}", shown_sentence(.0))]
    Config(String),
    /// The configuration in a GGUF file cannot be used.
    #[error("{}: {}", shown_place(file), shown_sentence(reason))]
    Metadata {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder holds no model.
    #[error(
        "no model in {}: looked for config.json (with model.safetensors or \
         model.safetensors.index.json) and for a .gguf file: check the address, or that all files \
         were chosen",
        shown_sentence(folder)
    )]
    NoModel {
        /// The folder.
        folder: String,
    },
    /// A model is in a form that is not read.
    #[error("{}: \"{}\" is {what}", shown_sentence(folder), shown_place(file))]
    OtherForm {
        /// The folder.
        folder: String,
        /// The file that shows it.
        file: String,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The weights cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file's bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A model has a tensor that is not computed with here.
    #[error(
        "tensor \"{tensor}\" is not a part of its architecture: without it the model would compute something \
         else, and with it this engine cannot run it"
    )]
    ForeignTensor {
        /// The tensor's name.
        tensor: String,
    },
    /// A block that the model does not have was asked for.
    #[error("there is no block {layer}: the model has {layers}, counted from 0")]
    NoBlock {
        /// The block asked for.
        layer: usize,
        /// The model's blocks.
        layers: usize,
    },
    /// A sequence does not fit.
    #[error("{tokens} tokens do not fit the context of {context}: shorten the conversation")]
    ContextFull {
        /// Tokens that were to be held.
        tokens: usize,
        /// What the model was loaded for.
        context: usize,
    },
    /// The GPU has no memory for a longer sequence. What the cache holds is as it was.
    #[error(
        "the GPU has no memory for {tokens} tokens (it holds {held}): shorten the conversation, start a \
         new one, or close other tabs and programs"
    )]
    CacheFull {
        /// Tokens that were to be held.
        tokens: usize,
        /// Tokens that a lane's cache holds.
        held: usize,
    },
}
