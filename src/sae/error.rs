//! What can go wrong with a dictionary.

use super::HookPoint;
use super::formats::names;
use crate::checkpoint::{CheckpointError, SourceError, shown, shown_place, shown_sentence};
use crate::gpu::GpuError;
use crate::matrix::Format;

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
    #[error("{}: {}", shown_place(file), shown_sentence(reason))]
    Config {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The dictionary is of a kind that is not computed here.
    #[error(
        "{}: {}: autoencoders of the residual stream with ReLU, JumpReLU, gated or TopK latents are supported, choose or train one of those",
        shown_place(file),
        shown_sentence(what)
    )]
    Unsupported {
        /// The file.
        file: String,
        /// What is not supported.
        what: String,
    },
    /// The dictionary is a pickle of PyTorch's.
    #[error(
        "{}: .pt files hold Python code, which is never run here: convert it once with Python, loading the state_dict with torch.load(..., weights_only=True) and writing it with safetensors.torch.save_file as sae_weights.safetensors beside a SAELens cfg.json (SAELens's SAE.save_model does both)",
        shown_place(file)
    )]
    Pickle {
        /// The file.
        file: String,
    },
    /// A matrix is square, so that its shape does not say which dimension is the latents.
    #[error(
        "{}: tensor \"{}\" is {width} by {width}: with as many latents as elements its shape does not say which is which, and it is not read",
        shown_place(file),
        shown(tensor)
    )]
    Ambiguous {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Elements and latents.
        width: usize,
    },
    /// A latent that is not there was asked for.
    #[error(
        "latent {latent} is not in the dictionary, which has {latents}: 0 to {}",
        latents - 1
    )]
    NoSuchLatent {
        /// The latent asked for.
        latent: u32,
        /// The dictionary's latents.
        latents: usize,
    },
    /// No latent was asked for.
    #[error(
        "no latent was named: to load a dictionary for steering alone, name the latents to steer with"
    )]
    NoLatents,
    /// A latent's row lies in pieces all over a file that is not at hand.
    #[error(
        "{}: tensor \"{}\" has each latent's numbers all over the file: load the whole dictionary, or a local copy",
        shown_place(folder),
        shown(tensor)
    )]
    Scattered {
        /// The folder.
        folder: String,
        /// The tensor.
        tensor: String,
    },
    /// Only some latents are loaded where all are needed.
    #[error(
        "only some latents of the dictionary in {} are loaded, for steering: load all of it to encode and rebuild",
        shown_place(folder)
    )]
    NotWhole {
        /// The folder.
        folder: String,
    },
    /// Dictionaries cannot be stored this way.
    #[error("dictionaries cannot be stored as {0:?}: choose F32 or Q8")]
    Storage(Format),
    /// The dictionary belongs to a model of another width.
    #[error(
        "{}: the dictionary reads vectors of {dictionary} elements, but the model's residual stream has {model}: it was trained on another model",
        shown_place(file)
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
        "\"{}\" names no place in the residual stream: use \"layers.N\" for the output of block N, counted from 0",
        shown(.0)
    )]
    BadHook(String),
    /// The name is that of a part of a block, whose output is not the residual stream.
    #[error(
        "\"{}\" is {what}, which a block adds to the residual stream, and not the stream itself: dictionaries of the stream are read here, at \"layers.N\", the output of block N, counted from 0",
        shown(name)
    )]
    OtherSite {
        /// The name.
        name: String,
        /// What it is the name of.
        what: &'static str,
    },
    /// The files name a hook point that cannot be used.
    #[error(
        "{}: its files, or its folder's name, give the hook point {}; give the hook point to use it elsewhere",
        shown_place(folder),
        shown_sentence(reason)
    )]
    Hook {
        /// The folder.
        folder: String,
        /// What is wrong with the hook point.
        reason: String,
    },
    /// The hook point is the input of the first block.
    #[error(
        "\"{}\" is the embedding, before the first block, where nothing is hooked: outputs of blocks are, layers.0 is the first",
        shown(.0)
    )]
    Embedding(String),
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
        "no dictionary in {}: it should hold {}, or a folder {} that does",
        shown_sentence(folder),
        names::listed(),
        shown(wanted)
    )]
    NotFound {
        /// The folder.
        folder: String,
        /// The sub-folder looked for.
        wanted: String,
    },
    /// Several dictionaries are there and none was named.
    #[error(
        "{} holds several dictionaries ({}): say which one is meant",
        shown_place(folder),
        shown_sentence(found)
    )]
    Several {
        /// The folder.
        folder: String,
        /// Their hook points.
        found: String,
    },
    /// The dictionary is of another hook point than the one asked for.
    #[error(
        "{} is the dictionary of {found}, but {asked} was asked for",
        shown_place(folder)
    )]
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
        "nothing says which block's output the dictionary in {} belongs to: name its folder \"layers.N\" or give the hook point",
        shown_place(folder)
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
