//! Text to tokens and back: `tokenizer.json` or a GGUF file's vocabulary, Phi-3's chat format, text as it streams.
//!
//! - [`ChatTokenizer`] encodes text and conversations and decodes tokens;
//! - [`Prompt`] is a conversation in tokens, with the part that each plays;
//! - [`Detokenizer`] turns tokens that arrive one by one into text.

mod added;
mod chat;
mod decode;
mod error;
mod gguf;
mod prompts;
mod rules;
mod settings;
mod spec;
mod template;
mod tokenizer;

pub use chat::{Message, Prompt, Role, TokenRole};
pub use decode::Detokenizer;
pub use error::TokenError;
pub use prompts::{PromptsError, read_prompts};
pub use settings::TokenizerFiles;
pub use tokenizer::ChatTokenizer;

#[cfg(all(test, not(target_arch = "wasm32")))]
mod settings_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;
