//! The vocabulary of a GGUF file as the `tokenizer.json` and `tokenizer_config.json` that Hugging
//! Face has for the same model.
//!
//! A SentencePiece vocabulary (`tokenizer.ggml.model` is "llama") has a score for each piece and
//! merges the pair whose piece has the best score, the leftmost of equal ones. Byte-pair encoding
//! does the same with a list of merges: every way to split a piece into two others, the best score
//! first, and of equal scores the longest left part, which in a run of spaces is the leftmost. This
//! is how Hugging Face's converter makes the list (`generate_merges` in
//! `transformers/convert_slow_tokenizer.py`).

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::chat::TURNS;
use super::settings::{CONFIG, GENERATION, TOKENIZER};
use super::tokenizer::STOPS;
use super::{ChatTokenizer, TokenError, TokenizerFiles};
use crate::checkpoint::shown;
use crate::checkpoint::{MAX_TOKENIZER, Metadata};

/// The longest piece that is split into others, in bytes: twice the longest of any known model.
const MAX_PIECE: usize = 256;

/// The tokens that end an answer: the text's, the turn's, and the message's before a tool answers.
const ENDS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];

/// Tokens of Phi-3's vocabulary that do not swallow the white space after them; all its other
/// special tokens do.
const KEEPS_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// How GPT-4o's vocabulary, which Phi-4-mini uses, cuts text into words.
pub(super) const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// How Llama 3's vocabulary cuts text into words.
pub(super) const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// How Qwen2's does.
pub(super) const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

impl ChatTokenizer {
    /// The tokenizer of a GGUF file: the same tokens as from the `tokenizer.json` that the file was
    /// made of.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenError> {
        let files = TokenizerFiles::from_gguf(metadata)?;
        let read = Self::from_files(&files).map_err(|error| {
            let reason = match error {
                TokenError::BadTokenizer { reason }
                | TokenError::UnsupportedTokenizer { reason }
                | TokenError::BadSettings { reason, .. } => reason,
                TokenError::Template { reason } => {
                    format!("its chat template is not understood: {reason}")
                }
                TokenError::NoTemplate => "it has no chat template (no key \
                    tokenizer.chat_template): it was not trained to chat; choose its \"instruct\" or \
                    \"chat\" version"
                    .into(),
                TokenError::MissingToken { token } => {
                    format!("it has no token \"{token}\", which its chat format needs")
                }
                other => return other,
            };
            vocabulary_error(metadata, reason)
        });
        let mut tokenizer = read?;
        for (id, text) in repeated(metadata)? {
            tokenizer.add_piece(id, text);
        }
        Ok(tokenizer)
    }
}

fn vocabulary_error(metadata: &Metadata, reason: String) -> TokenError {
    TokenError::Vocabulary {
        file: metadata.file().into(),
        reason,
    }
}

/// The part that a token plays: `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A piece of text.
    Normal,
    /// A special token.
    Control,
    /// A token that is found in text before anything else.
    UserDefined,
    /// One byte, for characters that no piece has.
    Byte,
    /// Not to be used: the rows that fill up the embedding.
    Unused,
}

/// One token.
struct Entry<'a> {
    id: usize,
    text: &'a str,
    kind: Kind,
}

