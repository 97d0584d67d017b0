//! The built page (`dist/`), served from this machine and driven through WebDriver.
//! Run by `scripts/test.sh page`, which builds the page first.
#![cfg(not(target_arch = "wasm32"))]

mod adapter;
mod browser;
mod chat;
mod conversations;
mod downloads;
mod driver;
mod failures;
#[path = "../support/gguf.rs"]
mod file;
mod full_size;
mod gate;
mod interruptions;
mod lab;
mod models;
mod monkey;
mod native;
mod offline;
mod own_page;
mod package;
mod real_model;
mod requests;
mod server;
mod sight;
mod speed;
mod store;
mod train;
mod truth;
#[path = "../support/vocabulary.rs"]
mod vocabulary;
mod way_out;
