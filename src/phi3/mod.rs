//! Phi-3: configuration, weights on the GPU, key-value cache, forward pass.

mod architecture;
mod attention;
mod cache;
mod config;
mod error;
mod fields;
mod files;
mod gguf_config;
mod layer;
mod long_rope;
mod model;
mod pass;
mod precision;
mod rope;
mod rows;
mod tensors;
mod weights;

pub use attention::{AttentionGrid, attention_kernel};
pub use cache::CacheFormat;
pub use config::Config;
pub use error::ModelError;
pub use files::ModelFiles;
pub use layer::Part;
pub use long_rope::LongRope;
pub use model::{Model, ModelOptions};
pub use pass::{BlockHook, Phase, Start, Tap};
pub use precision::{PlainFormats, Precision};
pub use rows::{MAX_ROWS, ROW_BOS, ROW_DONE, ROW_GENERATED, Row};

#[cfg(test)]
mod config_tests;
