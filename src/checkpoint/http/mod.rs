//! Files at an address, read with `fetch`.
//!
//! One open-ended range request feeds reads that follow each other; a read elsewhere starts
//! another. A request that fails on the way, or is silent for too long, is taken up again at the byte
//! reached. A server whose ranges are of no use sends the whole file, which is kept as a `Blob` outside the
//! wasm heap.

mod head;
#[cfg(target_arch = "wasm32")]
mod request;
mod retry;

#[cfg(target_arch = "wasm32")]
mod source;
#[cfg(target_arch = "wasm32")]
pub use source::HttpSource;
#[cfg(target_arch = "wasm32")]
pub(super) use source::{Absence, Opened, Watch};
