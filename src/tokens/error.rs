//! What can go wrong with a tokenizer.

use crate::checkpoint::{CheckpointError, SourceError, shown, shown_place, shown_sentence};

/// A tokenizer could not be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A folder holds no tokenizer.
    #[error(
        "no tokenizer in {}: looked for tokenizer.json and for a .gguf file: check the address, or that \
         all files were chosen",
        shown_sentence(folder)
    )]
    NoTokenizer {
        /// The folder.
        folder: String,
    },
    /// A file's bytes cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `tokenizer.json` cannot be read.
    #[error(
        "tokenizer.json: {}: get the file that belongs to the model again",
        shown_sentence(reason)
    )]
    BadTokenizer {
        /// What is wrong with it.
        reason: String,
    },
    /// `tokenizer.json` asks for what is not done here.
    #[error(
        "tokenizer.json: {}: it is not supported; byte-pair encodings such as those of Phi-3, \
         Llama and SmolLM2 are, as their makers publish them",
        shown_sentence(reason)
    )]
    UnsupportedTokenizer {
        /// What it asks for.
        reason: String,
    },
    /// A file beside `tokenizer.json` cannot be used.
    #[error("{file}: {}", shown_sentence(reason))]
    BadSettings {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer turns tokens into text in a way that is not known here.
    #[error(
        "tokenizer.json: its decoder ({}) is not supported; that of Phi-3 (Llama style) and the \
         byte-level one are",
        shown_sentence(decoder)
    )]
    UnknownDecoder {
        /// The decoder's parts.
        decoder: String,
    },
    /// A token of the chat format is missing.
    #[error(
        "tokenizer.json: it has no token \"{}\", which its chat format needs: get the file that belongs \
         to the model again",
        shown(token)
    )]
    MissingToken {
        /// The token's text.
        token: String,
    },
    /// The model has no chat template.
    #[error(
        "the model has no chat template (chat_template in tokenizer_config.json, or \
         tokenizer.chat_template in a .gguf file): it was not trained to chat; choose its \"instruct\" or \
         \"chat\" version"
    )]
    NoTemplate,
    /// The chat template cannot be used.
    #[error(
        "the model's chat template is not understood: {}",
        shown_sentence(reason)
    )]
    Template {
        /// Why.
        reason: String,
    },
    /// The chat format has no place for a message.
    #[error("the model's chat format has no place for {what} {place}")]
    NoPlace {
        /// What has no place.
        what: &'static str,
        /// Where.
        place: &'static str,
    },
    /// A GGUF file's vocabulary cannot be used.
    #[error("{}: {}", shown_place(file), shown_sentence(reason))]
    Vocabulary {
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key of a GGUF file's metadata is wrong.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The text could not be encoded.
    #[error("the text could not be encoded: {}", shown_sentence(reason))]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
}
