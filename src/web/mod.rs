//! The JavaScript API: an `Engine` that loads a model and chats, for a dedicated worker or a window.

mod answer;
mod bench;
mod engine;
mod error;
mod field;
mod lab;
mod load;
mod operators;
mod options;
mod request;
mod train;
mod types;

pub use engine::Engine;
pub use lab::{lab_plots, lab_report, lab_table};
pub use operators::operators;
