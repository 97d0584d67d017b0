//! The whole model.

use std::rc::Rc;

use phi3_steer::gpu::Gpu;
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{CacheFormat, MAX_ROWS, Model, ModelError, ModelOptions, Row, Tap};
use pollster::block_on;
use rand::{Rng, rngs::StdRng};
use safetensors::Dtype;

use crate::checkpoint::{Random, Sizes, candle_logits};
use crate::support::*;

/// What keys and values rounded to f16 (by up to 5e-4 each) may move logits by.
const HALVES: f64 = 4e-3;

pub fn load(
    gpu: &Rc<Gpu>,
    random: &Random,
    lanes: usize,
    format: Format,
    cache: CacheFormat,
) -> Model {
    let options = ModelOptions {
        lanes,
        context: None,
        precision: format.into(),
        cache,
    };
    block_on(Model::load(gpu.clone(), &random.folder(), options)).unwrap()
}

pub fn tokens_of(rng: &mut StdRng, n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|_| rng.random_range(0..vocab as u32)).collect()
}

/// Rows of `tokens` in `lane`, from position `first` on.
pub fn rows(tokens: &[u32], lane: usize, first: usize) -> Vec<Row> {
    tokens
        .iter()
        .enumerate()
        .map(|(i, &token)| Row {
            token,
            lane: lane as u32,
            position: (first + i) as u32,
            flags: 0,
        })
        .collect()
}

/// The logits of one lane.
fn logits(model: &Model, lane: usize) -> Vec<f32> {
    let vocab = model.config().vocab_size;
    block_on(model.gpu().read_vec(model.logits(), lane * vocab, vocab)).unwrap()
}

/// Runs rows in one pass and gives the logits of each, `[rows, vocab]`.
pub fn prefill(model: &Model, rows: &[Row]) -> Vec<f32> {
    let poison = vec![POISON; model.lanes() * model.config().vocab_size];
    model.prefill(rows, &[], &[], &[]);
    let mut all = Vec::new();
    for first in (0..rows.len()).step_by(model.lanes()) {
        model.gpu().write(model.logits(), 0, &poison);
        let count = model.lanes().min(rows.len() - first);
        model.head_of(first, count);
        for lane in 0..count {
            all.extend(logits(model, lane));
        }
    }
    all
}

/// One decode step of `rows`, one a lane: the logits `[lanes, vocab]`.
fn decode(model: &Model, rows: &[Row]) -> Vec<f32> {
    let gpu = model.gpu();
    model.set_decode_rows(rows);
    let seen = rows.iter().map(|r| r.position as usize + 1).max().unwrap();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    model.decode(&mut encoder, seen, &[]);
    gpu.queue().submit([encoder.finish()]);
    (0..rows.len())
        .flat_map(|lane| logits(model, lane))
        .collect()
}

/// candle's logits for every prefix of `tokens`.
fn candle_all(random: &Random, tokens: &[u32], format: Format) -> Vec<f64> {
    let mut candle = random.candle(format);
    tokens
        .iter()
        .enumerate()
        .flat_map(|(held, token)| candle_logits(&mut candle, &[*token], held))
        .collect()
}

/// The largest error of any row of logits.
pub fn assert_rows(what: &str, got: &[f32], wanted: &[f64], vocab: usize, tolerance: f64) -> f64 {
    got.chunks_exact(vocab)
        .zip(wanted.chunks_exact(vocab))
        .map(|(got, wanted)| assert_close(what, got, wanted, tolerance))
        .fold(0.0, f64::max)
}

#[test]
fn logits_are_candles() {
    let mut rng = seeded("candle");
    let tied = |sizes| Sizes {
        tied: true,
        ..sizes
    };
    let cases = [
        (Sizes::new(2, 2, 96), Dtype::BF16, 1),
        (Sizes::new(4, 2, 64), Dtype::F32, 2),
        (tied(Sizes::new(3, 1, 64)), Dtype::F16, 1),
        (
            Sizes {
                rotary: 32,
                vocab: 130,
                ..Sizes::new(2, 1, 80)
            },
            Dtype::BF16,
            3,
        ),
        (tied(Sizes::new(1, 1, 128)), Dtype::F32, 1),
    ];
    let variants = variants();
    let kinds = [
        (Format::F32, CacheFormat::F32, 2e-5),
        (Format::Q4, CacheFormat::F32, 2e-5),
        (Format::Q4, CacheFormat::F16, HALVES),
    ];
    let mut worst = [0.0f64; 3];
    for (case, (sizes, dtype, shards)) in cases.into_iter().enumerate() {
        let random = Random::new(&mut rng, sizes, dtype, shards);
        let tokens = tokens_of(&mut rng, 21, sizes.vocab);
        for (kind, (format, cache, tolerance)) in kinds.into_iter().enumerate() {
            let wanted = candle_all(&random, &tokens, format);
            // Every kind of model meets every variant.
            let (name, gpu) = &variants[(case + kind) % variants.len()];
            let what = format!("{name}, {sizes:?}, {dtype:?}, {format:?}, {cache:?} cache");
            let model = load(gpu, &random, 1 + case, format, cache);
            let got = prefill(&model, &rows(&tokens, case, 0));
            let error = assert_rows(&what, &got, &wanted, sizes.vocab, tolerance);
            worst[kind] = worst[kind].max(error);
        }
    }
    let [plain, quantised, halves] = worst;
    println!("off by at most {plain:.1e}, {quantised:.1e} (4 bit), {halves:.1e} (and f16 cache)");
}

