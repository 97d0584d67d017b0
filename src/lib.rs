//! Phi-3 Mini on hand-written WGSL, with sparse-autoencoder steering.
