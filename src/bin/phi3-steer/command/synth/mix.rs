//! What each tensor is stored as.

use std::str::FromStr;

use phi3_steer::checkpoint::Encoding;

use crate::layout::Shape;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// BF16 in shards of at most 5 GB and an index, as on the Hub.
    Safetensors,
    /// The project's own format, 4 bits.
    Planes,
    /// A GGUF file.
    Gguf(Mix),
}

/// Which matrices of a GGUF file are stored how; vectors are F32 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All alike, but the head of a file of fewer than 6 bits, which is Q6_K.
    Plain(Encoding),
    /// llama.cpp's Q4_K_M.
    Q4KM,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "safetensors" => return Ok(Self::Safetensors),
            "planes" => return Ok(Self::Planes),
            "gguf-q4_k_m" => return Ok(Self::Gguf(Mix::Q4KM)),
            _ => {}
        }
        let plain = text.strip_prefix("gguf-").and_then(|name| {
            let mut all = Encoding::ALL.into_iter();
            all.find(|encoding| encoding.to_string().to_lowercase() == name)
        });
        plain
            .map(|encoding| Self::Gguf(Mix::Plain(encoding)))
            .ok_or_else(|| {
                let plain = Encoding::ALL.map(|e| format!("gguf-{}", e.to_string().to_lowercase()));
                format!(
                    "there is no such format; there are safetensors, planes, gguf-q4_k_m, {}",
                    plain.join(", ")
                )
            })
    }
}

impl Mix {
    /// llama.cpp's number of the mix, `general.file_type`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::Q4KM => 15,
            Self::Plain(encoding) => match encoding {
                Encoding::F32 => 0,
                Encoding::F16 => 1,
                Encoding::Q4_0 => 2,
                Encoding::Q4_1 => 3,
                Encoding::Q8_0 => 7,
                Encoding::Q5_0 => 8,
                Encoding::Q5_1 => 9,
                Encoding::Q4K => 14,
                Encoding::Q5K => 16,
                Encoding::Q6K => 18,
                Encoding::BF16 => 32,
            },
        }
    }

    /// How a tensor of the block `layer` (of so many) or of none is stored, by its GGUF name.
    pub fn encoding(
        self,
        name: &str,
        layer: Option<usize>,
        layers: usize,
        shape: Shape,
    ) -> Encoding {
        let Shape::Matrix([_, columns]) = shape else {
            return Encoding::F32;
        };
        let wanted = match self {
            Self::Plain(encoding) => match encoding {
                Encoding::Q4_0
                | Encoding::Q4_1
                | Encoding::Q5_0
                | Encoding::Q5_1
                | Encoding::Q4K
                | Encoding::Q5K
                    if name == "output.weight" =>
                {
                    Encoding::Q6K
                }
                other => other,
            },
            Self::Q4KM => {
                let wide = name == "output.weight"
                    || (name.contains("attn_qkv") || name.contains("ffn_down"))
                        && layer.is_some_and(|layer| more_bits(layer, layers));
                if wide { Encoding::Q6K } else { Encoding::Q4K }
            }
        };
        fitting(wanted, columns)
    }
}

/// The blocks that get more bits: llama.cpp's `use_more_bits`.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// What llama.cpp takes where rows are not whole blocks.
fn fitting(encoding: Encoding, columns: usize) -> Encoding {
    if columns.is_multiple_of(encoding.block()) {
        return encoding;
    }
    let simple = match encoding {
        Encoding::Q4K => Encoding::Q5_0,
        Encoding::Q5K => Encoding::Q5_1,
        Encoding::Q6K => Encoding::Q8_0,
        _ => Encoding::F16,
    };
    fitting(simple, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_that_of_published_files() {
        let wide: Vec<usize> = (0..32).filter(|layer| more_bits(*layer, 32)).collect();
        let known = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31];
        assert_eq!(wide, known);
        let encoding =
            |name, columns| Mix::Q4KM.encoding(name, Some(4), 32, Shape::Matrix([1, columns]));
        assert_eq!(encoding("output.weight", 3072), Encoding::Q6K);
        assert_eq!(encoding("blk.4.ffn_down.weight", 8192), Encoding::Q4K);
        assert_eq!(encoding("blk.4.ffn_down.weight", 192), Encoding::Q5_0);
        assert_eq!(encoding("output.weight", 192), Encoding::Q8_0);
        assert_eq!(encoding("output.weight", 100), Encoding::F16);
    }

    #[test]
    fn formats_have_names() {
        assert_eq!(
            "gguf-q4_k".parse(),
            Ok(Format::Gguf(Mix::Plain(Encoding::Q4K)))
        );
        assert_eq!("gguf-q4_k_m".parse(), Ok(Format::Gguf(Mix::Q4KM)));
        assert!("gguf".parse::<Format>().unwrap_err().contains("gguf-q6_k"));
    }
}
