//! Making ggml's blocks: of given weights, rounded to the nearest level, and of random ones.
//!
//! Layouts: `ggml-common.h`; the rules that choose scales are the plain ones of
//! `quantize_row_*_ref` in ggml's `ggml-quants.c`, without its searches.

use half::{bf16, f16};
use phi3_steer::checkpoint::Encoding;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

/// Weights that share a scale, in all encodings but Q6_K.
const GROUP: usize = 32;

/// Appends `values`, whole blocks of finite weights, in an encoding.
pub fn encode(encoding: Encoding, values: &[f32], out: &mut Vec<u8>) {
    for block in values.chunks_exact(encoding.block()) {
        match encoding {
            Encoding::F32 => out.extend(block[0].to_le_bytes()),
            Encoding::F16 => out.extend(f16::from_f32(block[0]).to_le_bytes()),
            Encoding::BF16 => out.extend(bf16::from_f32(block[0]).to_le_bytes()),
            Encoding::Q4_0 => signed(block, 4, out),
            Encoding::Q5_0 => signed(block, 5, out),
            Encoding::Q4_1 => shifted(block, 4, out),
            Encoding::Q5_1 => shifted(block, 5, out),
            Encoding::Q8_0 => {
                let scale = stored(block.iter().fold(0.0, |m, v| v.abs().max(m)) / 127.0, out);
                out.extend(
                    block
                        .iter()
                        .map(|v| level(*v, scale, -127.0, 127.0) as i8 as u8),
                );
            }
            Encoding::Q4K => super_block(block, 4, out),
            Encoding::Q5K => super_block(block, 5, out),
            Encoding::Q6K => six_bits(block, out),
        }
    }
}

/// The number of largest magnitude.
fn extreme(values: &[f32]) -> f32 {
    let larger = |m: f32, v: &f32| if v.abs() > m.abs() { *v } else { m };
    values.iter().fold(0.0, larger)
}

/// Stores a number as f16 and gives what was stored.
fn stored(x: f32, out: &mut Vec<u8>) -> f32 {
    let half = f16::from_f32(x);
    out.extend(half.to_le_bytes());
    half.to_f32()
}

/// The level nearest to `x / scale`.
fn level(x: f32, scale: f32, least: f32, most: f32) -> f32 {
    if scale == 0.0 {
        return 0.0f32.clamp(least, most);
    }
    (x / scale).round().clamp(least, most)
}

/// Q4_0 and Q5_0: the extreme weight on the lowest level.
fn signed(block: &[f32], bits: u32, out: &mut Vec<u8>) {
    let half = (1 << (bits - 1)) as f32;
    let scale = stored(extreme(block) / -half, out);
    let levels = block
        .iter()
        .map(|v| (level(*v, scale, -half, half - 1.0) + half) as u8);
    simple(&levels.collect::<Vec<u8>>(), bits, out);
}

/// Q4_1 and Q5_1: the range of the weights, cut evenly.
fn shifted(block: &[f32], bits: u32, out: &mut Vec<u8>) {
    let least = block.iter().copied().fold(f32::INFINITY, f32::min);
    let most = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let top = ((1 << bits) - 1) as f32;
    let scale = stored((most - least) / top, out);
    let least = stored(least, out);
    let levels = block
        .iter()
        .map(|v| level(*v - least, scale, 0.0, top) as u8);
    simple(&levels.collect::<Vec<u8>>(), bits, out);
}

/// The levels of a block of 32: fifth bits, then byte `j` with weight `j` low and `j + 16` high.
fn simple(levels: &[u8], bits: u32, out: &mut Vec<u8>) {
    if bits == 5 {
        let bit = |(i, level): (usize, &u8)| u32::from(level >> 4 & 1) << i;
        let high: u32 = levels.iter().enumerate().map(bit).sum();
        out.extend(high.to_le_bytes());
    }
    let (first, second) = levels.split_at(GROUP / 2);
    out.extend(
        first
            .iter()
            .zip(second)
            .map(|(low, high)| low & 15 | high << 4),
    );
}

