//! `tokenizer.json`, through the `tokenizers` crate.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::normalizer::Range;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetType, PostProcessorWrapper, PreTokenizedString,
    PreTokenizer, Token, Tokenizer,
};

use super::TokenError;
use super::chat::{ChatTokens, Layout, Message, Prompt, Special, TokenRole};
use super::decode::{Detokenizer, Piece, Pieces, Style};
use crate::checkpoint::{Folder, Gguf, MAX_JSON, MAX_TOKENIZER};

/// The largest token number that is taken seriously.
const MAX_ID: u32 = 1 << 20;

/// Tokens after which an answer is complete, where the vocabulary has them.
const STOPS: [&str; 3] = ["<|end|>", "<|endoftext|>", "</s>"];

/// A model's tokenizer, with Phi-3's chat format.
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    vocabulary: Rc<Pieces>,
    chat: ChatTokens,
    stops: Vec<u32>,
}

/// What is needed of `tokenizer.json` beside the tokenizer itself.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    post_processor: Value,
}

#[derive(Deserialize, Clone)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

/// What is needed of `tokenizer_config.json`.
#[derive(Deserialize, Default)]
struct Config {
    add_bos_token: Option<bool>,
    bos_token: Option<Name>,
    eos_token: Option<Name>,
    chat_template: Option<Value>,
}

/// A token's text, plain or with its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Full { content: String },
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Full { content: text } => text,
        }
    }
}

impl ChatTokenizer {
    /// Reads the tokenizer of a model's folder: `tokenizer.json` with `tokenizer_config.json`, or
    /// the vocabulary of its `.gguf` file, which may hold nothing else.
    pub async fn open(folder: &Folder) -> Result<Self, TokenError> {
        if let Some(json) = folder.bytes("tokenizer.json", MAX_TOKENIZER).await? {
            let config = folder.bytes("tokenizer_config.json", MAX_JSON).await?;
            return Self::from_json(&json, config.as_deref());
        }
        match Gguf::find(folder).await? {
            Some(gguf) => Self::from_gguf(gguf.metadata()),
            None => Err(TokenError::NoTokenizer {
                folder: folder.label().into(),
            }),
        }
    }

    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    ///
    /// A conversation begins with the model's `<s>` if the configuration's `add_bos_token` says so
    /// (without that entry: if the tokenizer's post-processor does), or if its chat template
    /// writes it.
    pub fn from_json(tokenizer_json: &[u8], config: Option<&[u8]>) -> Result<Self, TokenError> {
        let bad = |reason: String| TokenError::BadTokenizer { reason };
        let file: File = serde_json::from_slice(tokenizer_json)
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        let config: Config = match config {
            None => Config::default(),
            Some(json) => serde_json::from_slice(json).map_err(|e| TokenError::BadConfig {
                reason: format!("cannot be read: {e}"),
            })?,
        };
        let style = Style::of(&file.decoder)?;
        if file.added_tokens.iter().any(|t| t.content.is_empty()) {
            return Err(bad("an added token is empty".into()));
        }
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json)
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        for token in &file.added_tokens {
            if tokenizer.token_to_id(&token.content) != Some(token.id) {
                let Added { id, content, .. } = token;
                return Err(bad(format!(
                    "the added token \"{content}\" cannot have number {id}"
                )));
            }
        }
        // Lengths, and what is put around a text, are the caller's concern.
        tokenizer.with_padding(None);
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        tokenizer
            .with_truncation(None)
            .map_err(|e| bad(e.to_string()))?;

