//! Sparse-autoencoder dictionaries of the residual stream: EleutherAI sparsify's TopK format, encoding
//! on the GPU, reconstruction.
//!
//! A vector h of `width` elements has activations f = TopK(ReLU(encoder (h - b_dec) + bias)), at most
//! `k` of the dictionary's `latents`, and the reconstruction b_dec + sum of f_i W_dec\[i\].

mod coder;
mod config;
mod dictionary;
mod error;
mod hook_point;
#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) mod reference;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;

pub use coder::{Activation, Coder, CoderStep, Encoded, encode_all, live};
pub use config::{MAX_K, MAX_LATENTS};
pub use dictionary::{Dictionary, Wanted};
pub use error::SaeError;
pub use hook_point::HookPoint;