/// Q4_K and Q5_K.
fn super_block(block: &[f32], bits: u32, out: &mut Vec<u8>) {
    let top = ((1 << bits) - 1) as f32;
    let ranges: Vec<(f32, f32)> = block
        .chunks_exact(GROUP)
        .map(|group| {
            let least = group.iter().copied().fold(0.0, f32::min);
            let most = group.iter().copied().fold(0.0, f32::max);
            ((most - least) / top, -least)
        })
        .collect();
    let d = stored(ranges.iter().fold(0.0, |m: f32, r| m.max(r.0)) / 63.0, out);
    let dmin = stored(ranges.iter().fold(0.0, |m: f32, r| m.max(r.1)) / 63.0, out);
    let sixes: Vec<(u8, u8)> = ranges
        .iter()
        .map(|(scale, least)| {
            let scale = level(*scale, d, 0.0, 63.0) as u8;
            (scale, level(*least, dmin, 0.0, 63.0) as u8)
        })
        .collect();
    out.extend(packed_sixes(&sixes));
    let levels: Vec<u8> = block
        .chunks_exact(GROUP)
        .zip(&sixes)
        .flat_map(|(group, (scale, least))| {
            let (scale, least) = (d * f32::from(*scale), dmin * f32::from(*least));
            group
                .iter()
                .map(move |v| level(*v + least, scale, 0.0, top) as u8)
        })
        .collect();
    if bits == 5 {
        // Bit `g` of byte `i` belongs to weight `i` of group `g`.
        let bit = |i: usize, g: usize| (levels[GROUP * g + i] >> 4 & 1) << g;
        out.extend((0..GROUP).map(|i| (0..8).map(|g| bit(i, g)).sum::<u8>()));
    }
    for two in levels.chunks_exact(2 * GROUP) {
        let (low, high) = two.split_at(GROUP);
        out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
    }
}

/// Eight 6-bit scales and minimums in 12 bytes.
fn packed_sixes(sixes: &[(u8, u8)]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (g, &(scale, least)) in sixes.iter().enumerate() {
        if g < 4 {
            packed[g] |= scale;
            packed[g + 4] |= least;
        } else {
            packed[g + 4] = (scale & 15) | (least & 15) << 4;
            packed[g - 4] |= scale >> 4 << 6;
            packed[g] |= least >> 4 << 6;
        }
    }
    packed
}

/// Q6_K.
fn six_bits(block: &[f32], out: &mut Vec<u8>) {
    let scales: Vec<f32> = block
        .chunks_exact(16)
        .map(|group| extreme(group) / -32.0)
        .collect();
    let d = f16::from_f32(extreme(&scales) / -128.0);
    let eights: Vec<i8> = scales
        .iter()
        .map(|scale| level(*scale, d.to_f32(), -128.0, 127.0) as i8)
        .collect();
    let levels: Vec<u8> = block
        .chunks_exact(16)
        .zip(&eights)
        .flat_map(|(group, eight)| {
            let scale = d.to_f32() * f32::from(*eight);
            group
                .iter()
                .map(move |v| (level(*v, scale, -32.0, 31.0) + 32.0) as u8)
        })
        .collect();
    let halves = || levels.chunks_exact(128);
    for half in halves() {
        out.extend((0..64).map(|i| half[i] & 15 | half[i + 64] << 4));
    }
    for half in halves() {
        out.extend((0..GROUP).map(|i| {
            let bits = |k: usize| half[GROUP * k + i] >> 4 << (2 * k);
            bits(0) | bits(1) | bits(2) | bits(3)
        }));
    }
    out.extend(eights.iter().map(|eight| *eight as u8));
    out.extend(d.to_le_bytes());
}

/// Fills `bytes`, whole blocks, with random weights of zero mean and the standard deviation `spread`.
pub fn random(encoding: Encoding, rng: &mut StdRng, spread: f32, bytes: &mut [u8]) {
    rng.fill_bytes(bytes);
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    // The deviation of evenly drawn levels, as many as there are.
    let deviation = |levels: f32| ((levels * levels - 1.0) / 12.0).sqrt();
    let uniform = |bits: u16| f32::from(bits as i16) * spread * (3f32.sqrt() / 32768.0);
    for block in bytes.chunks_exact_mut(encoding.block_bytes()) {
        match encoding {
            Encoding::F32 => {
                let x = uniform(u16::from_le_bytes([block[0], block[1]]));
                block.copy_from_slice(&x.to_le_bytes());
            }
            Encoding::F16 => {
                let x = uniform(u16::from_le_bytes([block[0], block[1]]));
                block.copy_from_slice(&half(x));
            }
            Encoding::BF16 => {
                let x = uniform(u16::from_le_bytes([block[0], block[1]]));
                block.copy_from_slice(&bf16::from_f32(x).to_le_bytes());
            }
            Encoding::Q4_0 | Encoding::Q5_0 => {
                let levels = if encoding == Encoding::Q4_0 {
                    16.0
                } else {
                    32.0
                };
                // Either sign, as the lowest level has no opposite.
                let sign = if block[0] & 1 == 0 { 1.0 } else { -1.0 };
                block[..2].copy_from_slice(&half(sign * spread / deviation(levels)));
            }
            Encoding::Q8_0 => block[..2].copy_from_slice(&half(spread / deviation(256.0))),
            Encoding::Q4_1 | Encoding::Q5_1 => {
                let levels = if encoding == Encoding::Q4_1 {
                    16.0
                } else {
                    32.0
                };
                let scale = spread / deviation(levels);
                block[..2].copy_from_slice(&half(scale));
                block[2..4].copy_from_slice(&half(scale * (1.0 - levels) / 2.0));
            }
            Encoding::Q4K | Encoding::Q5K => {
                let levels = if encoding == Encoding::Q4K {
                    16.0
                } else {
                    32.0
                };
                // Scales of 32 to 63, minimums that centre the levels.
                let scale = spread / deviation(levels) / 48.0;
                let sixes: [(u8, u8); 8] = std::array::from_fn(|g| {
                    let six = 32 | block[4 + g] & 31;
                    (six, six)
                });
                block[..2].copy_from_slice(&half(scale));
                block[2..4].copy_from_slice(&half(scale * (levels - 1.0) / 2.0));
                block[4..16].copy_from_slice(&packed_sixes(&sixes));
            }
            Encoding::Q6K => {
                let scale = spread / deviation(64.0) / 96.0;
                for eight in &mut block[192..208] {
                    // A magnitude of 64 to 127 and either sign.
                    let magnitude = (64 | *eight & 63) as i8;
                    *eight = if *eight & 128 == 0 {
                        magnitude
                    } else {
                        -magnitude
                    } as u8;
                }
                block[208..].copy_from_slice(&half(scale));
            }
        }
    }
}

