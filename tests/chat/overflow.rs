//! Numbers that are none reach the check of the logits, wherever they arise, and nothing finite stands in
//! for them.

use phi3_steer::generate::{Chat, GenerateError};
use phi3_steer::phi3::CacheFormat;
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::{Intervention, Operator};
use rand::Rng;
use serde_json::json;

use crate::bench::*;
use crate::support::{assert_near, fresh_rng, reference};

/// Whether the answer fails because its logits are no numbers.
fn overflows(chat: &mut Chat, ids: &[u32]) -> bool {
    let prompts = vec![prompt(ids.to_vec()); 2];
    match answer(chat, &prompts, 4, None, &mut |_| {}) {
        Ok(_) => false,
        Err(GenerateError::NotFinite { .. }) => true,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn strengths_beyond_the_numbers_are_an_error_and_the_chat_goes_on() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let ids = setup.random.tokens(&mut rng, 6);
    let expected = plain(&mut chat, &[prompt(ids.clone())], 4);
    for op in [Operator::Clamp, Operator::Add, Operator::ClampReplace] {
        // The first has squares beyond f32, the last is beyond f32 after a product.
        for value in [1e20, -1e30, f32::MAX] {
            let feature = rng.random_range(0..LATENTS as u32);
            let one = Intervention::new(HookPoint::block(0), feature, op, Some(value));
            chat.steering().set(1, &[one]).expect("a finite strength");
            assert!(overflows(&mut chat, &ids), "{op} {value}");
        }
        chat.steering().set(1, &[]).expect("steering off");
        let again = plain(&mut chat, &[prompt(ids.clone())], 4);
        assert_eq!(again[0].tokens, expected[0].tokens);
    }
    // Large, but a number: the answer is one.
    let large = Intervention::new(HookPoint::block(0), 1, Operator::Add, Some(1e9));
    chat.steering().set(1, &[large]).expect("a strength");
    assert!(!overflows(&mut chat, &ids));
}

#[test]
fn a_reconstruction_does_not_mend_what_was_broken_before() {
    let mut rng = fresh_rng();
    let mut setup = Setup::new(&mut rng, json!({}));
    // The first block's output overflows in one element.
    let down = "model.layers.0.mlp.down_proj.weight";
    let tensor = setup.random.tensors.get_mut(down).expect("a matrix");
    let row = rng.random_range(0..WIDTH);
    tensor.values[row * 96..][..96].fill(3e38);
    let mut chat = setup.chat();
    let ids = setup.random.tokens(&mut rng, 6);
    assert!(overflows(&mut chat, &ids), "without steering");
    for op in [Operator::Reconstruct, Operator::ClampReplace] {
        let one = Intervention {
            include_bos: true,
            ..Intervention::new(HookPoint::block(0), 2, op, Some(1.0))
        };
        for lane in 0..2 {
            chat.steering()
                .set(lane, std::slice::from_ref(&one))
                .expect("set");
        }
        assert!(overflows(&mut chat, &ids), "{op}");
    }
}

#[test]
fn keys_and_values_that_a_half_cannot_hold_are_an_error_or_exact() {
    let mut rng = fresh_rng();
    for (part, what) in [(1, "keys"), (2, "values")] {
        let mut setup = Setup::new(&mut rng, json!({}));
        let c = setup.random.config.clone();
        let (heads, size) = (c.num_attention_heads, c.head_dim);
        let qkv = "model.layers.0.self_attn.qkv_proj.weight";
        let tensor = setup.random.tensors.get_mut(qkv).expect("a matrix");
        // Rows of q, then of k, then of v: one element of one of them grows beyond 65,504.
        let row = (heads + part - 1) * size + rng.random_range(0..size);
        let values = &mut tensor.values[row * WIDTH..][..WIDTH];
        values.iter_mut().for_each(|v| *v *= 524_288.0);
        let ids = setup.random.tokens(&mut rng, 6);
        // In f32 such a model is as good as any.
        let exact = reference::plain(&setup.random, CacheFormat::F32, &ids);
        let got = logits(&mut setup.chat(), &[prompt(ids.clone())]);
        assert_near(&got[0], &exact.logits[5], 1e-3, what);
        setup.cache = CacheFormat::F16;
        assert!(overflows(&mut setup.chat(), &ids), "{what}");
    }
}

#[test]
fn scores_that_are_no_numbers_do_not_hide_in_attention() {
    let mut rng = fresh_rng();
    for cache in [CacheFormat::F32, CacheFormat::F16] {
        let mut setup = Setup::new(&mut rng, json!({}));
        setup.cache = cache;
        // The second block's queries and keys: their products overflow, they themselves do not.
        let qkv = "model.layers.1.self_attn.qkv_proj.weight";
        let c = setup.random.config.clone();
        let tensor = setup.random.tensors.get_mut(qkv).expect("a matrix");
        let queries = c.num_attention_heads * c.head_dim * WIDTH;
        tensor.values[..queries].iter_mut().for_each(|v| *v *= 1e37);
        let keys = c.num_key_value_heads * c.head_dim * WIDTH;
        tensor.values[queries..][..keys]
            .iter_mut()
            .for_each(|v| *v *= 1e3);
        let ids = setup.random.tokens(&mut rng, 6);
        assert!(overflows(&mut setup.chat(), &ids), "{cache:?}");
    }
}
