//! Model files: where their bytes come from, and the tensors in them.
//!
//! - [`ByteSource`]: a file read by ranges, from memory, disk, a URL or a browser `File`;
//! - [`Folder`]: the files of one model or dictionary, found by name;
//! - [`Safetensors`]: the checked directory of one `.safetensors` file;
//! - [`Gguf`]: the checked directory and metadata of one `.gguf` file;
//! - [`Checkpoint`]: the tensors of one or several such files under Hugging Face's names, streamed
//!   as rows of f32 or as the planes that lie in GPU memory.
//! - [`Npz`]: an archive of NumPy arrays;
//! - [`json`]: JSON as it is found beside models, read with bounds.
//!
//! A tensor is never whole in memory unless asked for: [`Checkpoint::rows`] hands it over in blocks
//! of whole rows. Everything that comes from outside is checked before it is believed.

#[cfg(any(target_arch = "wasm32", test))]
mod address;
#[cfg(target_arch = "wasm32")]
mod blob;
mod blocks;
mod convert;
mod encoding;
mod entry;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod file;
mod files;
mod folder;
mod gguf;
#[cfg(any(target_arch = "wasm32", test))]
mod http;
pub mod json;
mod names;
mod npy;
mod npz;
mod other_form;
mod own;
mod planes;
mod progress;
mod raw;
mod repack;
mod rows;
mod safetensors;
mod shards;
mod shown;
mod source;
mod sources;
mod split;
mod store;
mod tensors;
mod unzip;

#[cfg(target_arch = "wasm32")]
pub use blob::BlobSource;
pub use encoding::{Encoding, TensorType};
pub use entry::{Run, TensorEntry};
pub use error::{CheckpointError, SourceError};
#[cfg(not(target_arch = "wasm32"))]
pub use file::FileSource;
pub use files::BLOCK_BYTES;
pub use folder::{Folder, MAX_JSON, MAX_TOKENIZER};
pub use gguf::{Array, Gguf, GgufTensor, Metadata, Value};
#[cfg(target_arch = "wasm32")]
pub use http::HttpSource;
pub(crate) use names::block_of;
pub use npz::{ArrayReader, NpyArray, Npz};
pub use other_form::{OtherForm, other_form};
pub use planes::PlaneReader;
pub use progress::{Cancel, Progress};
pub use rows::RowReader;
pub use safetensors::{Dtype, MAX_HEADER, Safetensors, TensorInfo};
pub use shown::{shown, shown_list, shown_place, shown_sentence};
pub use source::{ByteSource, MemorySource};
pub use sources::Source;
pub use store::Checkpoint;