/// Weights of a norm: around 1.
pub fn norm(rng: &mut StdRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(0.5..1.5)).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::gguf::{Gguf, Tensor};
    use super::*;
    use phi3_steer::checkpoint::{Checkpoint, MemorySource};
    use pollster::block_on;

    /// What the library reads of blocks.
    fn read(encoding: Encoding, bytes: &[u8], n: usize) -> Vec<f32> {
        let tensor = Tensor {
            name: "output.weight".into(),
            shape: vec![n],
            encoding,
        };
        let mut file = Gguf::new(Vec::new(), vec![tensor]).header();
        file.extend(bytes);
        let source = MemorySource::new("blocks.gguf", file).into();
        let gguf = block_on(phi3_steer::checkpoint::Gguf::open(source)).unwrap();
        block_on(
            Checkpoint::from_gguf(gguf)
                .unwrap()
                .vector("lm_head.weight", n),
        )
        .unwrap()
    }

    fn seeded(test: &str) -> StdRng {
        let seed = rand::rng().random();
        println!("{test}: seed {seed}");
        StdRng::seed_from_u64(seed)
    }

    #[test]
    fn encoded_weights_are_read_back_within_half_a_step() {
        let mut rng = seeded("encoded");
        for encoding in Encoding::ALL {
            let n = 256 * 5;
            let values: Vec<f32> = (0..n).map(|_| rng.random_range(-2.0..1.0)).collect();
            let mut bytes = Vec::new();
            encode(encoding, &values, &mut bytes);
            assert_eq!(bytes.len() as u64, encoding.bytes(n as u64).unwrap());
            // A step of the levels, and what 6-bit scales and minimums and f16 lose besides.
            let tolerance = match encoding {
                Encoding::F32 => 0.0,
                Encoding::F16 => 2.0 / 2048.0,
                Encoding::BF16 => 2.0 / 256.0,
                Encoding::Q4_0 => 2.0 / 8.0,
                Encoding::Q4_1 => 1.6 / 15.0,
                Encoding::Q5_0 => 2.0 / 16.0,
                Encoding::Q5_1 => 1.6 / 31.0,
                Encoding::Q8_0 => 1.2 / 127.0,
                Encoding::Q4K => 0.1 + 3.0 / 63.0,
                Encoding::Q5K => 0.05 + 3.0 / 63.0,
                Encoding::Q6K => 2.0 / 32.0 + 0.02,
            };
            for (got, expected) in read(encoding, &bytes, n).iter().zip(&values) {
                let off = (got - expected).abs();
                assert!(off <= tolerance, "{encoding}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn random_blocks_have_the_spread_asked_for() {
        let mut rng = seeded("random");
        for encoding in Encoding::ALL {
            let n = 256 * 64;
            let spread = 10f32.powf(rng.random_range(-2.0..0.0));
            let mut bytes = vec![0; encoding.bytes(n as u64).unwrap() as usize];
            random(encoding, &mut rng, spread, &mut bytes);
            let values = read(encoding, &bytes, n);
            let mean = values.iter().sum::<f32>() / n as f32;
            let square = values.iter().map(|v| v * v).sum::<f32>() / n as f32;
            assert!(
                mean.abs() < 0.05 * spread,
                "{encoding}: mean {mean} of {spread}"
            );
            let ratio = square.sqrt() / spread;
            assert!(
                (0.9..1.1).contains(&ratio),
                "{encoding}: {ratio} of {spread}"
            );
        }
    }
}
