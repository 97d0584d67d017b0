//! Added tokens in text: those that a vocabulary has beside its words are found before text is cut
//! into words, as the `tokenizers` crate finds them: from the left, the longest first; those that are
//! to be normalized in text that is.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use tokenizers::normalizer::Range;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString, Token};

use super::TokenError;
use super::spec::Added;
use super::tokenizer::encode_error;
use crate::checkpoint::shown;

/// The most bytes of the tokens to look for, normalized.
const MAX_BYTES: usize = 1 << 20;

static WORD_AT_START: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\w").ok());
static WORD_AT_END: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\w$").ok());

/// Tokens to look for in text.
pub(super) struct AddedTokens {
    /// Those looked for in text as it comes.
    plain: Finder,
    /// Those looked for in normalized text.
    normalized: Finder,
}

/// Tokens to look for, by one rule.
struct Finder {
    /// `None` if there are none.
    automaton: Option<AhoCorasick>,
    /// The tokens in the order of the automaton's patterns.
    tokens: Vec<Added>,
}

impl AddedTokens {
    /// The tokens of `list`, normalized by `normalizer` where they say so.
    pub(super) fn new(
        list: impl Iterator<Item = Added>,
        normalizer: Option<&NormalizerWrapper>,
    ) -> Result<Self, TokenError> {
        let (normalized, plain): (Vec<_>, Vec<_>) = list.partition(Added::normalized);
        let mut bytes = 0;
        let mut texts = Vec::new();
        for token in &normalized {
            let mut text = NormalizedString::from(token.content.as_str());
            if let Some(normalizer) = normalizer {
                normalizer.normalize(&mut text).map_err(encode_error)?;
            }
            bytes += text.get().len();
            if bytes > MAX_BYTES {
                return Err(TokenError::BadTokenizer {
                    reason: format!("its added tokens take more than {MAX_BYTES} bytes"),
                });
            }
            texts.push(text.get().to_string());
        }
        let plain_texts = plain.iter().map(|token| token.content.clone()).collect();
        Ok(Self {
            normalized: Finder::new(normalized, texts)?,
            plain: Finder::new(plain, plain_texts)?,
        })
    }

    /// Finds the tokens in the parts of `text` that are none yet, and normalizes the rest.
    pub(super) fn split(
        &self,
        text: &mut PreTokenizedString,
        normalizer: Option<&NormalizerWrapper>,
    ) -> Result<(), TokenError> {
        if self.plain.automaton.is_some() {
            text.split(|_, part| self.plain.split(part))
                .map_err(encode_error)?;
        }
        if let Some(normalizer) = normalizer {
            text.normalize(|part| normalizer.normalize(part))
                .map_err(encode_error)?;
        }
        if self.normalized.automaton.is_some() {
            text.split(|_, part| self.normalized.split(part))
                .map_err(encode_error)?;
        }
        Ok(())
    }
}

impl Finder {
    /// Looks for `texts`, one for each token.
    fn new(tokens: Vec<Added>, texts: Vec<String>) -> Result<Self, TokenError> {
        // An empty text is everywhere.
        let (tokens, texts): (Vec<_>, Vec<_>) = tokens
            .into_iter()
            .zip(texts)
            .filter(|(_, text)| !text.is_empty())
            .unzip();
        if tokens.is_empty() {
            let automaton = None;
            return Ok(Self { automaton, tokens });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts)
            .map_err(|e| TokenError::BadTokenizer {
                reason: format!("its added tokens: {}", shown(&e.to_string())),
            })?;
        Ok(Self {
            automaton: Some(automaton),
            tokens,
        })
    }

    /// Cuts a text into tokens and what is between them.
    fn split(
        &self,
        part: NormalizedString,
    ) -> tokenizers::Result<Vec<(NormalizedString, Option<Vec<Token>>)>> {
        let text = part.get();
        let mut pieces = Vec::new();
        let mut push = |range: std::ops::Range<usize>, id: Option<u32>| {
            let piece = part.slice(Range::Normalized(range));
            let piece = piece.ok_or("an added token is no part of the text")?;
            let token = id.map(|id| {
                let value = piece.get().to_string();
                let end = value.len();
                vec![Token::new(id, value, (0, end))]
            });
            pieces.push((piece, token));
            tokenizers::Result::Ok(())
        };
        // Where what is not given out yet begins.
        let mut from = 0;
        let found = self.automaton.iter().flat_map(|a| a.find_iter(text));
        for found in found {
            let Some(token) = self.tokens.get(found.pattern().as_usize()) else {
                continue;
            };
            let (mut start, mut end) = (found.start(), found.end());
            // One in the white space that the last one swallowed.
            if start < from {
                continue;
            }
            if token.single_word && touches_word(&text[..start], &text[end..]) {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(from);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if from < start {
                push(from..start, None)?;
            }
            push(start..end, Some(token.id))?;
            from = end;
        }
        if from < text.len() {
            push(from..text.len(), None)?;
        }
        Ok(pieces)
    }
}

/// Whether a letter, a digit or the like ends `before` or begins `after`.
fn touches_word(before: &str, after: &str) -> bool {
    let is = |regex: &LazyLock<Option<Regex>>, text: &str| {
        let regex: Option<&Regex> = regex.as_ref();
        regex.is_some_and(|regex| regex.is_match(text))
    };
    // The end is looked for from the start: the last character is enough.
    let last = before.chars().next_back().map_or(0, char::len_utf8);
    is(&WORD_AT_END, &before[before.len() - last..]) || is(&WORD_AT_START, after)
}
