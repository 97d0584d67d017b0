//! What is read from files and written to them: checkpoints, GGUF files, tokenizers, weights in every format, conversions.
#![cfg(not(target_arch = "wasm32"))]

#[path = "../support/gguf.rs"]
mod file;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/vocabulary.rs"]
mod vocabulary;

mod checkpoint;
mod convert;
mod file_forms;
mod gguf;
mod gguf_model;
mod gguf_settings;
mod gguf_tokenizer;
mod model_tensors;
mod planes;
mod quantisation;
mod reading;
