//! Phi-3 Mini on hand-written WGSL, with sparse-autoencoder steering.

#![deny(missing_docs)]

pub mod bench;
pub mod checkpoint;
pub mod generate;
pub mod gpu;
pub mod lab;
pub mod matrix;
pub mod phi3;
pub mod quant;
pub(crate) mod random;
pub mod sae;
pub mod steering;
pub mod tokens;
pub mod train;
pub mod turns;
#[cfg(target_arch = "wasm32")]
pub mod web;
