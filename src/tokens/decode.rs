//! Tokens to text, one by one.

use std::rc::Rc;

use serde_json::Value;

use super::TokenError;
use crate::checkpoint::shown;

/// What a token adds to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text, in whole characters.
    Text(Box<str>),
    /// Bytes that may be a part of a character only.
    Bytes(Box<[u8]>),
    /// Nothing: a special token, or a number without a token.
    Nothing,
}

/// How the tokenizer's decoder builds text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Llama's: "▁" is a space and `<0xE4>` a byte (byte fallback). The first character of the
    /// text is dropped, with `strip_space`, if it is the space that encoding puts in front.
    Llama { strip_space: bool },
    /// GPT-2's: each character stands for a byte.
    ByteLevel,
}

impl Style {
    /// Recognises the `decoder` of a `tokenizer.json`.
    pub(super) fn of(decoder: &Value) -> Result<Self, TokenError> {
        let parts = match decoder["decoders"].as_array() {
            Some(parts) if decoder["type"] == "Sequence" => parts.as_slice(),
            _ => std::slice::from_ref(decoder),
        };
        let space = |p: &Value| p["pattern"]["String"] == "\u{2581}" && p["content"] == " ";
        let strip = |p: &Value| p["content"] == " " && p["start"] == 1 && p["stop"] == 0;
        let kinds: Vec<&str> = parts
            .iter()
            .map(|part| part["type"].as_str().unwrap_or("none"))
            .collect();
        match kinds[..] {
            ["ByteLevel"] => Ok(Self::ByteLevel),
            ["Replace", "ByteFallback", "Fuse"] if space(&parts[0]) => {
                Ok(Self::Llama { strip_space: false })
            }
            ["Replace", "ByteFallback", "Fuse", "Strip"]
                if space(&parts[0]) && strip(&parts[3]) =>
            {
                Ok(Self::Llama { strip_space: true })
            }
            _ => Err(TokenError::UnknownDecoder {
                decoder: shown(&kinds.join(", ")),
            }),
        }
    }

    /// What a token adds to the text that is found in text as it is.
    pub(super) fn added_piece(self, token: &str) -> Piece {
        match self {
            Self::Llama { .. } => self.piece(token),
            Self::ByteLevel => Piece::Bytes(token.as_bytes().into()),
        }
    }

    /// What an ordinary token adds to the text.
    pub(super) fn piece(self, token: &str) -> Piece {
        match self {
            Self::Llama { .. } => match fallback_byte(token) {
                Some(byte) => Piece::Bytes([byte].into()),
                None => Piece::Text(token.replace('\u{2581}', " ").into()),
            },
            Self::ByteLevel => {
                // A token with a character outside the alphabet (an added one) is plain text.
                let bytes: Option<Box<[u8]>> = token.chars().map(byte_of_level).collect();
                Piece::Bytes(bytes.unwrap_or_else(|| token.as_bytes().into()))
            }
        }
    }
}

/// The byte that a token like `<0xE4>` stands for.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let digits = hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 characters are
/// themselves, the other bytes follow from U+0100 on in their order.
fn byte_of_level(c: char) -> Option<u8> {
    let itself = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => Some(code as u8).filter(|&b| itself(b)),
        code => (0..=0xFF)
            .filter(|&b| !itself(b))
            .nth(code as usize - 0x100),
    }
}

/// The vocabulary as text.
pub(super) struct Pieces {
    pub(super) style: Style,
    pub(super) pieces: Vec<Piece>,
}

/// Turns tokens that arrive one by one into text.
///
/// Only whole characters come out: the bytes of a character that the vocabulary spells in several
/// tokens are held back until the last of them. Bytes that are no character become U+FFFD: one for
/// each byte in a Llama vocabulary (as SentencePiece has it), one for each broken character in a
/// byte-level one. Special tokens add nothing. The pieces joined are
/// [`ChatTokenizer::decode`](super::ChatTokenizer::decode) of all the tokens; each costs only its
/// own length.
#[derive(Clone)]
pub struct Detokenizer {
    vocabulary: Rc<Pieces>,
    /// The first bytes of a character, at most three.
    held: Vec<u8>,
    /// Whether any character came out or was stripped.
    started: bool,
}

impl Detokenizer {
    pub(super) fn new(vocabulary: Rc<Pieces>) -> Self {
        Self {
            vocabulary,
            held: Vec::new(),
            started: false,
        }
    }

    /// The text that is certain now that `token` has come, and was not before; often empty.
    pub fn push(&mut self, token: u32) -> String {
        let vocabulary = self.vocabulary.clone();
        let mut out = String::new();
        match vocabulary.pieces.get(token as usize) {
            None | Some(Piece::Nothing) => {}
            Some(Piece::Text(text)) => {
                self.flush(&mut out);
                out.push_str(text);
            }
            Some(Piece::Bytes(bytes)) => {
                self.held.extend_from_slice(bytes);
                self.take_characters(&mut out);
            }
        }
        self.start(out)
    }

    /// What is left when no token follows: U+FFFD for the bytes of an unfinished character. The
    /// detokenizer is then as new.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.flush(&mut out);
        let out = self.start(out);
        self.started = false;
        out
    }

    /// Moves whole and broken characters from the held bytes to `out`.
    fn take_characters(&mut self, out: &mut String) {
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(text) => {
                    out.push_str(text);
                    self.held.clear();
                    return;
                }
                Err(error) => {
                    let (text, rest) = self.held.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(text));
                    let Some(broken) = error.error_len() else {
                        self.held = rest.to_vec();
                        return;
                    };
                    self.held = rest[broken..].to_vec();
                    self.replace(broken, out);
                }
            }
        }
    }

    /// Gives up on the held bytes.
    fn flush(&mut self, out: &mut String) {
        let broken = self.held.len();
        self.held.clear();
        self.replace(broken, out);
    }

    /// Stands in for one broken character of so many bytes.
    fn replace(&self, bytes: usize, out: &mut String) {
        let marks = match self.vocabulary.style {
            Style::Llama { .. } => bytes,
            Style::ByteLevel => bytes.min(1),
        };
        out.extend(std::iter::repeat_n('\u{FFFD}', marks));
    }

    /// Drops the text's leading space, if that is the vocabulary's way.
    fn start(&mut self, mut out: String) -> String {
        if !self.started && !out.is_empty() {
            self.started = true;
            let strip = self.vocabulary.style == Style::Llama { strip_space: true };
            if strip && out.starts_with(' ') {
                out.remove(0);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_gpt2s() {
        let bytes: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of_level).collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
        let known = [
            ('Ġ', b' '),
            ('Ċ', b'\n'),
            ('A', b'A'),
            ('ä', 0xE4),
            ('Ń', 0xAD),
            ('Ā', 0),
        ];
        for (c, byte) in known {
            assert_eq!(byte_of_level(c), Some(byte), "{c}");
        }
        assert_eq!(byte_of_level(' '), None);
    }

    #[test]
    fn only_byte_tokens_are_bytes() {
        assert_eq!(fallback_byte("<0xE4>"), Some(0xE4));
        for token in ["<0xE>", "<0x+4>", "<0xE4", "0xE4", "<0xäb>", "<0xGG>"] {
            assert_eq!(fallback_byte(token), None, "{token}");
        }
    }
}
