//! Chats of random models on a native software adapter: steering that changes at any moment, answers that
//! keep their tokens, sequences that cross a bound, numbers that are none.
#![cfg(not(target_arch = "wasm32"))]

mod bench;
mod features;
mod forks;
mod gates;
mod known;
mod logprobs;
mod long_rope;
mod overflow;
mod rings;
mod steering;
#[path = "../support/mod.rs"]
mod support;
mod turns;
