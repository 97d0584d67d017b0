//! How a `tokenizer.json` changes and cuts text before it looks words up: the normalizers and
//! pre-tokenizers that are known here. The `tokenizers` crate has more, takes any parameters, and
//! does what it is told: what is built is only what cannot make a text much longer, or take long.

use serde::Deserialize;
use tokenizers::normalizers::{
    ByteLevel as ByteLevelText, Lowercase, NFC, NFD, NFKC, NFKD, NormalizerWrapper, Prepend,
    Replace, Sequence as Normalizers, Strip,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::checkpoint::shown;

/// The most rules in a row.
const MAX_RULES: usize = 8;

/// How many times as long as before all rules together may make a text.
const MAX_GROWTH: usize = 64;

/// The longest text that a rule looks for or puts in, in bytes.
const MAX_TEXT: usize = 32;

/// The longest expression that cuts text into words, in bytes; GPT-4o's has 361.
const MAX_EXPRESSION: usize = 1024;

/// The most classes of characters by their property in an expression; GPT-4o's has 24. Each is a
/// large table.
const MAX_CLASSES: usize = 48;

/// The most times that a part of an expression is repeated by number.
const MAX_REPEAT: u64 = 4;

/// A normalizer of `tokenizer.json`.
#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum NormalizerRule {
    Sequence {
        normalizers: Vec<NormalizerRule>,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    Lowercase,
    ByteLevel,
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
}

/// A pre-tokenizer of `tokenizer.json`.
#[derive(Deserialize)]
#[serde(tag = "type")]
pub(super) enum PreTokenizerRule {
    Sequence {
        pretokenizers: Vec<PreTokenizerRule>,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Metaspace {
        replacement: char,
        prepend_scheme: Option<PrependScheme>,
        /// What older files have in place of the scheme.
        add_prefix_space: Option<bool>,
        split: Option<bool>,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    Punctuation {
        behavior: Option<SplitDelimiterBehavior>,
    },
    Whitespace,
    WhitespaceSplit,
}

/// What a rule looks for.
#[derive(Deserialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

fn yes() -> bool {
    true
}

/// The normalizer of a rule.
pub(super) fn normalizer(rule: NormalizerRule) -> Result<NormalizerWrapper, String> {
    let nested = matches!(rule, NormalizerRule::Sequence { .. });
    let (mut built, mut growth) = (Vec::new(), 1);
    let mut rest = vec![rule];
    let mut seen = Seen::default();
    while let Some(rule) = rest.pop() {
        let (normalizer, grows): (NormalizerWrapper, usize) = match rule {
            NormalizerRule::Sequence { normalizers } => {
                seen.count(normalizers.len())?;
                rest.extend(normalizers.into_iter().rev());
                continue;
            }
            // Once for each stretch of text, however short.
            NormalizerRule::Prepend { prepend } => {
                short("a Prepend puts in", &prepend)?;
                (Prepend::new(prepend.clone()).into(), 1 + prepend.len())
            }
            NormalizerRule::Replace { pattern, content } => {
                let Pattern::String(pattern) = pattern else {
                    return Err("a Replace looks for an expression; a text is supported".into());
                };
                if pattern.is_empty() {
                    return Err("a Replace looks for an empty text".into());
                }
                short("a Replace looks for", &pattern)?;
                short("a Replace puts in", &content)?;
                let grows = content.len().div_ceil(pattern.len()).max(1);
                let replace = Replace::new(pattern, content).map_err(|e| shown(&e.to_string()))?;
                (replace.into(), grows)
            }
            NormalizerRule::Strip {
                strip_left,
                strip_right,
            } => (Strip::new(strip_left, strip_right).into(), 1),
            NormalizerRule::Lowercase => (Lowercase.into(), 2),
            NormalizerRule::ByteLevel => (ByteLevelText::new().into(), 2),
            // One character of three bytes is 33 bytes, of two bytes 6.
            NormalizerRule::Nfc => (NFC.into(), 3),
            NormalizerRule::Nfd => (NFD.into(), 3),
            NormalizerRule::Nfkc => (NFKC.into(), 11),
            NormalizerRule::Nfkd => (NFKD.into(), 11),
        };
        // Two of one of these do no more than one does.
        let repeatable = matches!(
            normalizer,
            NormalizerWrapper::Prepend(_) | NormalizerWrapper::Replace(_)
        );
        let again = |other: &NormalizerWrapper| {
            !repeatable && std::mem::discriminant(other) == std::mem::discriminant(&normalizer)
        };
        if built.iter().any(again) {
            return Err("a normalizer is there twice".into());
        }
        growth *= grows;
        if growth > MAX_GROWTH {
            return Err(format!(
                "its normalizers make a text more than {MAX_GROWTH} times as long"
            ));
        }
        built.push(normalizer);
    }
    match (nested, built.pop()) {
        (false, Some(only)) => Ok(only),
        (_, last) => {
            built.extend(last);
            Ok(Normalizers::new(built).into())
        }
    }
}

/// The pre-tokenizer of a rule.
pub(super) fn pre_tokenizer(rule: PreTokenizerRule) -> Result<PreTokenizerWrapper, String> {
    let nested = matches!(rule, PreTokenizerRule::Sequence { .. });
    let (mut built, mut rest) = (Vec::new(), vec![rule]);
    let mut seen = Seen::default();
    while let Some(rule) = rest.pop() {
        let pre_tokenizer: PreTokenizerWrapper = match rule {
            PreTokenizerRule::Sequence { pretokenizers } => {
                seen.count(pretokenizers.len())?;
                rest.extend(pretokenizers.into_iter().rev());
                continue;
            }
            PreTokenizerRule::ByteLevel {
                add_prefix_space,
                trim_offsets,
                use_regex,
            } => {
                // Each makes a text up to twice as long.
                if built
                    .iter()
                    .any(|b| matches!(b, PreTokenizerWrapper::ByteLevel(_)))
                {
                    return Err("it has a ByteLevel pre-tokenizer twice".into());
                }
                ByteLevel::new(add_prefix_space, trim_offsets, use_regex).into()
            }
            PreTokenizerRule::Metaspace {
                replacement,
                prepend_scheme,
                add_prefix_space,
                split,
            } => {
                if built
                    .iter()
                    .any(|b| matches!(b, PreTokenizerWrapper::Metaspace(_)))
                {
                    return Err("it has a Metaspace pre-tokenizer twice".into());
                }
                let scheme = match (prepend_scheme, add_prefix_space) {
                    (None | Some(PrependScheme::Never), Some(false)) => PrependScheme::Never,
                    (Some(_), Some(false)) => {
                        return Err(
                            "its Metaspace has a prepend_scheme that its add_prefix_space denies"
                                .into(),
                        );
                    }
                    (scheme, _) => scheme.unwrap_or(PrependScheme::Always),
                };
                Metaspace::new(replacement, scheme, split.unwrap_or(true)).into()
            }
            PreTokenizerRule::Split {
                pattern,
                behavior,
                invert,
            } => {
                let pattern = match pattern {
                    Pattern::String(text) => {
                        if text.is_empty() {
                            return Err("a Split looks for an empty text".into());
                        }
                        short("a Split looks for", &text)?;
                        SplitPattern::String(text)
                    }
                    Pattern::Regex(expression) => {
                        simple(&expression)?;
                        SplitPattern::Regex(expression)
                    }
                };
                let split = Split::new(pattern, behavior, invert);
                split.map_err(|e| shown(&e.to_string()))?.into()
            }
            PreTokenizerRule::Digits { individual_digits } => Digits::new(individual_digits).into(),
            PreTokenizerRule::Punctuation { behavior } => {
                let behavior = behavior.unwrap_or(SplitDelimiterBehavior::Isolated);
                Punctuation::new(behavior).into()
            }
            PreTokenizerRule::Whitespace => Whitespace.into(),
            PreTokenizerRule::WhitespaceSplit => WhitespaceSplit.into(),
        };
        built.push(pre_tokenizer);
    }
    match (nested, built.pop()) {
        (false, Some(only)) => Ok(only),
        (_, last) => {
            built.extend(last);
            Ok(PreTokenizers::new(built).into())
        }
    }
}

/// How many rules there are, in sequences of sequences too.
#[derive(Default)]
struct Seen(usize);

impl Seen {
    fn count(&mut self, more: usize) -> Result<(), String> {
        // A sequence is a rule itself: otherwise empty ones could go on for ever.
        self.0 += 1 + more;
        match self.0 > 2 * MAX_RULES {
            true => Err(format!("it has more than {MAX_RULES} rules in a row")),
            false => Ok(()),
        }
    }
}

fn short(what: &str, text: &str) -> Result<(), String> {
    match text.len() > MAX_TEXT {
        true => Err(format!(
            "{what} {} bytes; up to {MAX_TEXT} make sense",
            text.len()
        )),
        false => Ok(()),
    }
}

/// Refuses expressions that could take long to build or to match: those of known tokenizers are
/// lists of classes of characters, each repeated, without groups that are.
fn simple(expression: &str) -> Result<(), String> {
    let no = |what: &str| {
        Err(format!(
            "the expression \"{}\" cuts text into words; {what} are not supported in it",
            shown(expression)
        ))
    };
    if expression.len() > MAX_EXPRESSION {
        return no(&format!("more than {MAX_EXPRESSION} bytes"));
    }
    let bytes = expression.as_bytes();
    let (mut at, mut classes, mut depth, mut counted) = (0, 0, 0usize, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let mut length = 1;
        let close = || {
            rest.iter()
                .position(|b| *b == b'}')
                .unwrap_or(rest.len() - 1)
        };
        match byte {
            b'\\' => {
                length = 2;
                match rest.get(1) {
                    Some(b'p' | b'P') => {
                        classes += 1;
                        // The property's name.
                        if rest.get(2) == Some(&b'{') {
                            length = close() + 1;
                        }
                    }
                    Some(b'w' | b'W' | b'd' | b'D' | b's' | b'S') => classes += 1,
                    Some(b'1'..=b'9' | b'k' | b'g' | b'K' | b'G' | b'X' | b'R') => {
                        return no("references");
                    }
                    _ => {}
                }
            }
            b'(' => {
                let kinds = ["(?i:", "(?:", "(?!", "(?="];
                let plain = rest.get(1) != Some(&b'?');
                if !plain && !kinds.iter().any(|kind| rest.starts_with(kind.as_bytes())) {
                    return no("groups of this kind");
                }
                depth += 1;
                if depth > 3 {
                    return no("groups in groups");
                }
            }
            b')' => {
                depth = depth.saturating_sub(1);
                if matches!(rest.get(1), Some(b'*' | b'+' | b'{')) {
                    return no("repeated groups");
                }
            }
            b'{' => {
                length = close() + 1;
                let large = |count: &[u8]| {
                    let count = std::str::from_utf8(count).ok();
                    let count = count.and_then(|c| c.trim().parse::<u64>().ok());
                    count.is_some_and(|c| c > MAX_REPEAT)
                };
                if counted
                    || rest[1..length]
                        .split(|b| matches!(b, b',' | b'}'))
                        .any(large)
                {
                    return no("high counts");
                }
            }
            _ => {}
        }
        if classes > MAX_CLASSES {
            return no("so many classes");
        }
        counted = byte == b'{';
        at += length;
    }
    Ok(())
}
