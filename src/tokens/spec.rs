//! `tokenizer.json`, read with bounds: what it asks for is checked before the `tokenizers` crate, which
//! trusts what it is given, builds anything of it.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::TokenError;
use super::decode::Style;
use super::rules::{self, NormalizerRule, PreTokenizerRule};
use crate::checkpoint::{json, shown};

/// One more than the largest token number that is taken seriously.
const MAX_TOKENS: usize = 1 << 20;

/// The longest token, in bytes.
const MAX_WORD: usize = 1024;

/// The most values in the file; GPT-4o's vocabulary with its merges has 800,000.
const MAX_VALUES: usize = 1 << 20;

/// The most added tokens, and their length in all in bytes.
const MAX_ADDED: usize = 1 << 14;
const MAX_ADDED_BYTES: usize = 256 << 10;

/// A tokenizer as its file describes it.
pub(super) struct Spec {
    /// Sorted by number, none of them empty, no two of one text or number.
    pub(super) added: Vec<Added>,
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(super) model: BPE,
    /// The words of `model` by their number, as far as there are.
    pub(super) words: Vec<Option<String>>,
    pub(super) style: Style,
    pub(super) post_processor: Value,
}

/// A token that is not of the model's vocabulary, or is found in text before its words are.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    /// Whether it is found only where no letter or digit touches it.
    #[serde(default)]
    pub(super) single_word: bool,
    /// Whether it swallows the white space before it.
    #[serde(default)]
    pub(super) lstrip: bool,
    /// Whether it swallows the white space after it.
    #[serde(default)]
    pub(super) rstrip: bool,
    /// Whether it is looked for in normalized text, and normalized itself.
    normalized: Option<bool>,
    /// Whether it is a mark of the format rather than text.
    #[serde(default)]
    pub(super) special: bool,
}

impl Added {
    /// A special token that swallows nothing.
    pub(super) fn mark(id: u32, content: &str) -> Self {
        Self {
            id,
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: Some(false),
            special: true,
        }
    }

    /// Whether it is looked for in normalized text.
    pub(super) fn normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }
}

#[derive(Deserialize)]
struct File {
    added_tokens: Option<Vec<Added>>,
    normalizer: Option<NormalizerRule>,
    pre_tokenizer: Option<PreTokenizerRule>,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    #[serde(default)]
    vocab: Words,
    #[serde(default)]
    merges: Merges,
}

