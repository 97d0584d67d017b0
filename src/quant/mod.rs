//! 4-bit weights: the block format, its CPU quantiser and the reference that reads it back.
//!
//! A matrix `[N, K]` is cut along K into groups of [`GROUP`] weights that share one f16 scale:
//! `weight = scale * (nibble - 8)`, nibble in 0..=15. The scale may be negative, so that the
//! larger of a group's two extremes can sit on the level −8. K is padded up to a whole number of
//! groups with nibble 8, which is exactly 0.
//!
//! Two planes go to the GPU:
//! - `words`, u32 `[N, groups, 4]`: one `vec4<u32>` a group. Word `w` holds weights `8w..8w+8`:
//!   the low nibble of byte `b` is weight `8w + b`, its high nibble weight `8w + 4 + b`, so that
//!   `unpack4xU8(word & 0x0F0F0F0F)` gives weights `8w..8w+4` in order and
//!   `unpack4xU8((word >> 4) & 0x0F0F0F0F)` the next four;
//! - `scales`, u32 `[N, ceil(groups / 2)]`: two f16 a word, the even group in the low half; the
//!   odd half of a row's tail is 0.

mod q4;

pub use q4::{Q4Block, dequantize_rows, quantize_rows};

/// Weights that share one scale.
pub const GROUP: usize = 32;

/// u32 words of one group of 4-bit weights.
pub const GROUP_WORDS: usize = 4;

/// Number of groups of a row of `k` weights, the last one padded.
pub fn groups(k: usize) -> usize {
    k.div_ceil(GROUP)
}

/// Number of u32 words of a row of `k` weights in the `words` plane.
pub fn row_words(k: usize) -> usize {
    groups(k) * GROUP_WORDS
}

/// Number of u32 words of a row of `k` weights in the `scales` plane.
pub fn row_scales(k: usize) -> usize {
    groups(k).div_ceil(2)
}
