//! The formats' planes, and reading them back.

use half::f16;

use super::{GROUP, groups, q4, q8};

/// How weights are stored; the layouts are in the [module's documentation](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Unquantised, 32 bits a weight.
    F32,
    /// 4 bits and a scale a group, 4.5 bits a weight.
    Q4,
    /// 4 bits, a scale and a minimum a group, 5 bits a weight.
    Q4M,
    /// 5 bits, a scale and a minimum a group, 6 bits a weight.
    Q5,
    /// 6 bits and a scale for half a group, 7 bits a weight.
    Q6,
    /// 8 bits and a scale a group, 8.5 bits a weight.
    Q8,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::F32, Self::Q4, Self::Q4M, Self::Q5, Self::Q6, Self::Q8];

    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Q4 => "q4",
            Self::Q4M => "q4m",
            Self::Q5 => "q5",
            Self::Q6 => "q6",
            Self::Q8 => "q8",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The format that [`quantize`] makes when asked for this one: those that only files bring, with
    /// minima or of 5 and 6 bits, become Q8, which loses less.
    pub fn quantized(self) -> Self {
        match self {
            Self::F32 | Self::Q4 => self,
            Self::Q4M | Self::Q5 | Self::Q6 | Self::Q8 => Self::Q8,
        }
    }

    /// u32 words of a group in the `words` plane.
    pub fn group_words(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::Q4 | Self::Q4M | Self::Q5 | Self::Q6 => 4,
            Self::Q8 => 8,
        }
    }

    /// u32 words of a row of `k` weights in the `words` plane.
    pub fn row_words(self, k: usize) -> usize {
        groups(k) * self.group_words()
    }

    /// u32 words of a row of `k` weights in the `side` plane.
    pub fn row_side(self, k: usize) -> usize {
        match self {
            Self::F32 => 0,
            Self::Q4 | Self::Q8 => groups(k).div_ceil(2),
            Self::Q4M => groups(k),
            Self::Q5 => 2 * groups(k),
            Self::Q6 => 3 * groups(k),
        }
    }

    /// Bytes of a row of `k` weights in the larger of its planes.
    pub fn row_bytes(self, k: usize) -> u64 {
        (self.row_words(k).max(self.row_side(k)) * 4) as u64
    }
}

/// Some whole rows of a matrix `[N, K]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planes {
    /// How they are stored.
    pub format: Format,
    /// `[rows, words a row]`
    pub words: Vec<u32>,
    /// `[rows, side a row]`
    pub side: Vec<u32>,
}

impl Planes {
    /// No rows yet.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            words: Vec::new(),
            side: Vec::new(),
        }
    }

    /// Their size.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&self.words[..]) + size_of_val(&self.side[..])) as u64
    }
}

/// Quantises rows of `k` finite weights, `rows.len()` being a multiple of `k`. Deterministic: the same
/// weights give the same bits on every platform.
///
/// The planes are in the format [`Format::quantized`].
pub fn quantize(rows: &[f32], k: usize, format: Format) -> Planes {
    match format.quantized() {
        Format::F32 => {
            let padded = groups(k) * GROUP;
            let mut words = Vec::with_capacity(rows.len().div_ceil(k.max(1)) * padded);
            for row in rows.chunks_exact(k.max(1)) {
                words.extend(row.iter().map(|v| v.to_bits()));
                words.resize(words.len().next_multiple_of(padded), 0);
            }
            Planes {
                format: Format::F32,
                words,
                side: Vec::new(),
            }
        }
        Format::Q4 => q4::quantize(rows, k),
        Format::Q4M | Format::Q5 | Format::Q6 | Format::Q8 => q8::quantize(rows, k),
    }
}

/// Reads rows of `k` weights back, `[rows, k]`, the padding dropped: the reference for every kernel that
/// reads the formats. Rows that are not whole are left out.
pub fn dequantize(planes: &Planes, k: usize) -> Vec<f32> {
    let format = planes.format;
    let (row_words, row_side) = (format.row_words(k), format.row_side(k));
    if row_words == 0 {
        return Vec::new();
    }
    let rows = planes.words.len() / row_words;
    let mut out = Vec::with_capacity(rows * k);
    for (row, words) in planes.words.chunks_exact(row_words).enumerate() {
        let Some(side) = planes.side.get(row * row_side..(row + 1) * row_side) else {
            break;
        };
        out.extend((0..k).map(|i| weight(format, words, side, i / GROUP, i % GROUP)));
    }
    out
}

/// Weight `i` of a row's group `g`.
fn weight(format: Format, words: &[u32], side: &[u32], g: usize, i: usize) -> f32 {
    let low = |word: u32| f16::from_bits(word as u16).to_f32();
    let high = |word: u32| f16::from_bits((word >> 16) as u16).to_f32();
    let shared = || match g % 2 {
        0 => low(side[g / 2]),
        _ => high(side[g / 2]),
    };
    let nibble = || {
        let word = words[g * 4 + i / 8];
        (word >> (8 * (i % 4) + 4 * (i % 8 / 4)) & 15) as f32
    };
    match format {
        Format::F32 => f32::from_bits(words[g * GROUP + i]),
        Format::Q4 => shared() * (nibble() - 8.0),
        Format::Q4M => low(side[g]) * nibble() + high(side[g]),
        Format::Q5 => {
            let bit = (side[2 * g + 1] >> i & 1) as f32;
            low(side[2 * g]) * (nibble() + 16.0 * bit) + high(side[2 * g])
        }
        Format::Q6 => {
            let bits = (side[3 * g + 1 + i / 16] >> (2 * (i % 16)) & 3) as f32;
            let scale = match i / 16 {
                0 => low(side[3 * g]),
                _ => high(side[3 * g]),
            };
            scale * (nibble() + 16.0 * bits - 32.0)
        }
        Format::Q8 => {
            let byte = (words[g * 8 + i / 4] >> (8 * (i % 4))) as u8 as i8;
            shared() * f32::from(byte)
        }
    }
}