/// The vocabulary: numbers by words; `None` if it is no object, as in other kinds of model.
#[derive(Default)]
struct Words(Option<HashMap<String, u32>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut words = HashMap::new();
                while let Some((word, id)) = map.next_entry::<String, u32>()? {
                    if word.len() > MAX_WORD {
                        return Err(A::Error::custom(format!(
                            "the token \"{}\" takes {} bytes; up to {MAX_WORD} make sense",
                            shown(&word),
                            word.len()
                        )));
                    }
                    words.insert(word, id);
                }
                Ok(Words(Some(words)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Words(None))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The pairs of words that are merged, the first first; each is a list of two, or one text with a space
/// between them.
#[derive(Default)]
struct Merges(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Merge {
            Pair(String, String),
            Text(String),
        }
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                while let Some(merge) = list.next_element::<Merge>()? {
                    match merge {
                        Merge::Pair(left, right) => merges.push((left, right)),
                        Merge::Text(text) if text.starts_with("#version") => {}
                        Merge::Text(text) => {
                            let pair = text.split_once(' ').filter(|(_, b)| !b.contains(' '));
                            let (left, right) = pair.ok_or_else(|| {
                                let text = shown(&text);
                                A::Error::custom(format!("the merge \"{text}\" is not two words"))
                            })?;
                            merges.push((left.into(), right.into()));
                        }
                    }
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

impl Spec {
    /// Reads and checks a file.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, TokenError> {
        let bad = |reason: String| TokenError::BadTokenizer { reason };
        let unreadable = |e: json::JsonError| bad(format!("cannot be read: {e}"));
        let text = json::strict(bytes, MAX_VALUES).map_err(unreadable)?;
        let file: File = json::from_text(&text).map_err(unreadable)?;
        drop(text);
        let style = Style::of(&file.decoder)?;
        let unsupported = |reason: String| TokenError::UnsupportedTokenizer { reason };
        let normalizer = file.normalizer.map(rules::normalizer).transpose();
        let pre_tokenizer = file.pre_tokenizer.map(rules::pre_tokenizer).transpose();
        let (normalizer, pre_tokenizer) = (
            normalizer.map_err(unsupported)?,
            pre_tokenizer.map_err(unsupported)?,
        );
        let model = file.model.ok_or_else(|| bad("it has no model".into()))?;
        let (model, words) = model.build()?;
        let added = added(file.added_tokens.unwrap_or_default(), &model, &words)?;
        Ok(Self {
            added,
            normalizer,
            pre_tokenizer,
            model,
            words,
            style,
            post_processor: file.post_processor,
        })
    }

    /// The number of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        use tokenizers::Model;
        let added = self.added.iter().find(|added| added.content == token);
        let added = added.map(|added| added.id);
        added.or_else(|| self.model.token_to_id(token))
    }
}

impl Model {
    /// The model, and its words by number.
    fn build(self) -> Result<(BPE, Vec<Option<String>>), TokenError> {
        let unsupported = |reason: String| Err(TokenError::UnsupportedTokenizer { reason });
        let kind = self.r#type.as_deref().unwrap_or("BPE");
        let Words(Some(words)) = self.vocab else {
            return unsupported(format!(
                "its model is \"{}\" with no vocabulary of byte-pair encoding (\"BPE\")",
                shown(kind)
            ));
        };
        if kind != "BPE" {
            return unsupported(format!(
                "its model is \"{}\"; byte-pair encoding (\"BPE\") is read",
                shown(kind)
            ));
        }
        if let Some(dropout) = self.dropout.filter(|dropout| *dropout != 0.0) {
            return unsupported(format!(
                "its dropout is {dropout}: text would be encoded another way each time"
            ));
        }
        for (name, text) in [
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                return unsupported(format!("its {name} is \"{}\"; none is read", shown(text)));
            }
        }
        let bad = |reason: String| TokenError::BadTokenizer { reason };
        let mut by_id: Vec<Option<String>> = Vec::new();
        for (word, &id) in &words {
            let at = id as usize;
            if let Some(reason) = too_high(id, words.len()) {
                return Err(bad(format!("the token \"{}\" {reason}", shown(word))));
            }
            if at >= by_id.len() {
                by_id.resize(at + 1, None);
            }
            if let Some(other) = by_id[at].replace(word.clone()) {
                let (word, other) = (shown(word), shown(&other));
                return Err(bad(format!(
                    "\"{word}\" and \"{other}\" are both token {id}"
                )));
            }
        }
        let mut joined = String::new();
        for (left, right) in &self.merges.0 {
            joined.clear();
            joined.extend([left.as_str(), right]);
            let unknown = [left, right, &joined];
            if let Some(word) = unknown.into_iter().find(|word| !words.contains_key(*word)) {
                let (left, right, word) = (shown(left), shown(right), shown(word));
                return Err(bad(format!(
                    "the merge of \"{left}\" and \"{right}\" needs \"{word}\", which is no token"
                )));
            }
        }
        let mut builder = BPE::builder()
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(unknown) = self.unk_token {
            if !words.contains_key(&unknown) {
                let unknown = shown(&unknown);
                return Err(bad(format!("its unk_token \"{unknown}\" is no token")));
            }
            builder = builder.unk_token(unknown);
        }
        let words: Vocab = words.into_iter().collect();
        let model = builder.vocab_and_merges(words, self.merges.0).build();
        let model = model.map_err(|e| bad(shown(&e.to_string())))?;
        Ok((model, by_id))
    }
}

/// Why `id` is no number of one of so many tokens, if it is none: lists are as long as the largest.
fn too_high(id: u32, tokens: usize) -> Option<String> {
    let most = MAX_TOKENS.min(16 * tokens + (64 << 10));
    (id as usize >= most).then(|| format!("has number {id}, more than any of {tokens} tokens"))
}

/// The added tokens of a file, checked against its vocabulary.
fn added(
    mut list: Vec<Added>,
    model: &BPE,
    words: &[Option<String>],
) -> Result<Vec<Added>, TokenError> {
    use tokenizers::Model;
    let bad = |reason: String| Err(TokenError::BadTokenizer { reason });
    // Nothing is found by an empty text.
    list.retain(|token| !token.content.is_empty());
    let bytes: usize = list.iter().map(|token| token.content.len()).sum();
    if list.len() > MAX_ADDED || bytes > MAX_ADDED_BYTES {
        return bad(format!(
            "it has {} added tokens of {bytes} bytes; up to {MAX_ADDED} of {MAX_ADDED_BYTES} make \
             sense",
            list.len()
        ));
    }
    let mut ids = HashMap::new();
    for Added { id, content, .. } in &list {
        let text = shown(content);
        if content.len() > MAX_WORD {
            let length = content.len();
            return bad(format!(
                "the added token \"{text}\" takes {length} bytes; up to {MAX_WORD} make sense"
            ));
        }
        if let Some(reason) = too_high(*id, words.len() + list.len()) {
            return bad(format!("the added token \"{text}\" {reason}"));
        }
        let word = words.get(*id as usize).and_then(Option::as_deref);
        let other = model.token_to_id(content).filter(|other| other != id);
        let clash = ids
            .insert(content.as_str(), *id)
            .filter(|other| other != id);
        if let Some(other) = other.or(clash) {
            return bad(format!(
                "the added token \"{text}\" cannot have number {id}: it is token {other}"
            ));
        }
        if let Some(word) = word.filter(|word| word != content) {
            let word = shown(word);
            return bad(format!(
                "the added token \"{text}\" cannot have number {id}, which is \"{word}\""
            ));
        }
    }
    // The last of those that say the same again holds, as in Python.
    list.reverse();
    list.sort_by_key(|token| token.id);
    list.dedup_by(|a, b| a.id == b.id && a.content == b.content);
    if let Some(twins) = list.windows(2).find(|pair| pair[0].id == pair[1].id) {
        let id = twins[0].id;
        let (one, other) = (shown(&twins[0].content), shown(&twins[1].content));
        return bad(format!(
            "the added tokens \"{one}\" and \"{other}\" are both {id}"
        ));
    }
    Ok(list)
}
