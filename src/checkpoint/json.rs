//! JSON as it is found beside models.
//!
//! The files are written by Python, whose JSON has `NaN` and `Infinity`, and pass through editors
//! and servers, which put a byte order mark in front or a web page in place. [`from_slice`] reads
//! what is harmless and says of the rest what it is. `NaN`, `Infinity` and `-Infinity` are read as
//! texts of that name: where they do not matter they do no harm, and where a number is needed they
//! are refused by name.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use super::shown_sentence;

/// The most values (texts, numbers, lists, …) that a document may have: ten times what the index of
/// the largest checkpoint has.
pub const MAX_VALUES: usize = 1 << 17;

/// A document could not be read. Each is a reason: what was read is for the caller to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There is nothing but white space.
    #[error("it is empty: get it again")]
    Empty,
    /// The server sent a page in its place.
    #[error("it is a web page, not JSON: check the address, or whether it needs a login")]
    WebPage,
    /// The repository was cloned without its large files.
    #[error("it is a pointer of Git LFS in place of the file: get the file itself (git lfs pull)")]
    Pointer,
    /// It is packed.
    #[error("it is compressed (gzip): unpack it")]
    Compressed,
    /// It is not UTF-8.
    #[error("it is not UTF-8 but {encoding}: save it as UTF-8")]
    Encoding {
        /// What it seems to be.
        encoding: &'static str,
    },
    /// It holds more values than make sense.
    #[error("it holds more than {most} values")]
    TooMany {
        /// The most that are read.
        most: usize,
    },
    /// It is not JSON, or not of the form that is needed.
    #[error("{0}")]
    Syntax(String),
}

/// Reads a document of at most [`MAX_VALUES`] values, nested 128 deep at most. How long it is, the
/// caller bounds.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    from_text(&strict(bytes, MAX_VALUES)?)
}

/// Reads what [`strict`] gave.
pub fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    serde_json::from_str(text).map_err(|error| JsonError::Syntax(reason(&error)))
}

/// The document as any reader of JSON takes it: UTF-8 without a byte order mark, and `NaN` and the
/// like as texts. It is copied only if these occur, to at most 5/3 of its length. It may have
/// `most` values; whether it is JSON is not checked.
pub fn strict(bytes: &[u8], most: usize) -> Result<Cow<'_, str>, JsonError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| not_utf8(bytes))?;
    let start = text.trim_start();
    if start.is_empty() {
        return Err(JsonError::Empty);
    }
    if start.starts_with('<') {
        return Err(JsonError::WebPage);
    }
    if start.starts_with("version https://git-lfs") {
        return Err(JsonError::Pointer);
    }
    // UTF-16 without a mark is UTF-8 with zeros.
    if bytes.iter().take(4).any(|b| *b == 0) {
        return Err(JsonError::Encoding { encoding: "UTF-16" });
    }
    let (mut values, mut quoted, mut at, mut kept) = (1, false, 0, 0);
    let mut copy = String::new();
    while let Some(&byte) = bytes.get(at) {
        if quoted {
            // An escape takes the character after it along.
            at += if byte == b'\\' { 2 } else { 1 };
            quoted = byte != b'"';
            continue;
        }
        let mut length = 1;
        match byte {
            b'"' => quoted = true,
            b',' | b'[' | b'{' => {
                values += 1;
                if values > most {
                    return Err(JsonError::TooMany { most });
                }
            }
            b'N' | b'I' | b'-' => {
                let mut words = ["NaN", "Infinity", "-Infinity"].into_iter();
                if let Some(word) = words.find(|word| bytes[at..].starts_with(word.as_bytes())) {
                    copy.push_str(&text[kept..at]);
                    copy.extend(["\"", word, "\""]);
                    length = word.len();
                    kept = at + length;
                }
            }
            _ => {}
        }
        at += length;
    }
    if kept == 0 {
        return Ok(Cow::Borrowed(text));
    }
    copy.push_str(&text[kept..]);
    Ok(Cow::Owned(copy))
}

/// What bytes are that are not UTF-8.
fn not_utf8(bytes: &[u8]) -> JsonError {
    let encoding = match bytes {
        [0x1F, 0x8B, ..] => return JsonError::Compressed,
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "UTF-16",
        _ => "something else",
    };
    JsonError::Encoding { encoding }
}

