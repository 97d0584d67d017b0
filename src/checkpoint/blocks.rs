//! ggml's quantised blocks.
//!
//! Every block is one or eight groups of 32 weights, and every weight is
//! `scale * (level - offset) + minimum`, with one scale a group (two in Q6_K, of 16 weights each).
//! Layouts and formulas: `ggml-common.h` and `dequantize_row_*` of ggml's `ggml-quants.c`. Products
//! of a scale and a level are exact in f32, so that only adding the minimum rounds.

use half::f16;

use super::Encoding;

/// Weights of a group.
pub(super) const GROUP: usize = 32;

/// The low half of every byte of a word.
pub(super) const LOW: u32 = 0x0f0f_0f0f;
/// The lowest bit of every byte of a word.
pub(super) const ONES: u32 = 0x0101_0101;

/// A group of 32 weights of a block.
pub(super) struct Group {
    /// The stored integers, a byte each in order: signed in Q8_0, from 0 up elsewhere. Words, so that each step
    /// handles four.
    pub levels: [u32; GROUP / 4],
    /// The scales of weights 0..16 and of 16..32.
    pub scales: [f32; 2],
    /// What is added to every weight.
    pub minimum: f32,
}

/// The level that stands for the weight `minimum`.
fn offset(encoding: Encoding) -> i8 {
    match encoding {
        Encoding::Q4_0 => 8,
        Encoding::Q5_0 => 16,
        Encoding::Q6K => 32,
        _ => 0,
    }
}

/// Appends the weights of whole blocks of a quantised `encoding` to `out`.
pub(super) fn append_f32(encoding: Encoding, bytes: &[u8], out: &mut Vec<f32>) {
    let offset = offset(encoding);
    for_groups(encoding, bytes, |group| {
        for (levels, scale) in group.levels.chunks_exact(GROUP / 8).zip(group.scales) {
            for four in levels {
                out.extend(
                    four.to_le_bytes()
                        .map(|level| scale * f32::from(level as i8 - offset) + group.minimum),
                );
            }
        }
    });
}

/// Calls `f` for every group of the whole blocks in `bytes`, in order.
#[inline]
pub(super) fn for_groups(encoding: Encoding, bytes: &[u8], mut f: impl FnMut(&Group)) {
    for block in bytes.chunks_exact(encoding.block_bytes()) {
        match encoding {
            Encoding::F32 | Encoding::F16 | Encoding::BF16 => {}
            Encoding::Q4_0 => f(&simple(half(block, 0), 0.0, None, &block[2..])),
            Encoding::Q4_1 => f(&simple(half(block, 0), half(block, 2), None, &block[4..])),
            Encoding::Q5_0 => {
                let high = word(block, 2);
                f(&simple(half(block, 0), 0.0, Some(high), &block[6..]));
            }
            Encoding::Q5_1 => {
                let (minimum, high) = (half(block, 2), word(block, 4));
                f(&simple(half(block, 0), minimum, Some(high), &block[8..]));
            }
            Encoding::Q8_0 => f(&Group {
                levels: std::array::from_fn(|w| word(block, 2 + 4 * w)),
                scales: [half(block, 0); 2],
                minimum: 0.0,
            }),
            Encoding::Q4K => (0..8).for_each(|g| f(&q4k(block, g))),
            Encoding::Q5K => (0..8).for_each(|g| f(&q5k(block, g))),
            Encoding::Q6K => (0..8).for_each(|g| f(&q6k(block, g))),
        }
    }
}

/// The f16 at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The u32 at byte `at`.
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Bits 0 to 3 as the lowest bits of a word's four bytes.
#[inline]
fn spread(bits: u32) -> u32 {
    (bits & 15).wrapping_mul(0x0020_4081) & ONES
}

/// A block of 32 weights: byte `j` of `nibbles` holds weight `j` low and weight `j + 16` high; bit
/// `i` of `high` is the fifth bit of weight `i`.
#[inline]
fn simple(scale: f32, minimum: f32, high: Option<u32>, nibbles: &[u8]) -> Group {
    let mut levels: [u32; GROUP / 4] = std::array::from_fn(|w| {
        let four = word(nibbles, 4 * (w % 4));
        if w < 4 { four & LOW } else { four >> 4 & LOW }
    });
    if let Some(high) = high {
        for (w, four) in levels.iter_mut().enumerate() {
            *four |= spread(high >> (4 * w)) << 4;
        }
    }
    Group {
        levels,
        scales: [scale; 2],
        minimum,
    }
}

/// The scale and minimum of group `g`, from the super-block's head that Q4_K and Q5_K share: f16 d,
/// f16 dmin, 12 bytes of eight 6-bit scales and eight 6-bit minimums.
#[inline]
fn scale_and_minimum(block: &[u8], g: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, minimum) = if g < 4 {
        (packed[g] & 63, packed[g + 4] & 63)
    } else {
        (
            (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4,
            (packed[g + 4] >> 4) | (packed[g] >> 6) << 4,
        )
    };
    (
        half(block, 0) * f32::from(scale),
        -half(block, 2) * f32::from(minimum),
    )
}

#[inline]
fn q4k(block: &[u8], g: usize) -> Group {
    let (scale, minimum) = scale_and_minimum(block, g);
    let nibbles = &block[16 + 32 * (g / 2)..][..GROUP];
    let shift = 4 * (g % 2);
    Group {
        levels: std::array::from_fn(|w| word(nibbles, 4 * w) >> shift & LOW),
        scales: [scale; 2],
        minimum,
    }
}

#[inline]
fn q5k(block: &[u8], g: usize) -> Group {
    let (scale, minimum) = scale_and_minimum(block, g);
    let high = &block[16..][..GROUP];
    let nibbles = &block[48 + 32 * (g / 2)..][..GROUP];
    let shift = 4 * (g % 2);
    Group {
        levels: std::array::from_fn(|w| {
            let fifth = word(high, 4 * w) >> g & ONES;
            word(nibbles, 4 * w) >> shift & LOW | fifth << 4
        }),
        scales: [scale; 2],
        minimum,
    }
}

#[inline]
fn q6k(block: &[u8], g: usize) -> Group {
    // Two halves of 128 weights, four groups each.
    let (n, k) = (g / 4, g % 4);
    let nibbles = &block[64 * n + 32 * (k % 2)..][..GROUP];
    let high = &block[128 + 32 * n..][..GROUP];
    let scales = &block[192 + 2 * g..][..2];
    let d = half(block, 208);
    let (shift, high_shift) = (4 * (k / 2), 2 * k);
    Group {
        levels: std::array::from_fn(|w| {
            let upper = word(high, 4 * w) >> high_shift & (3 * ONES);
            word(nibbles, 4 * w) >> shift & LOW | upper << 4
        }),
        scales: [
            d * f32::from(scales[0] as i8),
            d * f32::from(scales[1] as i8),
        ],
        minimum: 0.0,
    }
}
