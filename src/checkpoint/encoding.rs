//! How a tensor's numbers are stored.

use std::fmt;

use safetensors::Dtype;

/// How a tensor's numbers are stored: in blocks along the last dimension. The quantised ones are
/// GGML's, <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// 4 bits and a scale for 32 numbers.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 numbers.
    Q4_1,
    /// 5 bits and a scale for 32 numbers.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 numbers.
    Q5_1,
    /// 8 bits and a scale for 32 numbers.
    Q8_0,
    /// 4 bits, a scale and a minimum for 32 numbers, in blocks of 256.
    Q4K,
    /// 5 bits, a scale and a minimum for 32 numbers, in blocks of 256.
    Q5K,
    /// 6 bits and a scale for 16 numbers, in blocks of 256.
    Q6K,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The encoding of this number in a GGUF file.
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.ggml() == number)
    }

    /// The encoding's number in a GGUF file.
    pub fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// Numbers in a block.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `n` numbers; `None` if that is no whole number of blocks, or too many.
    pub fn bytes(self, n: u64) -> Option<u64> {
        let block = self.block() as u64;
        if !n.is_multiple_of(block) {
            return None;
        }
        (n / block).checked_mul(self.block_bytes() as u64)
    }

    /// Whether numbers are stored in quantised blocks.
    pub fn is_quantised(self) -> bool {
        self.block() > 1
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
    }
}

/// The type of a tensor's numbers in a safetensors file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// Numbers that are read.
    Encoding(Encoding),
    /// Another type.
    Other(Dtype),
}

impl TensorType {
    /// How the numbers are stored, if they are read.
    pub fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Encoding(encoding) => Some(encoding),
            Self::Other(_) => None,
        }
    }
}

impl From<Dtype> for TensorType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::Encoding(Encoding::F32),
            Dtype::F16 => Self::Encoding(Encoding::F16),
            Dtype::BF16 => Self::Encoding(Encoding::BF16),
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(encoding) => encoding.fmt(f),
            Self::Other(dtype) => dtype.fmt(f),
        }
    }
}