#[test]
fn chunks_and_single_tokens_equal_one_pass() {
    let mut rng = seeded("chunks");
    let sizes = Sizes::new(4, 2, 64);
    let random = Random::new(&mut rng, sizes, Dtype::BF16, 1);
    let tokens = tokens_of(&mut rng, 45, sizes.vocab);
    for (name, gpu) in variants() {
        for (format, cache) in [
            (Format::F32, CacheFormat::F32),
            (Format::Q4, CacheFormat::F16),
        ] {
            let what = format!("{name}, {format:?}");
            let model = load(&gpu, &random, 2, format, cache);
            let whole = prefill(&model, &rows(&tokens, 0, 0));
            let mut chunked = Vec::new();
            let mut first = 0;
            while first < tokens.len() {
                let end = tokens.len().min(first + rng.random_range(1..20));
                chunked.extend(prefill(&model, &rows(&tokens[first..end], 1, first)));
                first = end;
            }
            // The same kernels on the same numbers.
            assert!(whole == chunked, "{what}: chunks change bits");

            let single: Vec<f32> = tokens
                .iter()
                .enumerate()
                .flat_map(|(p, &token)| {
                    let row = |lane| rows(&[token], lane, p)[0];
                    let both = decode(&model, &[row(0), row(1)]);
                    let (a, b) = both.split_at(sizes.vocab);
                    assert!(a == b, "{what}: equal lanes differ at {p}");
                    a.to_vec()
                })
                .collect();
            let whole: Vec<f64> = whole.into_iter().map(f64::from).collect();
            // Other kernels may round a key to the neighbouring f16.
            let tolerance = match cache {
                CacheFormat::F32 => 2e-5,
                CacheFormat::F16 => HALVES,
            };
            assert_rows(&what, &single, &whole, sizes.vocab, tolerance);
        }
    }
}

#[test]
fn lanes_equal_single_runs() {
    let mut rng = seeded("lanes");
    let sizes = Sizes::new(2, 1, 96);
    let random = Random::new(&mut rng, sizes, Dtype::BF16, 1);
    for ((name, gpu), lanes) in variants().into_iter().zip([2, 5, 3]) {
        let model = load(&gpu, &random, lanes, Format::Q4, CacheFormat::F16);
        let prompts: Vec<Vec<u32>> = (0..lanes)
            .map(|i| tokens_of(&mut rng, 3 + 4 * i, sizes.vocab))
            .collect();
        let next = tokens_of(&mut rng, lanes, sizes.vocab);
        // All lanes' rows mixed in one pass, round robin.
        let mut mixed: Vec<Row> = (0..lanes)
            .flat_map(|lane| rows(&prompts[lane], lane, 0))
            .collect();
        mixed.sort_by_key(|row| (row.position, row.lane));
        let heads: Vec<(usize, usize)> = (0..lanes)
            .map(|lane| {
                let last = mixed.iter().rposition(|row| row.lane as usize == lane);
                (last.unwrap(), lane)
            })
            .collect();
        model.prefill(&mixed, &heads, &[], &[]);
        let together: Vec<Vec<f32>> = (0..lanes).map(|lane| logits(&model, lane)).collect();
        let after: Vec<Row> = (0..lanes)
            .map(|lane| rows(&next[lane..=lane], lane, prompts[lane].len())[0])
            .collect();
        let stepped = decode(&model, &after);

        // Each alone, while the other lanes do something else.
        for (lane, prompt) in prompts.iter().enumerate() {
            let what = format!("{name}, lane {lane} of {lanes}");
            let count = prompt.len();
            model.prefill(&rows(prompt, 0, 0), &[(count - 1, 0)], &[], &[]);
            assert!(together[lane] == logits(&model, 0), "{what}: prompt");
            let mut all = vec![
                Row {
                    token: 7,
                    lane: 0,
                    position: 0,
                    flags: 0
                };
                lanes
            ];
            for (other, row) in all.iter_mut().enumerate() {
                row.lane = other as u32;
            }
            all[0] = rows(&next[lane..=lane], 0, count)[0];
            let alone = decode(&model, &all);
            let of_lane = &stepped[lane * sizes.vocab..][..sizes.vocab];
            assert!(*of_lane == alone[..sizes.vocab], "{what}: next token");
        }
        // And in a model with one lane, whose kernels have another width.
        let single = load(&gpu, &random, 1, Format::Q4, CacheFormat::F16);
        for (lane, prompt) in prompts.iter().enumerate() {
            let count = prompt.len();
            single.prefill(&rows(prompt, 0, 0), &[], &[], &[]);
            let alone = decode(&single, &rows(&next[lane..=lane], 0, count));
            let of_lane = &stepped[lane * sizes.vocab..][..sizes.vocab];
            let alone: Vec<f64> = alone.into_iter().map(f64::from).collect();
            let what = format!("{name}, lane {lane} of {lanes} against a single lane");
            assert_close(&what, of_lane, &alone, HALVES);
        }
    }
}

