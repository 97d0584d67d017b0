//! Quantising to 8 bits.

use half::f16;

use super::{Format, GROUP, Planes};

/// Rows of `k` finite weights in [`Format::Q8`]: a group's largest magnitude falls on the level 127, and
/// every weight is rounded to the level nearest to it under the scale as stored.
pub(super) fn quantize(rows: &[f32], k: usize) -> Planes {
    let mut planes = Planes::new(Format::Q8);
    for row in rows.chunks_exact(k.max(1)) {
        for (g, group) in row.chunks(GROUP).enumerate() {
            let largest = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            // f16's largest finite value is 65504.
            let scale = f16::from_f32((largest / 127.0).min(65504.0));
            // A zero scale (all weights 0, or too small for f16) stores zeros.
            let inverse = match scale.to_f32() {
                0.0 => 0.0,
                s => s.recip(),
            };
            let mut words = [0u32; GROUP / 4];
            for (i, v) in group.iter().enumerate() {
                let level = (v * inverse).round_ties_even().clamp(-127.0, 127.0);
                words[i / 4] |= u32::from(level as i8 as u8) << (8 * (i % 4));
            }
            planes.words.extend(words);
            match planes.side.last_mut() {
                Some(pair) if g % 2 == 1 => *pair |= u32::from(scale.to_bits()) << 16,
                _ => planes.side.push(u32::from(scale.to_bits())),
            }
        }
    }
    planes
}

#[cfg(test)]
mod tests {
    use super::super::dequantize;
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    #[test]
    fn every_weight_takes_the_nearest_level() {
        let seed = rand::rng().random();
        println!("q8: seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for k in [1, 31, 32, 33, 64, 100] {
            let rows: Vec<f32> = (0..3 * k).map(|_| rng.random_range(-2.0f32..2.0)).collect();
            let planes = quantize(&rows, k);
            assert_eq!(planes.words.len(), 3 * Format::Q8.row_words(k));
            assert_eq!(planes.side.len(), 3 * Format::Q8.row_side(k));
            let back = dequantize(&planes, k);
            for (row, back) in rows.chunks(k).zip(back.chunks(k)) {
                for (group, back) in row.chunks(GROUP).zip(back.chunks(GROUP)) {
                    let largest = group.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
                    // Half a level, and what rounding the scale to f16 moves the largest by.
                    let bound = largest / 127.0 * 0.5 + largest * 2f64.powi(-11);
                    for (v, b) in group.iter().zip(back) {
                        assert!((f64::from(*v) - f64::from(*b)).abs() <= bound * 1.001);
                    }
                }
            }
        }
    }
}
