//! ggml's quantised blocks to planes, and what planes may not hold.

use half::f16;

use super::Encoding;
use super::blocks::{GROUP, Group, LOW, ONES, for_groups};
use crate::quant::{Format, Planes};

/// The format that keeps the numbers of a quantised encoding; `None` for plain numbers.
pub(super) fn kept(encoding: Encoding) -> Option<Format> {
    match encoding {
        Encoding::F32 | Encoding::F16 | Encoding::BF16 => None,
        Encoding::Q4_0 => Some(Format::Q4),
        Encoding::Q4_1 | Encoding::Q4K => Some(Format::Q4M),
        Encoding::Q5_0 | Encoding::Q5_1 | Encoding::Q5K => Some(Format::Q5),
        Encoding::Q6K => Some(Format::Q6),
        Encoding::Q8_0 => Some(Format::Q8),
    }
}

/// The format of rows in these encodings, where plain numbers become `plain`: the one that keeps them
/// all, or Q8, which loses less than most do, of those that no format keeps together.
pub(super) fn joint(encodings: impl Iterator<Item = Encoding>, plain: Format) -> Format {
    let of = |encoding: Encoding| kept(encoding).unwrap_or(plain.quantized());
    let (mut all, mut made) = (None, false);
    for encoding in encodings {
        made |= kept(encoding).is_none();
        all = Some(match all {
            None => of(encoding),
            Some(other) => together(other, of(encoding)),
        });
    }
    let all = all.unwrap_or(plain.quantized());
    // Plain numbers are not quantised to what only files bring.
    if made { all.quantized() } else { all }
}

/// The format that keeps the numbers of both; Q8 where there is none.
fn together(a: Format, b: Format) -> Format {
    /// Each keeps what those before it do.
    const WIDER: [Format; 3] = [Format::Q4, Format::Q4M, Format::Q5];
    let place = |format: Format| WIDER.iter().position(|f| *f == format);
    match (place(a), place(b)) {
        _ if a == b => a,
        (Some(a), Some(b)) => WIDER[a.max(b)],
        _ if a == Format::F32 || b == Format::F32 => Format::F32,
        _ => Format::Q8,
    }
}

/// Whether [`append`] writes numbers of `encoding` in `format`, with nothing lost but bits of scales.
pub(super) fn fits(encoding: Encoding, format: Format) -> bool {
    kept(encoding).is_some_and(|own| {
        own == format
            || match own {
                Format::Q4 => matches!(format, Format::Q4M | Format::Q5 | Format::Q8),
                Format::Q4M => format == Format::Q5,
                _ => false,
            }
    })
}

/// Appends whole rows of quantised blocks, `row_bytes` each, to planes of a format that [`fits`].
/// Levels are kept as they are, scales and minimums are rounded to f16.
pub(super) fn append(encoding: Encoding, row_bytes: usize, bytes: &[u8], planes: &mut Planes) {
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        // The even group of a pair waits for the odd one.
        let mut even = None;
        for_groups(encoding, row, |group| {
            let Planes {
                words,
                side,
                format,
            } = &mut *planes;
            let [scale, second] = group.scales.map(half_bits);
            match format {
                Format::Q8 => {
                    words.extend(match encoding {
                        Encoding::Q8_0 => group.levels,
                        // The only other one that fits.
                        _ => group.levels.map(less_eight),
                    });
                }
                _ => words.extend(nibbles(&group.levels)),
            }
            match format {
                Format::Q4 | Format::Q8 => match even.take() {
                    None => even = Some(scale),
                    Some(even) => side.push(pair(even, scale)),
                },
                Format::Q4M => side.push(pair(scale, half_bits(least(encoding, group)))),
                Format::Q6 => {
                    let [low, high] = two_bits(&group.levels);
                    side.extend([pair(scale, second), low, high]);
                }
                Format::Q5 => {
                    side.push(pair(scale, half_bits(least(encoding, group))));
                    side.push(fifth_bits(&group.levels));
                }
                // No quantised encoding fits it.
                Format::F32 => {}
            }
        });
        if let Some(even) = even {
            planes.side.push(pair(even, 0));
        }
    }
}

/// The weight at level 0 of a group.
fn least(encoding: Encoding, group: &Group) -> f32 {
    match encoding {
        Encoding::Q4_0 => -8.0 * group.scales[0],
        Encoding::Q5_0 => -16.0 * group.scales[0],
        _ => group.minimum,
    }
}

/// The group and the value of the first scale or minimum that is NaN or infinite, in the side plane
/// of whole rows, `row_side` words each: the row, the group in it, the value.
pub(super) fn first_not_finite(
    format: Format,
    side: &[u32],
    row_side: usize,
) -> Option<(usize, usize, f32)> {
    let stride = match format {
        Format::F32 => return None,
        Format::Q4 | Format::Q8 | Format::Q4M => 1,
        Format::Q5 => 2,
        Format::Q6 => 3,
    };
    const EXPONENT: u32 = 0x7C00;
    let bad = |half: u32| half & EXPONENT == EXPONENT;
    let words = side.iter().step_by(stride);
    let at = words.clone().position(|w| bad(*w) || bad(w >> 16))? * stride;
    let (row, within) = (at / row_side.max(1), at % row_side.max(1));
    let low = bad(side[at]);
    let half = if low { side[at] } else { side[at] >> 16 } as u16;
    let group = match format {
        Format::Q4 | Format::Q8 => 2 * within + usize::from(!low),
        _ => within / stride,
    };
    Some((row, group, f16::from_bits(half).to_f32()))
}

fn half_bits(x: f32) -> u32 {
    u32::from(f16::from_f32(x).to_bits())
}

fn pair(low: u32, high: u32) -> u32 {
    low | high << 16
}

/// The low four bits of a group's levels: byte `b` of word `w` holds weight `8w + b` low and weight
/// `8w + 4 + b` high.
#[inline]
fn nibbles(levels: &[u32; GROUP / 4]) -> [u32; 4] {
    std::array::from_fn(|w| levels[2 * w] & LOW | (levels[2 * w + 1] & LOW) << 4)
}

/// Four levels from 0 to 15, less eight, as signed bytes.
#[inline]
fn less_eight(levels: u32) -> u32 {
    // The upper bits keep the bytes from borrowing of one another.
    const UPPER: u32 = 0x80 * ONES;
    ((levels | UPPER) - 8 * ONES) ^ UPPER
}

/// The fifth bit of every level, that of weight `i` at bit `i`.
#[inline]
fn fifth_bits(levels: &[u32; GROUP / 4]) -> u32 {
    let each = levels.iter().enumerate();
    each.fold(0, |bits, (w, four)| {
        let fifth = four >> 4 & ONES;
        let side_by_side = (fifth | fifth >> 7 | fifth >> 14 | fifth >> 21) & 15;
        bits | side_by_side << (4 * w)
    })
}

/// The fifth and sixth bits of every level, those of weight `i` at bits `2 (i % 16)` of word
/// `i / 16`.
#[inline]
fn two_bits(levels: &[u32; GROUP / 4]) -> [u32; 2] {
    let word = |half: &[u32]| {
        let each = half.iter().enumerate();
        each.fold(0, |bits, (w, four)| {
            let upper = four >> 4 & (3 * ONES);
            let side_by_side = (upper | upper >> 6 | upper >> 12 | upper >> 18) & 255;
            bits | side_by_side << (8 * w)
        })
    };
    let (first, second) = levels.split_at(GROUP / 8);
    [word(first), word(second)]
}
