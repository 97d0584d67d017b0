//! What the matrix-product kernels make of their sums: rotary embedding and cache, SwiGLU, the head's
//! rows, the dictionary encoder.

use half::f16;
use phi3_steer::gpu::{Access, Gpu, shaders};
use phi3_steer::matrix::{Format, Operands, Product, ProductShape, Prologue};
use phi3_steer::phi3::{CacheFormat, Row};
use rand::seq::SliceRandom;
use rand::{Rng, rngs::StdRng};

use crate::matmul::{TOLERANCE, activations, matrix, plain_rows};
use crate::reference::{after, product, rotate, silu};
use crate::support::*;

/// The sizes of an attention projection.
#[derive(Clone, Copy, Debug)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotary: usize,
    hidden: usize,
}

/// The element pairs of a head in the order that q and k are stored in.
fn stored_pairs(h: &Heads) -> impl Iterator<Item = (usize, usize)> {
    let half = h.rotary / 2;
    (0..h.head_dim / 2).map(move |j| {
        if j < half {
            (j, j + half)
        } else {
            (2 * j, 2 * j + 1)
        }
    })
}

/// A cache strip's pairs as f32.
fn unpack(words: &[u32], format: CacheFormat) -> Vec<f32> {
    match format {
        CacheFormat::F32 => words.iter().map(|w| f32::from_bits(*w)).collect(),
        CacheFormat::F16 => words
            .iter()
            .flat_map(|w| [*w as u16, (*w >> 16) as u16])
            .map(|bits| f16::from_bits(bits).to_f32())
            .collect(),
    }
}

/// The projection of `rows` into `lanes` caches of `capacity` positions.
fn qkv(
    gpu: &Gpu,
    name: &str,
    rng: &mut StdRng,
    h: Heads,
    kernel: (&Product, Format, CacheFormat),
    rows: &[Row],
    [lanes, capacity]: [usize; 2],
) {
    let (product_kernel, format, cache) = kernel;
    let theta = 10_000.0;
    let pairs = h.head_dim / 2;
    let n = (h.heads + 2 * h.kv_heads) * h.head_dim;
    let (w, reference) = matrix(gpu, rng, [n, h.hidden], format);
    let x = activations(rng, rows.len(), h.hidden);
    let weight = normal(rng, h.hidden, 1.0);
    let epsilon = 1e-5f32;
    let half = h.rotary / 2;
    let table: Vec<[f32; 2]> = (0..capacity)
        .flat_map(|p| (0..half).map(move |j| (p, j)))
        .map(|(p, j)| {
            let angle = p as f64 * f64::powf(theta, -2.0 * j as f64 / h.rotary as f64);
            [angle.cos() as f32, angle.sin() as f32]
        })
        .collect();
    let normed = after(Prologue::Norm, &x, &weight, f64::from(epsilon));
    let y = product(&reference, &normed, h.hidden);
    let pair_words = match cache {
        CacheFormat::F32 => 2,
        CacheFormat::F16 => 1,
    };
    let cache_words = lanes * h.kv_heads * capacity * pairs * pair_words;

    let (x_buffer, weight, table) = (put(gpu, &x), put(gpu, &weight), put(gpu, &table));
    let rows_buffer = put_rows(gpu, rows);
    for many in [false, true] {
        let q = poisoned(gpu, (rows.len() + 1) * h.heads * h.head_dim);
        let (keys, values) = (poisoned(gpu, cache_words), poisoned(gpu, cache_words));
        let step = product_kernel.bind(
            gpu,
            many,
            &Operands {
                matrix: &w,
                shape: &ProductShape {
                    heads: h.heads as u32,
                    kv_heads: h.kv_heads as u32,
                    head_dim: h.head_dim as u32,
                    rotary_dim: h.rotary as u32,
                    capacity: capacity as u32,
                    epsilon,
                    ..ProductShape::of(&w)
                },
                x: &x_buffer,
                pre: &weight,
                rows: &rows_buffer,
                own: &[(6, &table), (7, &q), (8, &keys), (9, &values)],
            },
        );
        run(gpu, |pass| step.dispatch(pass, rows.len() as u32));
        let what = format!(
            "{name}, {format:?}, {cache:?} cache, {h:?}, {} rows, many {many}",
            rows.len()
        );
        let q_words: Vec<u32> = get(gpu, &q, (rows.len() + 1) * h.heads * h.head_dim);
        let (q_words, beyond) = q_words.split_at(rows.len() * h.heads * h.head_dim);
        assert_untouched(&what, beyond);
        let mut caches: [Vec<u32>; 2] =
            [get(gpu, &keys, cache_words), get(gpu, &values, cache_words)];
        // A stored element: rounded to f16, or a value of its own size.
        let stored = match cache {
            CacheFormat::F32 => TOLERANCE,
            CacheFormat::F16 => 6e-4,
        };
        for (r, (row, y)) in rows.iter().zip(y.chunks_exact(n)).enumerate() {
            let (lane, position) = (row.lane as usize, row.position as usize);
            for (head, raw) in y.chunks_exact(h.head_dim).enumerate() {
                let mut wanted = raw.to_vec();
                if head < h.heads + h.kv_heads {
                    rotate(&mut wanted, theta, position, &vec![1.0; h.rotary / 2], 1.0);
                    wanted = stored_pairs(&h)
                        .flat_map(|(a, b)| [wanted[a], wanted[b]])
                        .collect();
                }
                if head < h.heads {
                    let at = (r * h.heads + head) * h.head_dim;
                    let got = unpack(&q_words[at..][..h.head_dim], CacheFormat::F32);
                    assert_close(&format!("{what}, query"), &got, &wanted, TOLERANCE);
                    continue;
                }
                let kv_head = (head - h.heads) % h.kv_heads;
                let which = (head - h.heads) / h.kv_heads;
                let words = pairs * pair_words;
                let at = ((lane * h.kv_heads + kv_head) * capacity + position) * words;
                let strip = &mut caches[which][at..][..words];
                let got = unpack(strip, cache);
                let what = format!("{what}, {} at {position}", ["key", "value"][which]);
                assert_close(&what, &got, &wanted, stored);
                strip.fill(POISON);
            }
        }
        // Every other position is as it was.
        assert_untouched(&format!("{what}, keys"), &caches[0]);
        assert_untouched(&format!("{what}, values"), &caches[1]);
    }
}