#[test]
fn a_cache_that_grows_keeps_its_positions() {
    let mut rng = seeded("growth");
    let sizes = Sizes {
        layers: 1,
        ..Sizes::new(2, 1, 64)
    };
    let random = Random::new(&mut rng, sizes, Dtype::F32, 1);
    let gpu = plain();
    for cache in [CacheFormat::F32, CacheFormat::F16] {
        let tokens: Vec<Vec<u32>> = (0..2)
            .map(|_| tokens_of(&mut rng, 300, sizes.vocab))
            .collect();
        let go = |grow_at: usize| {
            let mut model = load(&gpu, &random, 2, Format::F32, cache);
            if grow_at == 0 {
                block_on(model.reserve(300)).unwrap();
            }
            for (lane, tokens) in tokens.iter().enumerate() {
                model.prefill(&rows(&tokens[..250], lane, 0), &[], &[], &[]);
            }
            block_on(model.reserve(300)).unwrap();
            let mut all = Vec::new();
            for (lane, tokens) in tokens.iter().enumerate() {
                all.extend(prefill(&model, &rows(&tokens[250..299], lane, 250)));
            }
            let last = |lane: usize| rows(&tokens[lane][299..], lane, 299)[0];
            all.extend(decode(&model, &[last(0), last(1)]));
            all
        };
        assert!(go(0) == go(250), "{cache:?}: growing changed bits");
    }
    let mut model = load(&gpu, &random, 1, Format::F32, CacheFormat::F16);
    let full = block_on(model.reserve(sizes.positions + 1));
    assert!(matches!(
        full,
        Err(ModelError::ContextFull {
            tokens: 1025,
            context: 1024
        })
    ));
}

#[test]
fn windows_residuals_and_free_head_sizes_match_f64() {
    let mut rng = seeded("window");
    for (name, gpu) in variants() {
        for (sizes, format) in [
            (
                Sizes {
                    window: Some(5),
                    ..Sizes::new(2, 1, 64)
                },
                Format::F32,
            ),
            (
                // Heads that do not add up to the stream, a width with a partial group.
                Sizes {
                    hidden: 100,
                    inner: 60,
                    layers: 3,
                    ..Sizes::new(3, 3, 80)
                },
                Format::Q4,
            ),
        ] {
            let random = Random::new(&mut rng, sizes, Dtype::F32, 1);
            let tokens = tokens_of(&mut rng, 40, sizes.vocab);
            let (residuals, wanted) = random.forward(&tokens, format);
            let what = format!("{name}, {sizes:?}, {format:?}");
            let model = load(&gpu, &random, 1, format, CacheFormat::F32);
            let size = tokens.len() * sizes.hidden;
            let copies: Vec<_> = (0..sizes.layers)
                .map(|_| poisoned(&gpu, size + 8))
                .collect();
            let taps: Vec<Tap<'_>> = copies
                .iter()
                .enumerate()
                .map(|(layer, buffer)| Tap {
                    layer,
                    buffer,
                    offset: 16,
                })
                .collect();
            model.prefill(&rows(&tokens, 0, 0), &[], &[], &taps);
            for (layer, (copy, wanted)) in copies.iter().zip(&residuals).enumerate() {
                let got: Vec<f32> = get(&gpu, copy, size + 8);
                let what = format!("{what}, block {layer}");
                assert_rows(&what, &got[4..size + 4], wanted, sizes.hidden, 2e-5);
                assert!(got[size + 4].is_nan() && got[3].is_nan(), "{what}");
            }
            let got = prefill(&model, &rows(&tokens, 0, 0));
            assert_rows(&what, &got, &wanted, sizes.vocab, 2e-5);
            let got: Vec<f32> = tokens
                .iter()
                .enumerate()
                .flat_map(|(p, &token)| decode(&model, &rows(&[token], 0, p)))
                .collect();
            assert_rows(&what, &got, &wanted, sizes.vocab, 2e-5);
        }
    }
}

