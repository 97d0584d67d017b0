//! The JavaScript API: an `Engine` that loads a model and chats, for a dedicated worker or a window.

mod engine;
mod error;
mod load;
mod types;

pub use engine::Engine;
