//! Weights as planes: what candle writes to GGUF files is read as candle reads it, whatever its
//! encoding; the project's own files are read as they are; what is damaged is refused.

use std::io::Cursor;

use crate::file as gguf;
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use half::f16;
use phi3_steer::checkpoint::*;
use phi3_steer::quant::{Format, Planes, dequantize, quantize};
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::StdRng};
use safetensors::tensor::TensorView;

/// Encodings as candle names them, and the format that keeps each.
const ENCODINGS: [(Encoding, GgmlDType, Option<Format>); 11] = [
    (Encoding::F32, GgmlDType::F32, None),
    (Encoding::F16, GgmlDType::F16, None),
    (Encoding::BF16, GgmlDType::BF16, None),
    (Encoding::Q4_0, GgmlDType::Q4_0, Some(Format::Q4)),
    (Encoding::Q4_1, GgmlDType::Q4_1, Some(Format::Q4M)),
    (Encoding::Q5_0, GgmlDType::Q5_0, Some(Format::Q5)),
    (Encoding::Q5_1, GgmlDType::Q5_1, Some(Format::Q5)),
    (Encoding::Q8_0, GgmlDType::Q8_0, Some(Format::Q8)),
    (Encoding::Q4K, GgmlDType::Q4K, Some(Format::Q4M)),
    (Encoding::Q5K, GgmlDType::Q5K, Some(Format::Q5)),
    (Encoding::Q6K, GgmlDType::Q6K, Some(Format::Q6)),
];

