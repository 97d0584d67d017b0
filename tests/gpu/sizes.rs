//! Configurations beyond Phi-3-mini-4k: LongRoPE, Phi-4-mini's shape, buffers that hold little.

use phi3_steer::gpu::GpuOptions;
use phi3_steer::matrix::Format;
use phi3_steer::phi3::CacheFormat;
use pollster::block_on;
use safetensors::Dtype;

use crate::checkpoint::{Random, Sizes};
use crate::forward::{assert_rows, load, prefill, rows, tokens_of};
use crate::support::*;

#[test]
fn longrope_turns_short_and_long_sequences_by_their_factors() {
    let mut rng = seeded("longrope");
    let sizes = Sizes {
        pretrained: Some(16),
        // As Phi-4-mini: three quarters of a head turn, key-value heads are shared, the head is tied.
        rotary: 48,
        tied: true,
        ..Sizes::new(4, 2, 64)
    };
    let random = Random::new(&mut rng, sizes, Dtype::BF16, 1);
    for (name, gpu) in variants() {
        let mut model = load(&gpu, &random, 2, Format::F32, CacheFormat::F32);
        // Up to the last position of pretraining, beyond, and back again.
        for (count, changes) in [(16, false), (17, true), (40, false), (9, true)] {
            let tokens = tokens_of(&mut rng, count, sizes.vocab);
            let (_, wanted) = random.forward(&tokens, Format::F32);
            assert_eq!(model.reach(count), changes, "{count} positions");
            let got = prefill(&model, &rows(&tokens, 1, 0));
            let what = format!("{name}, {count} positions");
            assert_rows(&what, &got, &wanted, sizes.vocab, 2e-5);
        }
    }
}

#[test]
fn small_buffers_hold_a_table_in_parts_and_a_shorter_context() {
    let mut rng = seeded("small buffers");
    for tied in [false, true] {
        let sizes = Sizes {
            vocab: 1003,
            tied,
            ..Sizes::new(1, 1, 96)
        };
        let random = Random::new(&mut rng, sizes, Dtype::F32, 2);
        let gpu = open(GpuOptions {
            // Less than the embedding's 385,152 bytes, more than any other matrix.
            buffer_bytes: Some(140_000),
            half_products: Some(false),
            ..GpuOptions::default()
        });
        let mut model = load(&gpu, &random, 2, Format::F32, CacheFormat::F32);
        assert_eq!(model.context(), 140_000 / (2 * 96 * 4));
        let mut tokens = tokens_of(&mut rng, 30, sizes.vocab);
        (tokens[0], tokens[1]) = (0, 1002);
        block_on(model.reserve(tokens.len())).unwrap();
        let (_, wanted) = random.forward(&tokens, Format::F32);
        let got = prefill(&model, &rows(&tokens, 0, 0));
        let what = format!("parts, tied {tied}");
        assert_rows(&what, &got, &wanted, sizes.vocab, 2e-5);
    }
}
