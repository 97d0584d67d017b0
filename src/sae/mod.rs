//! Sparse-autoencoder dictionaries of the residual stream: files of several formats brought to one rule,
//! encoding on the GPU, reconstruction.
//!
//! What a dictionary computes, and what its units mean for steering, is in [`Rule`] and its module. Read
//! are sparsify, SAELens 3 to 6, saex, Gemma Scope 1 and 2 and Llama Scope.

mod coder;
mod dictionary;
mod encode;
mod error;
mod examples;
mod find;
mod fit;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod format_tests;
mod formats;
mod hook_point;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod kind_tests;
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) mod reference;
pub mod rule;
mod site;
mod tensors;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
mod upload;
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) mod zoo;

pub use coder::{Activation, Coder, CoderStep, live};
pub use dictionary::{Dictionary, default_format};
pub use encode::{Encoded, Encoder, encode_all};
pub use error::SaeError;
pub use examples::{Context, Examples, Extent};
pub use find::Wanted;
pub use fit::{Fit, SelfTest, Verdict};
pub use formats::{
    check_config,
    names::{file_names, levels_up, listed},
};
pub use hook_point::HookPoint;
pub use rule::Rule;

/// Latents of a dictionary at most.
pub const MAX_LATENTS: usize = 131_072;
/// Active latents of a TopK dictionary, and latents that are listed for a token, at most.
pub const MAX_K: usize = 256;
