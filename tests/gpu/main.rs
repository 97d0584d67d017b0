//! The GPU's kernels and the whole forward pass on a software adapter, against references in f64 and
//! against candle's Phi-3.
//!
//! Inputs are fresh in every run; each test prints its seed, and `SEED=n` repeats one.
#![cfg(not(target_arch = "wasm32"))]

mod attention;
mod checkpoint;
mod embed;
mod forward;
mod greedy;
mod matmul;
mod projections;
mod reference;
mod sample;
mod sizes;
mod support;