/// Rows of random lanes at random positions, no place twice.
fn scattered(rng: &mut StdRng, rows: usize, lanes: usize, capacity: usize) -> Vec<Row> {
    let mut places: Vec<(u32, u32)> = (0..lanes as u32)
        .flat_map(|lane| (0..capacity as u32).map(move |position| (lane, position)))
        .collect();
    places.shuffle(rng);
    places
        .into_iter()
        .take(rows)
        .map(|(lane, position)| Row {
            token: 0,
            lane,
            position,
            flags: 0,
        })
        .collect()
}

#[test]
fn attention_projection_turns_and_appends() {
    let mut rng = seeded("qkv");
    for (name, gpu) in variants() {
        for (format, cache, hidden) in [
            (Format::F32, CacheFormat::F32, 96),
            (Format::Q4, CacheFormat::F16, 96),
            (Format::Q4, CacheFormat::F32, 100),
        ] {
            let kernel = Product {
                label: "qkv",
                kernel: shaders::PROJECT_QKV,
                parts: vec![cache.part()],
                prologue: Prologue::Norm,
                bindings: &[
                    (6, Access::Read),
                    (7, Access::Write),
                    (8, Access::Write),
                    (9, Access::Write),
                ],
                few_rows: 2,
                half: false,
            };
            for (heads, kv_heads, head_dim, rotary) in [
                (2, 2, 64, 64),
                (4, 2, 80, 32),
                (3, 1, 96, 96),
                (2, 1, 128, 96),
                (1, 1, 2, 2),
                (5, 5, 6, 4),
            ] {
                let h = Heads {
                    heads,
                    kv_heads,
                    head_dim,
                    rotary,
                    hidden,
                };
                for rows in [1, 5, 33] {
                    let lanes = rng.random_range(1..4);
                    let capacity = 33 + rng.random_range(0..9);
                    let rows = scattered(&mut rng, rows, lanes, capacity);
                    let kernel = (&kernel, format, cache);
                    qkv(&gpu, name, &mut rng, h, kernel, &rows, [lanes, capacity]);
                }
            }
        }
    }
}

