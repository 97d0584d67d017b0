//! Stored numbers to f32.

use half::f16;

use super::{Encoding, blocks};

/// Appends to `out` the numbers of whole blocks in `bytes`, as the format defines them.
pub(super) fn append_f32(encoding: Encoding, bytes: &[u8], out: &mut Vec<f32>) {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match encoding {
        Encoding::F16 => out.extend(pairs().map(|b| f16::from_le_bytes(b).to_f32())),
        // bf16 is the upper half of an f32.
        Encoding::BF16 => out.extend(pairs().map(|b| f32::from_le_bytes([0, 0, b[0], b[1]]))),
        Encoding::F32 => {
            let fours = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            out.extend(fours.map(f32::from_le_bytes));
        }
        quantised => blocks::append_f32(quantised, bytes, out),
    }
}

/// The place of the first NaN or infinity.
pub(super) fn first_not_finite(values: &[f32]) -> Option<usize> {
    const EXPONENT: u32 = 0x7F80_0000;
    // Blocks without an early exit inside, so that the common case is a vector loop.
    for (i, block) in values.chunks(1024).enumerate() {
        let bad = block
            .iter()
            .fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT));
        if bad {
            let at = block.iter().position(|v| !v.is_finite())?;
            return Some(i * 1024 + at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 16-bit pattern against the definition of the formats, in f64.
    #[test]
    fn sixteen_bit_types_are_read_exactly() {
        for bits in 0..=u16::MAX {
            for (encoding, exponent_bits, fraction_bits) in
                [(Encoding::F16, 5u32, 10u32), (Encoding::BF16, 8, 7)]
            {
                let mut out = Vec::new();
                append_f32(encoding, &bits.to_le_bytes(), &mut out);
                let sign = if bits >> 15 == 1 { -1.0f64 } else { 1.0 };
                let exponent = i32::from(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
                let fraction =
                    f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
                let bias = (1 << (exponent_bits - 1)) - 1;
                if exponent == (1 << exponent_bits) - 1 {
                    assert!(!out[0].is_finite());
                    assert_eq!(out[0].is_nan(), fraction != 0.0);
                    assert_eq!(first_not_finite(&out), Some(0));
                    continue;
                }
                let expected = match exponent {
                    0 => sign * fraction * 2f64.powi(1 - bias),
                    e => sign * (1.0 + fraction) * 2f64.powi(e - bias),
                };
                assert_eq!(f64::from(out[0]), expected, "{encoding} {bits:#06x}");
                assert_eq!(first_not_finite(&out), None);
            }
        }
    }

    #[test]
    fn the_first_bad_value_is_found() {
        let mut values = vec![1.0f32; 5000];
        for (at, bad) in [
            (4999, f32::NAN),
            (2048, f32::INFINITY),
            (1023, f32::NEG_INFINITY),
        ] {
            values[at] = bad;
            assert_eq!(first_not_finite(&values), Some(at));
        }
        assert_eq!(first_not_finite(&values[..1023]), None);
    }
}