impl TokenizerFiles {
    /// Reads the keys `tokenizer.*` of a GGUF file.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TokenError> {
        let bad = |reason: String| vocabulary_error(metadata, reason);
        let model = metadata.text("tokenizer.ggml.model")?.ok_or_else(|| {
            bad("it has no vocabulary (no key tokenizer.ggml.model): choose a file with one".into())
        })?;
        let entries = entries(metadata)?;
        let (body, class) = match model {
            "llama" => (sentence_piece(metadata, &entries)?, "LlamaTokenizer"),
            "gpt2" => (byte_level(metadata, &entries)?, "GPT2Tokenizer"),
            other => {
                return Err(bad(format!(
                    "its vocabulary is of the kind \"{}\"; \"llama\" (SentencePiece) and \
                     \"gpt2\" (byte-level) are read",
                    shown(other)
                )));
            }
        };
        let named = |key: &str| -> Result<Value, TokenError> {
            let id = metadata.unsigned(key)?;
            let entry = id.and_then(|id| entries.iter().find(|e| e.id as u64 == id));
            Ok(entry.map_or(Value::Null, |entry| entry.text.into()))
        };
        let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?;
        let config = json!({
            "add_bos_token": adds_bos.unwrap_or(model == "llama"),
            "add_eos_token": false,
            "bos_token": named("tokenizer.ggml.bos_token_id")?,
            "eos_token": named("tokenizer.ggml.eos_token_id")?,
            "pad_token": named("tokenizer.ggml.padding_token_id")?,
            "unk_token": named("tokenizer.ggml.unknown_token_id")?,
            "chat_template": metadata.text("tokenizer.chat_template")?,
            "clean_up_tokenization_spaces": false,
            "tokenizer_class": class,
        });
        let mut stops = Vec::new();
        for key in ENDS {
            stops.extend(metadata.unsigned(key)?);
        }
        Ok(Self::new(vec![
            (TOKENIZER, body.to_string().into_bytes()),
            (CONFIG, config.to_string().into_bytes()),
            (
                GENERATION,
                json!({"eos_token_id": stops}).to_string().into_bytes(),
            ),
        ]))
    }
}

/// All tokens by their texts, but for those that are not to be used, which fill up the embedding,
/// those without a text, and all but the last of those with the same.
fn entries(metadata: &Metadata) -> Result<Vec<Entry<'_>>, TokenError> {
    let mut entries = all_entries(metadata)?;
    let mut last: HashMap<&str, usize> = HashMap::new();
    for entry in &entries {
        // A token that is a mark, not text, stays one.
        let other = last.get(entry.text).map(|at| kind_of(&entries, *at));
        if other != Some(Kind::Control) || entry.kind == Kind::Control {
            last.insert(entry.text, entry.id);
        }
    }
    entries.retain(|entry| last.get(entry.text) == Some(&entry.id));
    Ok(entries)
}

/// The kind of the token `id`.
fn kind_of(entries: &[Entry<'_>], id: usize) -> Kind {
    let at = entries.binary_search_by_key(&id, |entry| entry.id);
    at.map_or(Kind::Unused, |at| entries[at].kind)
}

/// Tokens whose text another has too: a model may say them, but no text is encoded to them.
fn repeated(metadata: &Metadata) -> Result<Vec<(u32, &str)>, TokenError> {
    let used = entries(metadata)?;
    let text = |entry: &Entry<'_>| matches!(entry.kind, Kind::Normal | Kind::UserDefined);
    let mut all = all_entries(metadata)?;
    all.retain(|entry| text(entry) && used.binary_search_by_key(&entry.id, |e| e.id).is_err());
    let pairs = all.into_iter().filter_map(|entry| {
        let id = u32::try_from(entry.id).ok()?;
        Some((id, entry.text))
    });
    Ok(pairs.collect())
}

/// All tokens that have a text and are to be used, by number.
fn all_entries(metadata: &Metadata) -> Result<Vec<Entry<'_>>, TokenError> {
    let bad = |reason: String| vocabulary_error(metadata, reason);
    let tokens = metadata
        .texts("tokenizer.ggml.tokens")?
        .ok_or_else(|| bad("it has no tokens (no key tokenizer.ggml.tokens)".into()))?;
    let unknown = metadata.unsigned("tokenizer.ggml.unknown_token_id")?;
    let mut ends = Vec::new();
    for key in ENDS.into_iter().chain(["tokenizer.ggml.bos_token_id"]) {
        ends.extend(metadata.unsigned(key)?);
    }
    let count = tokens.len();
    let mut kinds = metadata.integers("tokenizer.ggml.token_type")?;
    let mut entries = Vec::new();
    for (id, text) in tokens.enumerate() {
        let kind = match kinds.as_mut().map(|kinds| kinds.next()) {
            // Without the list, all are ordinary.
            None | Some(Some(1)) => Kind::Normal,
            // The unknown token is one; others of its type are no tokens.
            Some(Some(2)) if unknown == Some(id as u64) => Kind::Control,
            Some(Some(2 | 5)) => Kind::Unused,
            Some(Some(3)) => Kind::Control,
            Some(Some(4)) => Kind::UserDefined,
            Some(Some(6)) => Kind::Byte,
            Some(Some(other)) => {
                return Err(bad(format!("token {id} is of the unknown type {other}")));
            }
            Some(None) => {
                return Err(bad(format!(
                    "it has {count} tokens but types for {id} of them only"
                )));
            }
        };
        // The marks of the format are no text, whatever the file calls them.
        let mark = TURNS.contains(&text)
            || STOPS.contains(&text)
            || (ends.contains(&(id as u64)) && text.starts_with('<') && text.ends_with('>'));
        let kind = match kind {
            Kind::Normal | Kind::UserDefined if mark => Kind::Control,
            kind => kind,
        };
        if kind != Kind::Unused && !text.is_empty() {
            entries.push(Entry { id, text, kind });
        }
    }
    Ok(entries)
}