#[test]
fn gate_and_up_become_swiglu() {
    let mut rng = seeded("swiglu");
    for (name, gpu) in variants() {
        for (format, inner, k, lanes) in [
            (Format::F32, 35, 64, 1),
            (Format::Q4, 33, 100, 2),
            (Format::Q4, 64, 96, 5),
        ] {
            let kernel = Product {
                label: "swiglu",
                kernel: shaders::PROJECT_SWIGLU,
                parts: Vec::new(),
                prologue: Prologue::Norm,
                bindings: &[(6, Access::Write)],
                few_rows: lanes,
                half: false,
            };
            let (w, reference) = matrix(&gpu, &mut rng, [2 * inner, k], format);
            for (rows, size) in [(1, 1.0), (2, 1.0), (5, 90.0), (33, 1.0)] {
                let x = activations(&mut rng, rows, k);
                // Large norm weights drive the gate far into both ends.
                let weight = normal(&mut rng, k, size);
                let epsilon = 1e-6f32;
                let normed = after(Prologue::Norm, &x, &weight, f64::from(epsilon));
                let wanted: Vec<f64> = product(&reference, &normed, k)
                    .chunks_exact(2 * inner)
                    .flat_map(|y| (0..inner).map(|i| silu(y[i]) * y[inner + i]))
                    .collect();
                let (x, weight) = (put(&gpu, &x), put(&gpu, &weight));
                let rows_buffer = put_rows(&gpu, &plain_rows(rows));
                for many in [false, true] {
                    let out = poisoned(&gpu, (rows + 2) * inner);
                    let step = kernel.bind(
                        &gpu,
                        many,
                        &Operands {
                            matrix: &w,
                            shape: &ProductShape {
                                units: inner as u32,
                                inner: inner as u32,
                                epsilon,
                                ..ProductShape::of(&w)
                            },
                            x: &x,
                            pre: &weight,
                            rows: &rows_buffer,
                            own: &[(6, &out)],
                        },
                    );
                    run(&gpu, |pass| step.dispatch(pass, rows as u32));
                    let what = format!(
                        "{name}, {format:?}, inner {inner}, k {k}, {rows} rows, many {many}"
                    );
                    let got: Vec<u32> = get(&gpu, &out, (rows + 2) * inner);
                    assert_untouched(&what, &got[rows * inner..]);
                    let got: Vec<f32> = get(&gpu, &out, rows * inner);
                    for (got, wanted) in got.chunks_exact(inner).zip(wanted.chunks_exact(inner)) {
                        assert_close(&what, got, wanted, 4.0 * TOLERANCE);
                    }
                }
            }
        }
    }
}

#[test]
fn the_head_reads_its_rows_and_writes_its_lanes() {
    let mut rng = seeded("head");
    for (name, gpu) in variants() {
        for (format, vocab, k, lanes) in [
            (Format::F32, 97, 36, 1),
            (Format::Q4, 97, 96, 2),
            (Format::Q4, 130, 100, 5),
        ] {
            let kernel = Product {
                label: "head",
                kernel: shaders::PROJECT_HEAD,
                parts: Vec::new(),
                prologue: Prologue::Norm,
                bindings: &[(6, Access::Write)],
                few_rows: lanes,
                half: false,
            };
            let (w, reference) = matrix(&gpu, &mut rng, [vocab, k], format);
            let held = 40;
            let x = activations(&mut rng, held, k);
            let weight = normal(&mut rng, k, 1.0);
            let epsilon = 1e-5f32;
            let normed = after(Prologue::Norm, &x, &weight, f64::from(epsilon));
            let logits = product(&reference, &normed, k);
            let (x, weight) = (put(&gpu, &x), put(&gpu, &weight));
            for count in [1, 2, 3, 5] {
                // Some lanes out of seven, in any order, each from any activation row.
                let mut of_lanes: Vec<u32> = (0..7).collect();
                of_lanes.shuffle(&mut rng);
                let rows: Vec<Row> = of_lanes[..count]
                    .iter()
                    .map(|&lane| Row {
                        token: rng.random_range(0..held as u32),
                        lane,
                        ..Row::default()
                    })
                    .collect();
                let rows_buffer = put_rows(&gpu, &rows);
                for many in [false, true] {
                    let out = poisoned(&gpu, 7 * vocab);
                    let step = kernel.bind(
                        &gpu,
                        many,
                        &Operands {
                            matrix: &w,
                            shape: &ProductShape {
                                inner: vocab as u32,
                                epsilon,
                                ..ProductShape::of(&w)
                            },
                            x: &x,
                            pre: &weight,
                            rows: &rows_buffer,
                            own: &[(6, &out)],
                        },
                    );
                    run(&gpu, |pass| step.dispatch(pass, count as u32));
                    let what =
                        format!("{name}, {format:?}, vocab {vocab}, {count} heads, many {many}");
                    let mut got: Vec<u32> = get(&gpu, &out, 7 * vocab);
                    for row in &rows {
                        let words = &mut got[row.lane as usize * vocab..][..vocab];
                        let of_lane = unpack(words, CacheFormat::F32);
                        let wanted = &logits[row.token as usize * vocab..][..vocab];
                        assert_close(&what, &of_lane, wanted, TOLERANCE);
                        words.fill(POISON);
                    }
                    assert_untouched(&what, &got);
                }
            }
        }
    }
}

