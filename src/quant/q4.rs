//! Quantising to 4 bits.

use half::f16;

use super::{Format, GROUP, Planes};

/// u32 words of a group.
const GROUP_WORDS: usize = 4;

/// What the group's largest weight is divided by to give the scales that are tried, which is the
/// level it falls on: -8 uses the whole range, a larger divisor clips that weight and rounds the
/// others more finely, a smaller one is coarser, 7 turns the sign. Chosen on normal weights: the
/// squared error is within 2% of the least there is, and more divisors gain under 1%.
const DIVISORS: [f32; 4] = [-8.0, -7.4, -8.6, 7.0];

/// Rows of `k` finite weights in [`Format::Q4`], `rows.len()` being a multiple of `k`.
///
/// For each group the scale with the least squared error among a few candidates is chosen, each
/// candidate being the least-squares fit to the rounding that a simpler one gave. Every weight is
/// then rounded to the level nearest to it under the scale as stored. Deterministic: the same
/// weights give the same bits on every platform.
pub(super) fn quantize(rows: &[f32], k: usize) -> Planes {
    debug_assert!(k > 0 && rows.len().is_multiple_of(k));
    let n = rows.len() / k.max(1);
    let mut words = Vec::with_capacity(n * Format::Q4.row_words(k));
    let mut scales = Vec::with_capacity(n * Format::Q4.row_side(k));
    for row in rows.chunks_exact(k.max(1)) {
        let mut pending = None;
        for group in row.chunks(GROUP) {
            let mut padded = [0.0f32; GROUP];
            padded[..group.len()].copy_from_slice(group);
            let scale = best_scale(&padded);
            words.extend(pack(&padded, scale));
            pending = match pending {
                None => Some(scale),
                Some(even) => {
                    scales.push(pair(even, scale));
                    None
                }
            };
        }
        if let Some(even) = pending {
            scales.push(pair(even, f16::ZERO));
        }
    }
    Planes {
        format: Format::Q4,
        words,
        side: scales,
    }
}

fn pair(even: f16, odd: f16) -> u32 {
    u32::from(even.to_bits()) | u32::from(odd.to_bits()) << 16
}

/// The level, -8 to 7, nearest to `x / scale`.
#[inline(always)]
fn level(x: f32, inverse: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds (ties to even) without a conversion to integers, so
    // that the loops below become vector code everywhere.
    const ROUND: f32 = 12_582_912.0;
    let exact = x * inverse;
    let exact = if exact > 7.0 { 7.0 } else { exact };
    let exact = if exact < -8.0 { -8.0 } else { exact };
    (exact + ROUND) - ROUND
}

/// The scale with the least squared error over `x`, among the candidates.
fn best_scale(x: &[f32; GROUP]) -> f16 {
    let mut extreme = 0.0f32;
    for &v in x {
        if v.abs() > extreme.abs() {
            extreme = v;
        }
    }
    if extreme == 0.0 {
        return f16::ZERO;
    }
    let (mut best, mut best_gain) = (extreme / DIVISORS[0], f32::NEG_INFINITY);
    for divisor in DIVISORS {
        let (dot, square) = fit(x, divisor / extreme);
        // With levels l, |x - s l|² is least at s = <x,l>/<l,l>, where it is |x|² - <x,l>²/<l,l>.
        let gain = dot * dot / square;
        if square > 0.0 && gain > best_gain {
            (best, best_gain) = (dot / square, gain);
        }
    }
    // f16's largest finite value is 65504; f16 of the nearest representable scale otherwise.
    f16::from_f32(best.clamp(-65504.0, 65504.0))
}

/// `<x, l>` and `<l, l>` for the levels `l` that the inverse scale gives. Eight running sums, in an
/// order that does not depend on the platform and that a compiler can keep in vector registers.
#[inline(always)]
fn fit(x: &[f32; GROUP], inverse: f32) -> (f32, f32) {
    let (mut dot, mut square) = ([0.0f32; 8], [0.0f32; 8]);
    for eight in x.chunks_exact(8) {
        for lane in 0..8 {
            let level = level(eight[lane], inverse);
            dot[lane] += eight[lane] * level;
            square[lane] += level * level;
        }
    }
    (dot.iter().sum(), square.iter().sum())
}

/// The four words of a group under the stored scale.
fn pack(x: &[f32; GROUP], scale: f16) -> [u32; GROUP_WORDS] {
    let scale = scale.to_f32();
    // A zero scale (all weights 0, or too small for f16) stores zeros.
    let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
    std::array::from_fn(|w| {
        let mut word = 0u32;
        for (i, &v) in x[8 * w..8 * w + 8].iter().enumerate() {
            let (byte, high) = (i % 4, i / 4);
            let nibble = (level(v, inverse) + 8.0) as u32;
            word |= nibble << (8 * byte + 4 * high);
        }
        word
    })
}

#[cfg(test)]
mod tests {
    use super::super::{dequantize, groups};
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn seeded(test: &str) -> StdRng {
        let seed = rand::rng().random();
        println!("{test}: seed {seed}");
        StdRng::seed_from_u64(seed)
    }