/// The parts of `tokenizer.json` that do not depend on the kind of vocabulary.
fn body(entries: &[Entry<'_>]) -> Map<String, Value> {
    let has = |name: &&str| entries.iter().any(|entry| entry.text == *name);
    let is_phi3 = TURNS.iter().all(has);
    let added = entries
        .iter()
        .filter(|e| matches!(e.kind, Kind::Control | Kind::UserDefined));
    let added: Vec<Value> = added
        .map(|entry| {
            json!({
                "id": entry.id, "content": entry.text, "single_word": false, "lstrip": false,
                "rstrip": is_phi3 && entry.kind == Kind::Control
                    && !KEEPS_SPACE.contains(&entry.text),
                "normalized": false, "special": entry.kind == Kind::Control,
            })
        })
        .collect();
    let mut body = Map::new();
    body.insert("version".into(), "1.0".into());
    body.insert("truncation".into(), Value::Null);
    body.insert("padding".into(), Value::Null);
    body.insert("added_tokens".into(), added.into());
    body
}

fn vocab(entries: &[Entry<'_>]) -> Map<String, Value> {
    let pairs = entries.iter().map(|e| (e.text.to_string(), e.id.into()));
    pairs.collect()
}

/// A SentencePiece vocabulary.
fn sentence_piece(metadata: &Metadata, entries: &[Entry<'_>]) -> Result<Value, TokenError> {
    let scores = metadata.numbers("tokenizer.ggml.scores")?.ok_or_else(|| {
        let reason = "it has no scores (no key tokenizer.ggml.scores)";
        vocabulary_error(metadata, reason.into())
    })?;
    let scores: Vec<f32> = scores.collect();
    let merges = merges(entries, &scores).map_err(|reason| vocabulary_error(metadata, reason))?;
    let unknown = metadata.unsigned("tokenizer.ggml.unknown_token_id")?;
    let unknown = unknown.and_then(|id| entries.iter().find(|e| e.id as u64 == id));
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let back = json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "});
    let (mut normalizers, mut decoders) = (
        vec![space],
        vec![
            back,
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ],
    );
    if metadata
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true)
    {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "\u{2581}"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let mut body = body(entries);
    body.insert(
        "normalizer".into(),
        json!({"type": "Sequence", "normalizers": normalizers}),
    );
    body.insert("pre_tokenizer".into(), Value::Null);
    body.insert("post_processor".into(), Value::Null);
    body.insert(
        "decoder".into(),
        json!({"type": "Sequence", "decoders": decoders}),
    );
    body.insert(
        "model".into(),
        json!({
            "type": "BPE", "dropout": null, "unk_token": unknown.map(|e| e.text),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocab(entries),
            "merges": merges,
        }),
    );
    Ok(body.into())
}

/// The merges of a SentencePiece vocabulary, the first first.
fn merges<'a>(entries: &[Entry<'a>], scores: &[f32]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let normal = || entries.iter().filter(|e| e.kind == Kind::Normal);
    let ids: HashMap<&str, usize> = normal().map(|e| (e.text, e.id)).collect();
    let mut found = Vec::new();
    let mut bytes = 0;
    for entry in normal() {
        let Entry { id, text, .. } = *entry;
        let Some(&score) = scores.get(id) else {
            return Err(format!("token {id} has no score"));
        };
        if score.is_nan() {
            return Err(format!("the score of token {id} is no number"));
        }
        if text.len() > MAX_PIECE {
            return Err(format!(
                "token {id} takes {} bytes; up to {MAX_PIECE} make sense",
                text.len()
            ));
        }
        let characters = text.chars().count();
        for (left_characters, (at, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(at);
            let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) else {
                continue;
            };
            // What it takes in `tokenizer.json`: quotes, a comma and brackets.
            bytes += text.len() as u64 + 8;
            if bytes > MAX_TOKENIZER {
                return Err("its pieces can be split in more ways than make sense".into());
            }
            let order = (
                Reverse(Score(score)),
                Reverse(left_characters),
                Reverse(characters - left_characters),
                id,
                left_id,
                right_id,
            );
            found.push((order, (left, right)));
        }
    }
    found.sort_unstable_by_key(|(order, _)| *order);
    Ok(found.into_iter().map(|(_, pair)| pair).collect())
}

/// A score, which is a number: 0 and -0 are equal, and NaN does not occur.
#[derive(Clone, Copy, PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

/// A byte-level vocabulary, which has its merges.
fn byte_level(metadata: &Metadata, entries: &[Entry<'_>]) -> Result<Value, TokenError> {
    let bad = |reason: String| vocabulary_error(metadata, reason);
    let merges = metadata
        .texts("tokenizer.ggml.merges")?
        .ok_or_else(|| bad("it has no merges (no key tokenizer.ggml.merges)".into()))?;
    let merges: Vec<(&str, &str)> = merges
        .map(|merge| {
            merge.split_once(' ').ok_or_else(|| {
                bad(format!(
                    "the merge \"{}\" has no space between its parts",
                    shown(merge)
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    let level = |regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
               "use_regex": regex})
    };
    let split = |expression: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
            level(false),
        ]})
    };
    let mut normalizer = Value::Null;
    let mut ignore_merges = false;
    let words = match metadata.text("tokenizer.ggml.pre")? {
        Some("gpt-4o") => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": GPT_4O}, "behavior": "Removed", "invert": true},
            level(false),
        ]}),
        None | Some("default" | "gpt-2") => level(true),
        Some("smollm") => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, level(true),
        ]}),
        Some("llama-bpe" | "llama3" | "llama-v3") => {
            ignore_merges = true;
            split(LLAMA_3)
        }
        Some("qwen2") => {
            normalizer = json!({"type": "NFC"});
            split(QWEN_2)
        }
        Some(other) => {
            return Err(bad(format!(
                "it cuts text into words as \"{}\" does; \"gpt-2\", \"gpt-4o\", \"llama-bpe\", \"qwen2\" \
                 and \"smollm\" are known",
                shown(other)
            )));
        }
    };
    let mut body = body(entries);
    body.insert("normalizer".into(), normalizer);
    body.insert("pre_tokenizer".into(), words);
    body.insert("post_processor".into(), Value::Null);
    body.insert("decoder".into(), level(true));
    body.insert(
        "model".into(),
        json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": ignore_merges, "vocab": vocab(entries), "merges": merges,
        }),
    );
    Ok(body.into())
}
