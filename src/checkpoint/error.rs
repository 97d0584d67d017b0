//! What can go wrong between a file's bytes and a tensor's numbers.

use std::ops::Range;

use super::TensorType;
use super::shown::{shown, shown_list, shown_place, shown_sentence};

/// A file's bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not there.
    #[error(
        "no file \"{}\" in {}: check the address, or that all files were chosen",
        shown_place(file),
        shown_sentence(folder)
    )]
    NotFound {
        /// The file's name in its folder.
        file: String,
        /// The folder: a path, an address, or a description.
        folder: String,
    },
    /// The folder is not there, or is not a folder.
    #[error("there is no folder \"{}\": check the path", shown_place(folder))]
    NoFolder {
        /// The path as given.
        folder: String,
    },
    /// The server answered with an error.
    #[error("{}: the server answered {status}{}", shown_place(url), status_hint(*.status))]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The request failed before an answer, or the connection broke and stayed broken.
    #[error(
        "{}: the network failed at byte {at} ({}): check the connection{}",
        shown_place(url),
        shown_sentence(reason),
        match reached {
            true => "",
            false => ", and that the server allows pages of other origins (CORS) to read it",
        }
    )]
    Network {
        /// The address asked.
        url: String,
        /// The byte of the file that was to come next.
        at: u64,
        /// What the browser said.
        reason: String,
        /// Whether the server had answered with the file, or a part of it.
        begun: bool,
        /// Whether the page may read this server's answers: it has read one, or they are of one origin.
        reached: bool,
    },
    /// The server's answer contradicts the request or an earlier answer.
    #[error(
        "{}: the server's answer makes no sense: {}",
        shown_place(url),
        shown_sentence(reason)
    )]
    BadAnswer {
        /// The address asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes ended before the file did.
    #[error(
        "{}: ended at byte {at} of {expected}: the file is cut short, get it again",
        shown_place(file)
    )]
    Short {
        /// The file's name or address.
        file: String,
        /// The byte after the last one that was there.
        at: u64,
        /// The bytes that should have been there.
        expected: u64,
    },
    /// A range beyond the end of the file was asked for.
    #[error("{}: bytes {}..{} were asked of a file of {len}", shown_place(file), range.start, range.end)]
    OutOfRange {
        /// The file's name or address.
        file: String,
        /// The range asked for.
        range: Range<u64>,
        /// The file's length in bytes.
        len: u64,
    },
    /// A file that is read whole is larger than anything sensible.
    #[error(
        "{}: {len} bytes, more than the {cap} that such a file may have",
        shown_place(file)
    )]
    TooLarge {
        /// The file's name or address.
        file: String,
        /// The file's length in bytes.
        len: u64,
        /// The largest length that is read.
        cap: u64,
    },
    /// The operating system or the browser could not read the file.
    #[error("{}: cannot be read: {}", shown_place(file), shown_sentence(reason))]
    Unreadable {
        /// The file's name.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Reading was cancelled.
    #[error("{}: loading was cancelled", shown_place(file))]
    Cancelled {
        /// The file's name or address.
        file: String,
    },
}

impl SourceError {
    /// The code by which the page tells answers with a status that is no success, as its store does
    /// (www/store/retry.js): "not-found", "forbidden", "throttled", "server" or "bad-answer".
    pub fn code_of_status(status: u16) -> &'static str {
        match status {
            404 | 410 => "not-found",
            401 | 403 => "forbidden",
            429 => "throttled",
            500.. => "server",
            _ => "bad-answer",
        }
    }
}

fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": it does not allow access, or the file does not exist",
        404 | 410 => ": the file does not exist, check the address",
        429 => ": too many requests, wait a little and try again",
        500..=599 => ": it is in trouble, try again later",
        _ => "",
    }
}

/// A file of weights could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes could not be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// None of the files that could hold the tensors is there.
    #[error(
        "no weights in {}: looked for {}",
        shown_sentence(folder),
        shown_list(looked, " and ")
    )]
    NoWeights {
        /// The folder.
        folder: String,
        /// The names looked for.
        looked: Vec<String>,
    },
    /// A folder holds several GGUF files.
    #[error(
        "{} holds several GGUF files ({}): choose one of them",
        shown_place(folder),
        shown_list(files, ", ")
    )]
    SeveralModels {
        /// The folder.
        folder: String,
        /// The names of the files.
        files: Vec<String>,
    },
    /// One of the files of a model that is split is not there.
    #[error(
        "no file \"{}\" in {}: the model is split into several files, and all of them are needed in one \
         place",
        shown_place(file),
        shown_sentence(folder)
    )]
    MissingPart {
        /// The folder.
        folder: String,
        /// The file's name.
        file: String,
    },
    /// The file is not a valid safetensors file.
    #[error(
        "{}: not a valid safetensors file: {}",
        shown_place(file),
        shown_sentence(reason)
    )]
    Header {
        /// The file's name.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The file is not a valid GGUF file.
    #[error(
        "{}: not a valid GGUF file: {}",
        shown_place(file),
        shown_sentence(reason)
    )]
    Gguf {
        /// The file's name.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A key of a GGUF file's metadata is missing or wrong.
    #[error(
        "{}: the key \"{}\" {}",
        shown_place(file),
        shown(key),
        shown_sentence(reason)
    )]
    Key {
        /// The file's name.
        file: String,
        /// The key.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A tensor of a GGUF file cannot be used.
    #[error(
        "{}: tensor \"{}\": {}",
        shown_place(file),
        shown(tensor),
        shown_sentence(reason)
    )]
    Tensor {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The header's entry of one tensor is wrong.
    #[error(
        "{}: tensor \"{}\": {}; the file is corrupt, get it again",
        shown_place(file),
        shown(tensor),
        shown_sentence(reason)
    )]
    Entry {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with the entry.
        reason: String,
    },
    /// The index of a sharded checkpoint is malformed.
    #[error(
        "{}: not a valid index of a sharded checkpoint: {}",
        shown_place(file),
        shown_sentence(reason)
    )]
    Index {
        /// The index file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is not a valid archive of NumPy arrays.
    #[error(
        "{}: not a usable .npz archive: {}",
        shown_place(file),
        shown_sentence(reason)
    )]
    Npz {
        /// The file's name.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A tensor that is needed is in none of the files.
    #[error(
        "tensor \"{}\" is missing (looked in {}): this is not the expected kind of checkpoint, or it is \
         incomplete",
        shown(tensor),
        shown_list(files, ", ")
    )]
    MissingTensor {
        /// The tensor's name.
        tensor: String,
        /// The files looked in.
        files: Vec<String>,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error(
        "{}: tensor \"{}\" has shape {}, but {expected:?} is needed: the configuration and the weights do \
         not belong together",
        shown_place(file), shown(tensor), shown(&format!("{found:?}"))
    )]
    WrongShape {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A tensor's numbers are of a type that is not read.
    #[error(
        "{}: tensor \"{}\" has type {dtype}; F32, F16, BF16 and GGUF's Q4_0, Q4_1, \
         Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K are read: convert the checkpoint to one of these",
        shown_place(file),
        shown(tensor)
    )]
    WrongType {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The type in the file.
        dtype: TensorType,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{}: tensor \"{}\" holds {value} at row {row}, column {column}: the file is corrupt, or its \
         training diverged",
        shown_place(file),
        shown(tensor)
    )]
    NotFinite {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The row, counting all dimensions but the last.
        row: usize,
        /// The place in the row.
        column: usize,
        /// The value there.
        value: f32,
    },
}