    /// Roughly normal weights.
    fn weights(rng: &mut StdRng, n: usize, spread: f32) -> Vec<f32> {
        (0..n)
            .map(|_| (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * spread)
            .collect()
    }

    /// What WGSL's `unpack4xU8` does.
    fn unpack4x_u8(word: u32) -> [u32; 4] {
        word.to_le_bytes().map(u32::from)
    }

    /// Reads a row as a kernel would, word by word, in f64.
    fn kernel_row(block: &Planes, row: usize, k: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for group in 0..groups(k) {
            let scales = block.side[row * groups(k).div_ceil(2) + group / 2];
            let half = scales.to_le_bytes();
            let at = 2 * (group % 2);
            let scale = f16::from_le_bytes([half[at], half[at + 1]]).to_f64();
            for w in 0..4 {
                let word = block.words[(row * groups(k) + group) * 4 + w];
                for four in [word & 0x0F0F0F0F, (word >> 4) & 0x0F0F0F0F] {
                    out.extend(unpack4x_u8(four).map(|n| scale * (f64::from(n) - 8.0)));
                }
            }
        }
        out
    }

    #[test]
    fn planes_read_as_a_kernel_reads_them() {
        let mut rng = seeded("planes");
        for k in [1, 7, 31, 32, 33, 63, 64, 65, 96, 200] {
            let n = rng.random_range(1..6);
            let rows = weights(&mut rng, n * k, 0.3);
            let block = quantize(&rows, k);
            assert_eq!(block.words.len(), n * Format::Q4.row_words(k));
            assert_eq!(block.side.len(), n * Format::Q4.row_side(k));
            let back = dequantize(&block, k);
            assert_eq!(back.len(), n * k);
            for row in 0..n {
                let kernel = kernel_row(&block, row, k);
                for i in 0..k {
                    assert_eq!(
                        f64::from(back[row * k + i]),
                        kernel[i],
                        "k {k} row {row} col {i}"
                    );
                }
                assert!(kernel[k..].iter().all(|&v| v == 0.0), "padding is not zero");
                if groups(k) % 2 == 1 {
                    let tail = block.side[(row + 1) * Format::Q4.row_side(k) - 1];
                    assert_eq!(tail >> 16, 0, "the odd half of a row's tail is not zero");
                }
            }
        }
    }

    #[test]
    fn every_weight_takes_the_nearest_level() {
        let mut rng = seeded("nearest");
        let k = 96;
        for spread in [1e-3, 0.05, 1.0, 300.0] {
            let rows = weights(&mut rng, 8 * k, spread);
            let block = quantize(&rows, k);
            let back = dequantize(&block, k);
            for (i, (&x, &y)) in rows.iter().zip(&back).enumerate() {
                let column = i % k;
                let pair = block.side[i / k * Format::Q4.row_side(k) + column / 64];
                let half = (pair >> (column % 64 / 32 * 16)) as u16;
                let scale = f16::from_bits(half).to_f64();
                let nearest = (0..16)
                    .map(|n| (f64::from(x) - scale * (f64::from(n) - 8.0)).abs())
                    .fold(f64::INFINITY, f64::min);
                let error = (f64::from(x) - f64::from(y)).abs();
                assert!(
                    error <= nearest + 1e-5 * scale.abs(),
                    "{i}: {error} against {nearest}"
                );
            }
        }
    }

    #[test]
    fn squared_error_is_close_to_the_best_there_is() {
        let mut rng = seeded("search");
        let k = 1024;
        let rows = weights(&mut rng, 4 * k, 0.02);
        let back = dequantize(&quantize(&rows, k), k);
        let error = |x: &[f32], y: &[f32]| -> f64 {
            x.iter()
                .zip(y)
                .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
                .sum()
        };
        let ours = error(&rows, &back);
        // The plain rule (largest weight on level -8), and a dense search in f64.
        let (mut plain, mut dense) = (0.0f64, 0.0f64);
        for group in rows.chunks(GROUP) {
            let extreme = group
                .iter()
                .fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
            let with = |scale: f64| -> f64 {
                group
                    .iter()
                    .map(|&v| {
                        let level = (f64::from(v) / scale).round().clamp(-8.0, 7.0);
                        (f64::from(v) - scale * level).powi(2)
                    })
                    .sum()
            };
            plain += with(f64::from(extreme) / -8.0);
            dense += (0..2000)
                .map(|i| f64::from(extreme) / (5.0 + f64::from(i) * 0.0025))
                .flat_map(|s| [with(s), with(-s)])
                .fold(f64::INFINITY, f64::min);
        }
        println!("squared error: plain {plain:.5}, ours {ours:.5}, dense {dense:.5}");
        assert!(ours < plain, "no better than the plain rule");
        assert!(ours < dense * 1.04, "{ours} against {dense}");
    }

    #[test]
    fn extremes_survive() {
        let mut row = vec![0.0f32; 70];
        row[3] = 3.0e38;
        row[40] = 1.0e-30;
        row[66] = -5.0;
        let back = dequantize(&quantize(&row, 70), 70);
        assert!(back.iter().all(|v| v.is_finite()));
        assert!(
            back[3] > 4.0e5,
            "a weight beyond f16 keeps its sign and the largest magnitude"
        );
        assert_eq!(back[40], 0.0);
        assert!((back[66] + 5.0).abs() < 5e-3);
        assert!(
            back.iter()
                .enumerate()
                .all(|(i, &v)| [3, 66].contains(&i) || v == 0.0)
        );
        assert_eq!(quantize(&[0.0; 32], 32).words, vec![0x8888_8888; 4]);
    }
}