fn seeded(test: &str) -> StdRng {
    let seed = rand::rng().random();
    println!("{test}: seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Roughly normal weights around a mean that differs from group to group.
fn weights(rng: &mut StdRng, n: usize) -> Vec<f32> {
    let spread = 10f32.powf(rng.random_range(-2.0..0.5));
    let mut mean = 0.0;
    (0..n)
        .map(|i| {
            if i % 32 == 0 {
                mean = rng.random_range(-spread..spread);
            }
            mean + (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * spread
        })
        .collect()
}

fn open_gguf(bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    let source = MemorySource::new("model.gguf", bytes);
    Checkpoint::from_gguf(block_on(Gguf::open(source.into()))?)
}

fn open_safetensors(bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    let source = MemorySource::new("model.safetensors", bytes);
    block_on(Checkpoint::from_source(source.into()))
}

/// All rows of a matrix as f32.
fn rows(c: &Checkpoint, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, CheckpointError> {
    let mut out = Vec::new();
    block_on(c.rows(name, &shape, 4000, |first, rows| {
        assert_eq!(first * shape[1], out.len(), "blocks come in order");
        out.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    }))?;
    Ok(out)
}

/// All rows of a matrix as planes.
fn planes(c: &Checkpoint, name: &str, shape: [usize; 2]) -> Result<Planes, CheckpointError> {
    let mut reader = c.planes(name, shape, Format::Q4)?;
    let format = reader.format();
    let mut all = Planes::new(format);
    while let Some((first, planes)) = block_on(reader.next())? {
        assert_eq!(planes.format, format);
        assert_eq!(
            all.words.len(),
            first * format.row_words(shape[1]),
            "blocks come in order"
        );
        all.words.extend_from_slice(&planes.words);
        all.side.extend_from_slice(&planes.side);
    }
    assert_eq!(all.words.len(), shape[0] * format.row_words(shape[1]));
    assert_eq!(all.side.len(), shape[0] * format.row_side(shape[1]));
    Ok(all)
}

/// The minimum that the side plane has for the group of weight `i` of a row; 0 where there is none.
fn minimum(planes: &Planes, row: usize, i: usize, k: usize) -> f32 {
    let at = match planes.format {
        Format::Q4M => i / 32,
        Format::Q5 => i / 32 * 2,
        _ => return 0.0,
    };
    let word = planes.side[row * planes.format.row_side(k) + at];
    f16::from_bits((word >> 16) as u16).to_f32()
}

#[test]
fn gguf_is_read_as_candle_reads_it() {
    let mut rng = seeded("gguf");
    for (encoding, dtype, format) in ENCODINGS {
        let n = rng.random_range(1..40);
        let k = match encoding.block() {
            1 => rng.random_range(1..200),
            block => block * rng.random_range(1..6),
        };
        let values = Tensor::from_vec(weights(&mut rng, n * k), (n, k), &Device::Cpu).unwrap();
        let stored = QTensor::quantize(&values, dtype).unwrap();
        let expected = stored.dequantize(&Device::Cpu).unwrap();
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        let mut file = Cursor::new(Vec::new());
        gguf_file::write(&mut file, &[], &[("blk.0.ffn_down.weight", &stored)]).unwrap();
        let c = open_gguf(file.into_inner()).unwrap();
        let name = "model.layers.0.mlp.down_proj.weight";

        let what = format!("{encoding} [{n}, {k}]");
        assert_eq!(rows(&c, name, [n, k]).unwrap(), expected, "{what}");

        let planes = planes(&c, name, [n, k]).unwrap();
        assert_eq!(planes.format, format.unwrap_or(Format::Q4), "{what}");
        if format.is_none() {
            assert_eq!(planes, quantize(&expected, k, Format::Q4), "{what}");
            continue;
        }
        let got = dequantize(&planes, k);
        let exact = encoding.block() == 32;
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let least = minimum(&planes, at / k, at % k, k);
            // Half a unit of f16's last place, of what the scale and of what the minimum give.
            let rounding = ((expected - least).abs() + least.abs()) * 2f32.powi(-11) * 1.002;
            let allowed = if exact { 0.0 } else { rounding + 1e-7 };
            assert!(
                (got - expected).abs() <= allowed,
                "{what}, {at}: {got}, not {expected} within {allowed}"
            );
        }
        let bytes = 4 * (planes.words.len() + planes.side.len());
        let file = stored.storage_size_in_bytes();
        assert!(
            bytes as f64 <= 1.15 * file as f64,
            "{what}: {bytes} of {file}"
        );
    }
}

/// What llama.cpp's Q4_K_M makes of Phi-3 Mini: by encoding, matrices of so many numbers a row.
#[test]
fn the_gpu_takes_little_more_than_the_file() {
    let (d, inner, vocab) = (3072, 8192, 32064);
    let mut tensors = vec![(Encoding::Q4K, vocab, d), (Encoding::Q6K, vocab, d)];
    for layer in 0..32 {
        let more = !(4..27).contains(&layer) || layer % 3 == 0;
        let wide = if more { Encoding::Q6K } else { Encoding::Q4K };
        tensors.extend([
            (wide, 3 * d, d),
            (Encoding::Q4K, d, d),
            (Encoding::Q4K, 2 * inner, d),
            (wide, d, inner),
        ]);
    }
    let (mut file, mut gpu) = (0, 0);
    for (encoding, rows, columns) in tensors {
        let (_, _, format) = ENCODINGS.into_iter().find(|e| e.0 == encoding).unwrap();
        let format = format.unwrap();
        file += encoding.bytes((rows * columns) as u64).unwrap();
        gpu += 4 * rows * (format.row_words(columns) + format.row_side(columns));
    }
    println!("{gpu} bytes on the GPU for {file}");
    assert!(gpu as f64 <= 1.15 * file as f64);
}

/// Blocks of random bytes whose scales are finite.
fn blocks(rng: &mut StdRng, encoding: Encoding, n: usize) -> Vec<u8> {
    let size = encoding.block_bytes();
    let mut bytes: Vec<u8> = (0..n * size).map(|_| rng.random()).collect();
    for block in bytes.chunks_exact_mut(size) {
        for at in halves(encoding) {
            let scale = f16::from_f32(rng.random_range(-1.0..1.0));
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// Where a block's f16 numbers are.
fn halves(encoding: Encoding) -> &'static [usize] {
    match encoding {
        Encoding::Q4_0 | Encoding::Q5_0 | Encoding::Q8_0 => &[0],
        Encoding::Q4_1 | Encoding::Q5_1 | Encoding::Q4K | Encoding::Q5K => &[0, 2],
        Encoding::Q6K => &[208],
        Encoding::F32 | Encoding::F16 | Encoding::BF16 => &[],
    }
}

/// A matrix of each quantised encoding: its bytes, in random blocks.
fn quantised() -> impl Iterator<Item = Encoding> {
    Encoding::ALL.into_iter().filter(|e| e.is_quantised())
}

#[test]
fn parts_of_fused_matrices_are_put_together() {
    let mut rng = seeded("parts");
    for encoding in quantised() {
        let k = encoding.block() * 3;
        let sizes = [
            rng.random_range(1..9),
            rng.random_range(1..9),
            rng.random_range(1..9),
        ];
        let parts = sizes.map(|n| blocks(&mut rng, encoding, 3 * n));
        let n = sizes.iter().sum();
        let mut fused = gguf::File::default();
        fused.tensor(
            "blk.7.attn_qkv.weight",
            &[n, k],
            encoding.ggml(),
            &parts.concat(),
        );
        let mut apart = gguf::File::default();
        for which in [1, 2, 0] {
            let name = ["attn_q", "attn_k", "attn_v"][which];
            let (name, shape) = (format!("blk.7.{name}.weight"), [sizes[which], k]);
            apart.tensor(&name, &shape, encoding.ggml(), &parts[which]);
        }
        let name = "model.layers.7.self_attn.qkv_proj.weight";
        let fused = open_gguf(fused.bytes()).unwrap();
        let apart = open_gguf(apart.bytes()).unwrap();
        assert_eq!(apart.info(name).unwrap().shape, [n, k]);
        let of_fused = planes(&fused, name, [n, k]).unwrap();
        assert_eq!(
            planes(&apart, name, [n, k]).unwrap(),
            of_fused,
            "{encoding}"
        );
        let numbers = rows(&fused, name, [n, k]).unwrap();
        assert_eq!(rows(&apart, name, [n, k]).unwrap(), numbers, "{encoding}");
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let matrix = |file: &mut gguf::File, name: &str, shape: [usize; 2], encoding: Encoding| {
        let bytes = encoding.bytes((shape[0] * shape[1]) as u64).unwrap() as usize;
        file.tensor(name, &shape, encoding.ggml(), &vec![0; bytes]);
    };
    let refused = |tensors: &[(&str, [usize; 2], Encoding)]| {
        let mut file = gguf::File::default();
        for (name, shape, encoding) in tensors {
            matrix(&mut file, name, *shape, *encoding);
        }
        match open_gguf(file.bytes()) {
            Ok(_) => panic!("was accepted"),
            Err(error) => error.to_string(),
        }
    };
    let (gate, up) = ("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight");
    let message = refused(&[
        (gate, [2, 32], Encoding::Q4_0),
        (up, [2, 64], Encoding::Q4_0),
    ]);
    assert!(
        message.contains("64") && message.contains("32"),
        "{message}"
    );
    let message = refused(&[
        ("blk.0.attn_q.weight", [2, 32], Encoding::Q4_0),
        ("blk.0.attn_qkv.weight", [6, 32], Encoding::Q4_0),
    ]);
    assert!(message.contains("the same matrix"), "{message}");
}

#[test]
fn scales_that_are_no_numbers_are_refused_with_their_place() {
    let mut rng = seeded("scales");
    for encoding in quantised() {
        let (n, blocks_a_row) = (rng.random_range(1..20), rng.random_range(1..5));
        let k = encoding.block() * blocks_a_row;
        let clean = blocks(&mut rng, encoding, n * blocks_a_row);
        for half in halves(encoding) {
            for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
                let mut bytes = clean.clone();
                let at = rng.random_range(0..n * blocks_a_row);
                let place = at * encoding.block_bytes() + half;
                bytes[place..place + 2].copy_from_slice(&bad.to_le_bytes());
                if let Encoding::Q4K | Encoding::Q5K = encoding {
                    // Six-bit scales and minimums, none of them 0 times infinity.
                    let block = at * encoding.block_bytes();
                    bytes[block + 4..block + 16].fill(0b0101_0101);
                }
                let mut file = gguf::File::default();
                file.tensor("output.weight", &[n, k], encoding.ggml(), &bytes);
                let c = open_gguf(file.bytes()).unwrap();
                let column = at % blocks_a_row * encoding.block();
                let place = format!("row {}, column {column}", at / blocks_a_row);
                let message = planes(&c, "lm_head.weight", [n, k])
                    .unwrap_err()
                    .to_string();
                assert!(
                    message.contains(&place),
                    "{encoding}: {message} not {place}"
                );
                assert!(message.contains("model.gguf"), "{message}");
                let message = rows(&c, "lm_head.weight", [n, k]).unwrap_err().to_string();
                assert!(message.contains("corrupt"), "{encoding}: {message}");
            }
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut rng = seeded("damage");
    for _ in 0..300 {
        let encoding = Encoding::ALL[rng.random_range(0..Encoding::ALL.len())];
        let (n, k) = (rng.random_range(1..5), 256);
        let mut file = gguf::File::default();
        let bytes: Vec<u8> = (0..encoding.bytes((n * k) as u64).unwrap())
            .map(|_| rng.random())
            .collect();
        file.tensor("output.weight", &[n, k], encoding.ggml(), &bytes);
        let mut bytes = file.bytes();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        if rng.random_range(0..3) == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        let Ok(c) = open_gguf(bytes) else { continue };
        for name in c.names().map(String::from).collect::<Vec<_>>() {
            let Ok(shape) = <[usize; 2]>::try_from(c.info(&name).unwrap().shape.clone()) else {
                continue;
            };
            if let Ok(values) = rows(&c, &name, shape) {
                assert!(values.iter().all(|v| v.is_finite()));
            }
            if let Ok(planes) = planes(&c, &name, shape) {
                assert!(dequantize(&planes, shape[1]).iter().all(|v| v.is_finite()));
            }
        }
    }
}

/// A safetensors file of u32 tensors.
fn u32_file(tensors: &[(String, [usize; 2], Vec<u32>)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, words)| {
        let view = TensorView::new(Dtype::U32, shape.to_vec(), bytemuck::cast_slice(words));
        (name.clone(), view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn own_files_are_read_as_they_are() {
    let mut rng = seeded("own");
    for encoding in quantised() {
        let (n, k) = (
            rng.random_range(2..30),
            encoding.block() * rng.random_range(1..4),
        );
        let mut file = gguf::File::default();
        let bytes = blocks(&mut rng, encoding, n * k / encoding.block());
        file.tensor("output.weight", &[n, k], encoding.ggml(), &bytes);
        let c = open_gguf(file.bytes()).unwrap();
        let all = planes(&c, "lm_head.weight", [n, k]).unwrap();
        let (w, s) = (all.format.row_words(k), all.format.row_side(k));
        let format = all.format.name();
        let name = |plane: &str| format!("lm_head.weight.{format}.{plane}");
        let whole = u32_file(&[
            (name("words"), [n, w], all.words.clone()),
            (name("side"), [n, s], all.side.clone()),
        ]);
        let cut = rng.random_range(1..n);
        let pieces = u32_file(&[
            (name("words.0"), [cut, w], all.words[..cut * w].to_vec()),
            (name("side.0"), [cut, s], all.side[..cut * s].to_vec()),
            (name("words.1"), [n - cut, w], all.words[cut * w..].to_vec()),
            (name("side.1"), [n - cut, s], all.side[cut * s..].to_vec()),
        ]);
        for file in [whole, pieces] {
            let c = open_safetensors(file).unwrap();
            assert_eq!(c.names().collect::<Vec<_>>(), ["lm_head.weight"]);
            assert_eq!(
                planes(&c, "lm_head.weight", [n, k]).unwrap(),
                all,
                "{encoding}"
            );
            let numbers = rows(&c, "lm_head.weight", [n, k]).unwrap();
            assert_eq!(numbers, dequantize(&all, k), "{encoding}");
            let (from, to) = (rng.random_range(0..n), rng.random_range(0..n + 2));
            let reader = c.reader("lm_head.weight", &[n, k], 1).unwrap();
            let mut reader = reader.only(from..to);
            let mut some = Vec::new();
            while let Some((first, rows)) = block_on(reader.next()).unwrap() {
                assert_eq!(first * k, from * k + some.len());
                some.extend_from_slice(rows);
            }
            assert_eq!(some, numbers[from * k..to.min(n).max(from) * k]);
            // A narrower matrix may end in the same group.
            assert!(c.planes("lm_head.weight", [n, k - 31], Format::Q4).is_ok());
            for wrong in [[n + 1, k], [n, k + 1], [n, k - 32]] {
                let error = c.planes("lm_head.weight", wrong, Format::Q4).err();
                assert!(matches!(error, Some(CheckpointError::WrongShape { .. })));
            }
        }
    }
}

#[test]
fn own_files_that_do_not_fit_are_refused() {
    let tensor = |name: &str, shape: [usize; 2]| {
        let words = vec![0x2000_2000u32; shape[0] * shape[1]];
        (name.to_string(), shape, words)
    };
    let refused = |tensors: &[_]| match open_safetensors(u32_file(tensors)) {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    };
    for (tensors, word) in [
        (vec![tensor("x.q4.words", [2, 8])], "missing"),
        (vec![tensor("x.q4.side", [2, 1])], "missing"),
        (
            vec![tensor("x.q4.words", [2, 8]), tensor("x.q4.side", [2, 2])],
            "fit",
        ),
        (
            vec![tensor("x.q4.words", [2, 8]), tensor("x.q4.side", [3, 1])],
            "fit",
        ),
        (
            vec![tensor("x.q8.words", [2, 9]), tensor("x.q8.side", [2, 1])],
            "fit",
        ),
        (
            vec![
                tensor("x.q4.words.1", [2, 8]),
                tensor("x.q4.side.1", [2, 1]),
            ],
            "first piece",
        ),
        (
            vec![
                tensor("x.q4.words", [2, 8]),
                tensor("x.q4.side", [2, 1]),
                tensor("x.q4m.words", [2, 8]),
                tensor("x.q4m.side", [2, 2]),
            ],
            "fit",
        ),
    ] {
        let message = refused(&tensors);
        assert!(message.contains(word), "{message}");
    }
    let mut bad = [tensor("x.q6.words", [3, 8]), tensor("x.q6.side", [3, 6])];
    bad[1].2[15] = 0x7E00;
    let c = open_safetensors(u32_file(&bad)).unwrap();
    let message = planes(&c, "x", [3, 64]).unwrap_err().to_string();
    assert!(message.contains("NaN at row 2, column 32"), "{message}");
}