#[test]
fn the_encoder_follows_each_latents_rule_in_its_slice_of_the_latents() {
    let mut rng = seeded("latents");
    for (name, gpu) in variants() {
        for (format, latents, first, count, k, lanes) in [
            (Format::F32, 101, 0, 101, 64, 2),
            (Format::F32, 101, 40, 33, 100, 1),
            (Format::Q4, 130, 64, 66, 36, 5),
        ] {
            let kernel = Product {
                label: "latents",
                kernel: shaders::PROJECT_LATENTS,
                parts: Vec::new(),
                prologue: Prologue::Subtract,
                bindings: &[(6, Access::Read), (7, Access::Write)],
                few_rows: lanes,
                half: false,
            };
            let (w, reference) = matrix(&gpu, &mut rng, [count, k], format);
            let offset = normal(&mut rng, k, 1.0);
            // Plain ones with a threshold, 0 for ReLU, and gated ones.
            let rules: Vec<[f32; 4]> = (0..count)
                .map(|i| {
                    let p = normal(&mut rng, 3, 1.0);
                    match i % 3 {
                        0 => [p[0], 0.0, 1.0, 0.0],
                        1 => [p[0], p[1].abs(), 1.0 + p[2].abs(), 0.0],
                        _ => [p[0], 1.0 + p[1].abs(), p[2], 1.0],
                    }
                })
                .collect();
            let (offset_buffer, rules_buffer) = (put(&gpu, &offset), put(&gpu, &rules));
            for rows in [1, 2, 5, 33] {
                let x = activations(&mut rng, rows, k);
                let q = product(&reference, &after(Prologue::Subtract, &x, &offset, 0.0), k);
                let size = q.iter().fold(1.0f64, |m, q| m.max(q.abs()));
                // Activations, and how far each is from jumping.
                let wanted: Vec<(f64, f64)> = q
                    .chunks_exact(count)
                    .flat_map(|q| q.iter().zip(&rules).map(|(q, rule)| activation(*q, rule)))
                    .collect();
                let x = put(&gpu, &x);
                let rows_buffer = put_rows(&gpu, &plain_rows(rows));
                for many in [false, true] {
                    let out = poisoned(&gpu, (rows + 1) * latents);
                    let step = kernel.bind(
                        &gpu,
                        many,
                        &Operands {
                            matrix: &w,
                            shape: &ProductShape {
                                inner: latents as u32,
                                first,
                                ..ProductShape::of(&w)
                            },
                            x: &x,
                            pre: &offset_buffer,
                            rows: &rows_buffer,
                            own: &[(6, &rules_buffer), (7, &out)],
                        },
                    );
                    run(&gpu, |pass| step.dispatch(pass, rows as u32));
                    let what = format!(
                        "{name}, {format:?}, latents {first}.. {count} of {latents}, {rows} rows, many {many}"
                    );
                    let mut got: Vec<u32> = get(&gpu, &out, (rows + 1) * latents);
                    for (r, wanted) in wanted.chunks_exact(count).enumerate() {
                        let words = &mut got[r * latents + first as usize..][..count];
                        let mut of_row = unpack(words, CacheFormat::F32);
                        for (got, (wanted, margin)) in of_row.iter_mut().zip(wanted) {
                            // Rounding may decide on which side of the jump it falls.
                            if *margin < 1e-4 * size && *got == 0.0 {
                                *got = *wanted as f32;
                            }
                        }
                        let wanted: Vec<f64> = wanted
                            .iter()
                            .zip(&of_row)
                            .map(
                                |((w, margin), got)| match *margin < 1e-4 * size && *w == 0.0 {
                                    true => f64::from(*got),
                                    false => *w,
                                },
                            )
                            .collect();
                        assert_close(&what, &of_row, &wanted, TOLERANCE);
                        words.fill(POISON);
                    }
                    assert_untouched(&what, &got);
                }
            }
        }
    }
}

/// A latent's activation for the encoder's product `q`, and how far its jump is.
fn activation(q: f64, rule: &[f32; 4]) -> (f64, f64) {
    let [a, b, c, gated] = rule.map(f64::from);
    let cut = if gated == 1.0 { 0.0 } else { b };
    let value = match gated == 1.0 {
        true => (q * b + c).max(0.0),
        false => (q + a).max(0.0) * c,
    };
    let margin = (q + a - cut).abs();
    (if q + a > cut { value } else { 0.0 }, margin)
}