        let added = |name: &str| file.added_tokens.iter().find(|t| t.content == name);
        let special = |name: &str| -> Result<Special, TokenError> {
            let id = tokenizer.token_to_id(name);
            let id = id.ok_or_else(|| TokenError::MissingToken { token: name.into() })?;
            Ok(Special {
                id,
                text: name.into(),
                lstrip: added(name).is_some_and(|t| t.lstrip),
                rstrip: added(name).is_some_and(|t| t.rstrip),
            })
        };
        // A list of named templates is searched as a whole.
        let template = config.chat_template.as_ref().map(Value::to_string);
        let template_has = |word: &str| template.as_ref().is_some_and(|t| t.contains(word));
        let bos_name = config.bos_token.as_ref().map_or("<s>", Name::text);
        let adds_bos = template_has("bos_token")
            || match config.add_bos_token {
                Some(adds) => adds,
                None => puts_in_front(&file.post_processor, bos_name),
            };
        let eos = config.eos_token.as_ref().map(Name::text);
        let chat = ChatTokens {
            bos: adds_bos.then(|| special(bos_name)).transpose()?,
            system: special("<|system|>")?,
            user: special("<|user|>")?,
            assistant: special("<|assistant|>")?,
            end: special("<|end|>")?,
            eos: eos
                .filter(|_| template_has("eos_token"))
                .map(special)
                .transpose()?,
        };
        let names = STOPS.into_iter().chain(eos);
        let mut stops: Vec<u32> = names.filter_map(|n| tokenizer.token_to_id(n)).collect();
        stops.sort_unstable();
        stops.dedup();
        let hidden = file.added_tokens.iter().filter(|t| t.special).map(|t| t.id);
        let hidden = hidden.chain(stops.iter().copied()).collect();
        Ok(Self {
            vocabulary: Rc::new(pieces(&tokenizer, style, hidden)?),
            tokenizer,
            chat,
            stops,
        })
    }

    /// The tokens of ordinary text, without any in front. Text that looks like a special token is
    /// text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        let prompt = self.encode_layout(&Layout::plain(text))?;
        Ok(prompt.ids)
    }

    /// The tokens of text in which special tokens are written out, such as a conversation that is
    /// already in the chat format. Not for what a visitor types.
    pub fn encode_markup(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        let encoding = self.tokenizer.encode(text, false).map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of a conversation in Phi-3's chat format, ready for an answer with
    /// `add_generation_prompt`. What the messages say is ordinary text, whatever it looks like: a
    /// message cannot forge a turn. An empty list of messages is the caller's concern.
    pub fn chat(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Prompt, TokenError> {
        self.encode_layout(&self.chat.layout(messages, add_generation_prompt))
    }

    /// The text of tokens; special tokens add nothing. What a [`Detokenizer`] gives in all.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut detokenizer = self.detokenizer();
        let mut text: String = tokens.iter().map(|&t| detokenizer.push(t)).collect();
        text += &detokenizer.finish();
        text
    }

    /// A detokenizer at the start of a text.
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(self.vocabulary.clone())
    }

    /// One token for display: its text with the leading space kept, `<0xE4>` for a byte that is no
    /// character by itself, the name of a special token, "" for a number without a token.
    pub fn token_text(&self, token: u32) -> String {
        let text = match self.vocabulary.pieces.get(token as usize) {
            None => None,
            Some(Piece::Text(text)) => Some(text.to_string()),
            Some(Piece::Bytes(bytes)) => std::str::from_utf8(bytes).ok().map(String::from),
            Some(Piece::Nothing) => None,
        };
        text.or_else(|| self.tokenizer.id_to_token(token))
            .unwrap_or_default()
    }

    /// One more than the largest token number. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.pieces.len()
    }

    /// The token in front of a conversation, if the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.chat.bos.as_ref().map(|token| token.id)
    }

    /// `<|end|>`, which ends a message.
    pub fn end(&self) -> u32 {
        self.chat.end.id
    }

    /// The tokens that end an answer, sorted: `<|end|>`, `<|endoftext|>`, `</s>` and the
    /// configuration's `eos_token`, as far as the vocabulary has them.
    pub fn stop_tokens(&self) -> Vec<u32> {
        self.stops.clone()
    }

    /// Encodes as the `tokenizers` crate does, but for the special tokens, which are those that
    /// the layout names rather than those that the text seems to contain.
    fn encode_layout(&self, layout: &Layout) -> Result<Prompt, TokenError> {
        let mut text = PreTokenizedString::from(layout.text.as_str());
        text.split(|_, whole| {
            let parts = layout.stretches.iter().map(|stretch| {
                let part = whole.slice(Range::Original(stretch.range.clone()));
                let part: NormalizedString = part.ok_or("a stretch is no part of the text")?;
                let token = stretch.special.map(|id| {
                    let value = part.get().to_string();
                    let end = value.len();
                    vec![Token::new(id, value, (0, end))]
                });
                Ok((part, token))
            });
            parts.collect::<tokenizers::Result<Vec<_>>>()
        })
        .map_err(encode_error)?;
        if let Some(normalizer) = self.tokenizer.get_normalizer() {
            text.normalize(|part| normalizer.normalize(part))
                .map_err(encode_error)?;
        }
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer
                .pre_tokenize(&mut text)
                .map_err(encode_error)?;
        }
        let model = self.tokenizer.get_model();
        text.tokenize(|part| model.tokenize(part.get()))
            .map_err(encode_error)?;
        let encoding = text
            .into_encoding(None, 0, OffsetType::Byte)
            .map_err(encode_error)?;
        let roles = encoding.get_offsets().iter();
        Ok(Prompt {
            roles: roles.map(|&(start, end)| layout.role(start, end)).collect(),
            ids: encoding.get_ids().to_vec(),
        })
    }
}

impl Layout {
    /// Ordinary text.
    fn plain(text: &str) -> Self {
        let mut layout = Self::default();
        layout.push_text(text, TokenRole::Prompt);
        layout
    }

    /// The part that the token of these bytes plays.
    fn role(&self, start: usize, end: usize) -> TokenRole {
        let after = self.stretches.partition_point(|s| s.range.start <= start);
        match after.checked_sub(1).and_then(|i| self.stretches.get(i)) {
            Some(stretch) if start >= stretch.from || end > stretch.from => stretch.role,
            _ => TokenRole::Prompt,
        }
    }
}

/// Whether a `post_processor` of a `tokenizer.json` puts `bos` in front of a text. It is read rather
/// than tried: the `tokenizers` crate panics on templates with tokens that they do not define.
fn puts_in_front(processor: &Value, bos: &str) -> bool {
    match processor["type"].as_str() {
        Some("TemplateProcessing") => processor["single"][0]["SpecialToken"]["id"] == bos,
        Some("Sequence") => {
            let parts = processor["processors"].as_array();
            parts.is_some_and(|parts| parts.iter().any(|part| puts_in_front(part, bos)))
        }
        _ => false,
    }
}

/// The vocabulary as text.
fn pieces(tokenizer: &Tokenizer, style: Style, hidden: Vec<u32>) -> Result<Pieces, TokenError> {
    let mut pieces = Vec::new();
    for (token, id) in tokenizer.get_vocab(true) {
        if id > MAX_ID {
            return Err(TokenError::BadTokenizer {
                reason: format!("the token \"{token}\" has number {id}, more than any vocabulary"),
            });
        }
        let at = id as usize;
        if at >= pieces.len() {
            pieces.resize(at + 1, Piece::Nothing);
        }
        pieces[at] = style.piece(&token);
    }
    for id in hidden {
        if let Some(piece) = pieces.get_mut(id as usize) {
            *piece = Piece::Nothing;
        }
    }
    Ok(Pieces { style, pieces })
}

fn encode_error(error: tokenizers::Error) -> TokenError {
    TokenError::Encode {
        reason: error.to_string(),
    }
}