#[test]
fn what_a_window_has_left_makes_room() {
    let mut rng = seeded("ring");
    let sizes = Sizes {
        window: Some(rng.random_range(2..60)),
        inner: 64,
        ..Sizes::new(2, 1, 64)
    };
    let random = Random::new(&mut rng, sizes, Dtype::F32, 1);
    // Round the ring of the window and two chunks, and a part of a second time.
    let (read, said) = (rng.random_range(900..980), 24);
    let tokens: Vec<Vec<u32>> = (0..2)
        .map(|_| tokens_of(&mut rng, read + said, sizes.vocab))
        .collect();
    let wanted: Vec<Vec<f64>> = tokens
        .iter()
        .map(|tokens| random.forward(tokens, Format::F32).1)
        .collect();
    for (name, gpu) in variants() {
        let mut model = load(&gpu, &random, 2, Format::F32, CacheFormat::F32);
        block_on(model.reserve(700)).unwrap();
        let bytes = model.gpu_bytes();
        block_on(model.reserve(read + said)).unwrap();
        assert_eq!(model.gpu_bytes(), bytes, "a longer chat takes no more");
        let mut first = 0;
        while first < read {
            let chunk = rng.random_range(1..=MAX_ROWS).min(read - first);
            for (lane, tokens) in tokens.iter().enumerate() {
                let heads = [(chunk - 1, lane)];
                let rows = rows(&tokens[first..first + chunk], lane, first);
                model.prefill(&rows, &heads, &[], &[]);
            }
            first += chunk;
            for (lane, wanted) in wanted.iter().enumerate() {
                let what = format!("{name}, {sizes:?}, lane {lane}, {first} positions");
                let wanted = &wanted[(first - 1) * sizes.vocab..][..sizes.vocab];
                assert_close(&what, &logits(&model, lane), wanted, 2e-5);
            }
        }
        for position in read..read + said {
            let row = |lane: usize| rows(&tokens[lane][position..=position], lane, position)[0];
            let both = decode(&model, &[row(0), row(1)]);
            for (of_lane, wanted) in both.chunks_exact(sizes.vocab).zip(&wanted) {
                let what = format!("{name}, {sizes:?}, position {position}");
                let wanted = &wanted[position * sizes.vocab..][..sizes.vocab];
                assert_close(&what, of_lane, wanted, 2e-5);
            }
        }
    }
}

#[test]
fn a_long_context_equals_candle() {
    let mut rng = seeded("long context");
    // Long enough for a decode step to split its attention, over a full chunk's rows.
    let sizes = Sizes {
        inner: 64,
        ..Sizes::new(2, 1, 64)
    };
    let random = Random::new(&mut rng, sizes, Dtype::F32, 1);
    let held = 2 * MAX_ROWS + 35;
    let tokens = tokens_of(&mut rng, held + 4, sizes.vocab);
    let mut candle = random.candle(Format::F32);
    let mut wanted = vec![candle_logits(&mut candle, &tokens[..held], 0)];
    for position in held..held + 4 {
        wanted.push(candle_logits(
            &mut candle,
            &tokens[position..=position],
            position,
        ));
    }
    for (name, gpu) in variants() {
        let mut model = load(&gpu, &random, 2, Format::F32, CacheFormat::F32);
        block_on(model.reserve(held + 4)).unwrap();
        for (i, chunk) in tokens[..held].chunks(MAX_ROWS).enumerate() {
            for lane in 0..2 {
                let heads = [(chunk.len() - 1, lane)];
                model.prefill(&rows(chunk, lane, i * MAX_ROWS), &heads, &[], &[]);
            }
        }
        for lane in 0..2 {
            let what = format!("{name}, prompt of {held}, lane {lane}");
            assert_close(&what, &logits(&model, lane), &wanted[0], 1e-4);
        }
        for (position, wanted) in (held..).zip(&wanted[1..]) {
            let row = |lane| rows(&tokens[position..=position], lane, position)[0];
            let both = decode(&model, &[row(0), row(1)]);
            let what = format!("{name}, position {position}");
            for of_lane in both.chunks_exact(sizes.vocab) {
                assert_close(&what, of_lane, wanted, 1e-4);
            }
        }
    }
}
