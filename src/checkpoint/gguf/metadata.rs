//! The typed key-value pairs of a GGUF file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checkpoint::CheckpointError;

/// The type of a value, by the number that the file has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    pub(super) fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::Text,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value, where all have as many.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value of the metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// A number of 32 bits.
    F32(f32),
    /// A number of 64 bits.
    F64(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// Several values of one type.
    Array(Array<'a>),
}

impl Value<'_> {
    /// What it is, for messages.
    fn what(&self) -> &'static str {
        match self {
            Self::Unsigned(_) | Self::Signed(_) => "an integer",
            Self::F32(_) | Self::F64(_) => "a number",
            Self::Bool(_) => "a truth value",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
        }
    }

    /// The integer, if it is one and not negative.
    fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) => Some(n),
            Self::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }
}

/// Several values of one type, read from the file's bytes as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(super) kind: Kind,
    pub(super) len: usize,
    /// The values one after the other, checked.
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let Self { kind, len, bytes } = *self;
        let mut rest = bytes;
        (0..len).map_while(move |_| take(&mut rest, kind))
    }
}

/// The value at the start of `rest`, which moves behind it; `None` if it is cut short.
fn take<'a>(rest: &mut &'a [u8], kind: Kind) -> Option<Value<'a>> {
    Some(match kind {
        Kind::U8 => Value::Unsigned(fixed::<1>(rest)?[0].into()),
        Kind::I8 => Value::Signed(i8::from_le_bytes(fixed(rest)?).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(fixed(rest)?).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(fixed(rest)?).into()),
        Kind::U32 => Value::Unsigned(u32::from_le_bytes(fixed(rest)?).into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(fixed(rest)?).into()),
        Kind::F32 => Value::F32(f32::from_le_bytes(fixed(rest)?)),
        Kind::Bool => Value::Bool(fixed::<1>(rest)?[0] != 0),
        Kind::U64 => Value::Unsigned(u64::from_le_bytes(fixed(rest)?)),
        Kind::I64 => Value::Signed(i64::from_le_bytes(fixed(rest)?)),
        Kind::F64 => Value::F64(f64::from_le_bytes(fixed(rest)?)),
        Kind::Text => Value::Text(std::str::from_utf8(text(rest)?).ok()?),
        Kind::Array => {
            let kind = Kind::of(u32::from_le_bytes(fixed(rest)?))?;
            let len = usize::try_from(u64::from_le_bytes(fixed(rest)?)).ok()?;
            let bytes = *rest;
            match kind.width() {
                Some(width) => *rest = rest.get(len.checked_mul(width)?..)?,
                None => {
                    for _ in 0..len {
                        take(rest, kind)?;
                    }
                }
            }
            let bytes = &bytes[..bytes.len() - rest.len()];
            Value::Array(Array { kind, len, bytes })
        }
    })
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(u64::from_le_bytes(fixed(rest)?)).ok()?;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(text)
}

/// The key-value pairs of a GGUF file. They are kept as the file has them and read when asked for,
/// so that they take no more memory than the file does.
pub struct Metadata {
    file: String,
    /// The header of the file.
    bytes: Vec<u8>,
    /// Where the values are in `bytes`, by key.
    entries: BTreeMap<String, (Kind, Range<usize>)>,
}

impl Metadata {
    pub(super) fn new(
        file: String,
        bytes: Vec<u8>,
        entries: BTreeMap<String, (Kind, Range<usize>)>,
    ) -> Self {
        Self {
            file,
            bytes,
            entries,
        }
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let (kind, range) = self.entries.get(key)?;
        take(&mut self.bytes.get(range.clone())?, *kind)
    }

    /// An integer that is not negative, if the key is there; an error if it is anything else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, CheckpointError> {
        self.typed(key, "an integer, 0 or more", |value| value.unsigned())
    }

    /// A finite number, if the key is there; an error if it is anything else. One that is stored in
    /// 32 bits is the shortest decimal that rounds to it: 1e-5 is 1e-5, as in `config.json`.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a finite number", |value| {
            let number = match *value {
                Value::F32(n) => n.to_string().parse().ok()?,
                Value::F64(n) => n,
                Value::Unsigned(n) => n as f64,
                Value::Signed(n) => n as f64,
                _ => return None,
            };
            Some(number).filter(|n: &f64| n.is_finite())
        })
    }

    /// A truth value, if the key is there; an error if it is anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "a truth value", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A text, if the key is there; an error if it is anything else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.typed(key, "a text", |value| match *value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// An array of texts, if the key is there; an error if it is anything else.
    pub fn texts(
        &self,
        key: &str,
    ) -> Result<Option<impl ExactSizeIterator<Item = &str>>, CheckpointError> {
        let array = self.array(key, "an array of texts", |kind| kind == Kind::Text)?;
        Ok(array.map(|array| {
            let mut rest = array.bytes;
            (0..array.len).map(move |_| match take(&mut rest, Kind::Text) {
                Some(Value::Text(text)) => text,
                // Checked when the file was opened.
                _ => "",
            })
        }))
    }

    /// An array of numbers of any type as f32, if the key is there; an error if it is anything else.
    pub fn numbers(
        &self,
        key: &str,
    ) -> Result<Option<impl Iterator<Item = f32> + use<'_>>, CheckpointError> {
        let number = |kind: Kind| kind.width().is_some() && kind != Kind::Bool;
        let array = self.array(key, "an array of numbers", number)?;
        Ok(array.map(|array| {
            array.iter().map(|value| match value {
                Value::F32(n) => n,
                Value::F64(n) => n as f32,
                Value::Unsigned(n) => n as f32,
                Value::Signed(n) => n as f32,
                // No number.
                _ => f32::NAN,
            })
        }))
    }

    /// An array of integers of any type, if the key is there; an error if it is anything else.
    /// Integers beyond i64 are its largest.
    pub fn integers(
        &self,
        key: &str,
    ) -> Result<Option<impl Iterator<Item = i64> + use<'_>>, CheckpointError> {
        let integer = |kind: Kind| {
            kind.width().is_some() && !matches!(kind, Kind::Bool | Kind::F32 | Kind::F64)
        };
        let array = self.array(key, "an array of integers", integer)?;
        Ok(array.map(|array| {
            array.iter().map(|value| match value {
                Value::Signed(n) => n,
                value => value
                    .unsigned()
                    .and_then(|n| i64::try_from(n).ok())
                    .unwrap_or(i64::MAX),
            })
        }))
    }

    fn array(
        &self,
        key: &str,
        expected: &str,
        fits: impl Fn(Kind) -> bool,
    ) -> Result<Option<Array<'_>>, CheckpointError> {
        self.typed(key, expected, |value| match *value {
            Value::Array(array) if fits(array.kind) => Some(array),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.bad(key, format!("is {}, not {expected}", value.what()))),
        }
    }

    /// A key's value cannot be used.
    pub fn bad(&self, key: &str, reason: String) -> CheckpointError {
        CheckpointError::Key {
            file: self.file.clone(),
            key: key.into(),
            reason,
        }
    }
}
