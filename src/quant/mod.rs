//! Weights in blocks: the formats, CPU quantisers and the reference that reads them back.
//!
//! A matrix `[N, K]` is cut along K into groups of [`GROUP`] weights, G = ceil(K / 32) a row; K is
//! padded with zeros. A [`Format`] says how a group is stored in two planes of u32, `words` and
//! `side`, whose rows are `[N, words a row]` and `[N, side a row]`:
//!
//! | format | words a group | side a row | weight i of a group |
//! |---|---|---|---|
//! | F32 | 32: f32 bits | none | w |
//! | Q4 | 4 | ceil(G / 2): f16 scales, the even group in the low half | s (n - 8) |
//! | Q4M | 4 | G: f16 scale (low half) and minimum | s n + m |
//! | Q5 | 4 | 2 G: scale and minimum, then bit i is weight i's h | s (n + 16 h) + m |
//! | Q6 | 4 | 3 G: scales of weights 0..16 and 16..32, then 2 bits h a weight | s (n + 16 h - 32) |
//! | Q8 | 8: word w holds weights 4w..4w+4, a signed byte each | as Q4 | s b |
//!
//! Nibbles n: word `w` holds weights `8w..8w+8`: the low nibble of byte `b` is weight `8w + b`, its
//! high nibble weight `8w + 4 + b`, so that `unpack4xU8(word & 0x0F0F0F0F)` gives weights
//! `8w..8w+4` in order and `unpack4xU8((word >> 4) & 0x0F0F0F0F)` the next four. Q6's two words of
//! high parts hold weight i at bits `2 (i % 16)` of word `i / 16`.
//!
//! Q4 and Q8 are what the quantisers here make; the others hold GGML's formats without loss beyond
//! f16 scales.

mod planes;
mod q4;
mod q8;

pub use planes::{Format, Planes, dequantize, quantize};

/// Weights that share one scale.
pub const GROUP: usize = 32;

/// Number of groups of a row of `k` weights, the last one padded.
pub fn groups(k: usize) -> usize {
    k.div_ceil(GROUP)
}