/// The parser's reason, which may quote the file.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Where it is stands at the end.
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => shown_sentence(what) + &place,
        None => shown_sentence(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
    use serde_json::{Value, json};

    fn read(text: &str) -> Result<Value, JsonError> {
        from_slice(text.as_bytes())
    }

    #[test]
    fn pythons_numbers_are_texts_of_their_name() {
        let text = "\u{FEFF}{\"a\": NaN, \"b\":[-Infinity,Infinity], \"NaN\": \"\\\"NaN,-Infinity\\\\\", \"c\": -1}";
        let value = read(text).unwrap();
        assert_eq!(
            value,
            json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN": "\"NaN,-Infinity\\", "c": -1})
        );
        // Where a number is needed, the reason names what stands there.
        let error = from_slice::<Vec<f64>>(b"[1, NaN]").unwrap_err().to_string();
        assert!(
            error.contains("\"NaN\"") && error.contains("f64"),
            "{error}"
        );
        for bad in [
            "[1NaN]",
            "Na",
            "-Inf",
            "{\"a\": Nan}",
            "[-NaN]",
            "{\"a\": NaN",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_is_named() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            let units = text.encode_utf16();
            units
                .flat_map(|u| {
                    if big {
                        u.to_be_bytes()
                    } else {
                        u.to_le_bytes()
                    }
                })
                .collect()
        };
        for (bytes, says) in [
            (b"".to_vec(), "empty"),
            (b"\xEF\xBB\xBF \n".to_vec(), "empty"),
            (b"\n<!doctype html><p>".to_vec(), "web page"),
            (b"<?xml version='1.0'?><Error/>".to_vec(), "web page"),
            (
                b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
                "git lfs pull",
            ),
            (vec![0x1F, 0x8B, 8, 0, 0], "gzip"),
            (utf16("\u{FEFF}{\"a\": \"é\"}", true), "UTF-16"),
            (utf16("\u{FEFF}{\"a\": \"é\"}", false), "UTF-16"),
            (utf16("{\"a\": 1}", true), "UTF-16"),
            (utf16("{\"a\": 1}", false), "UTF-16"),
            (b"{\"a\": \"caf\xE9\"}".to_vec(), "not UTF-8"),
            (b"{\"a\": 1,}".to_vec(), "line 1 column 9"),
            ("[".repeat(1000).into_bytes(), "recursion"),
            (
                format!("[{}0]", "0,".repeat(MAX_VALUES)).into_bytes(),
                "values",
            ),
            ("[".repeat(MAX_VALUES + 9).into_bytes(), "values"),
        ] {
            let error = from_slice::<Value>(&bytes).unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn reasons_are_short_and_harmless() {
        #[derive(serde::Deserialize, Debug)]
        enum One {
            #[allow(dead_code)]
            Known,
        }
        let name = format!("\u{1b}[31m\u{202E}{}", "x".repeat(1_000_000));
        let text = json!(name).to_string();
        let error = from_slice::<One>(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.chars().count() < 700 && error.contains("line 1"),
            "{error:?}"
        );
        assert!(!error.contains(['\u{1b}', '\u{202E}']), "{error:?}");
    }

    /// Whatever is JSON means what it means to `serde_json`.
    #[test]
    fn documents_without_oddities_are_read_as_they_are() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        fn value(rng: &mut StdRng, depth: usize) -> Value {
            const TEXTS: [&str; 8] = [
                "", "NaN", "a\\", "\"", "\\\"NaN", "\u{7}", "é,[{", "Infinity",
            ];
            match rng.random_range(0..if depth == 0 { 4 } else { 6 }) {
                0 => Value::Null,
                1 => rng.random::<bool>().into(),
                2 => json!(rng.random_range(-1e9..1e9)),
                3 => (*TEXTS.choose(rng).unwrap()).into(),
                4 => (0..rng.random_range(0..4))
                    .map(|_| value(rng, depth - 1))
                    .collect(),
                _ => {
                    let pairs = (0..rng.random_range(0..4)).map(|_| {
                        let key = TEXTS.choose(rng).unwrap().to_string();
                        (key, value(rng, depth - 1))
                    });
                    Value::Object(pairs.collect())
                }
            }
        }
        for _ in 0..2000 {
            let value = value(&mut rng, 4);
            let text = match rng.random() {
                true => value.to_string(),
                false => format!("{value:#}"),
            };
            assert!(
                matches!(strict(text.as_bytes(), MAX_VALUES), Ok(Cow::Borrowed(t)) if t == text)
            );
            let expected: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read(&text).unwrap(), expected, "{text}");
        }
    }
}
