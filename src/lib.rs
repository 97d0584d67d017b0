//! Phi-3 Mini on hand-written WGSL, with sparse-autoencoder steering.

#![deny(missing_docs)]

pub mod checkpoint;
pub mod quant;
pub mod tokens;
