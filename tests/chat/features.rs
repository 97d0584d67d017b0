//! Features of tokens: the list of the strongest, and the one that is tracked however weak.

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{FeatureWish, GenerateError};
use phi3_steer::phi3::CacheFormat;
use phi3_steer::sae::{HookPoint, MAX_K};
use phi3_steer::steering::SteeringError;
use rand::rngs::StdRng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::bench::*;
use crate::support::{fresh_rng, numbers, reference};

/// More than twice as many latents as a list has room for.
const MANY: usize = 700;

/// A ReLU dictionary of which about half is active at any token.
struct Dense {
    /// `[WIDTH, MANY]`
    encoder: Vec<f32>,
    /// `[MANY, WIDTH]`
    decoder: Vec<f32>,
    bias: Vec<f32>,
    b_dec: Vec<f32>,
}

impl Dense {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            encoder: numbers(rng, WIDTH * MANY, 0.2),
            decoder: numbers(rng, WIDTH * MANY, 0.2),
            bias: numbers(rng, MANY, 0.2),
            b_dec: numbers(rng, WIDTH, 0.2),
        }
    }

    fn folder(&self) -> Folder {
        let config = json!({
            "d_in": WIDTH, "d_sae": MANY, "architecture": "standard", "apply_b_dec_to_input": true,
            "normalize_activations": "none",
            "metadata": {"sae_lens_version": "6.0.0", "hook_name": "blocks.0.hook_resid_post"}
        });
        let tensors = [
            ("W_enc", vec![WIDTH, MANY], &self.encoder),
            ("W_dec", vec![MANY, WIDTH], &self.decoder),
            ("b_enc", vec![MANY], &self.bias),
            ("b_dec", vec![WIDTH], &self.b_dec),
        ];
        let views = tensors.iter().map(|(name, shape, values)| {
            let bytes = bytemuck::cast_slice(values);
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (*name, view.expect("a tensor"))
        });
        let bytes = safetensors::serialize(views, None).expect("a file");
        let files = vec![
            ("cfg.json".into(), config.to_string().into_bytes()),
            ("sae_weights.safetensors".into(), bytes),
        ];
        Folder::memory("dense", files)
    }

    /// The activation of `latent` for h.
    fn activation(&self, h: &[f64], latent: usize) -> f64 {
        let products = h.iter().zip(&self.b_dec).enumerate();
        let sum: f64 = products
            .map(|(i, (h, b))| (h - f64::from(*b)) * f64::from(self.encoder[i * MANY + latent]))
            .sum();
        (sum + f64::from(self.bias[latent])).max(0.0)
    }
}

#[test]
fn a_tracked_feature_is_exact_however_many_are_stronger() {
    let mut rng = fresh_rng();
    let dense = Dense::random(&mut rng);
    let mut setup = Setup::new(&mut rng, json!({}));
    setup.dictionary = Some(dense.folder());
    let prompts = [
        prompt(setup.random.tokens(&mut rng, 9)),
        prompt(setup.random.tokens(&mut rng, 6)),
    ];
    // The residual stream does not depend on the dictionary: nobody steers.
    let vectors: Vec<Vec<Vec<f64>>> = prompts
        .iter()
        .map(|p| {
            reference::plain(&setup.random, CacheFormat::F32, &p.ids)
                .residual
                .remove(0)
        })
        .collect();
    // Of the latents that are active somewhere, the weakest there.
    let h = &vectors[0][4];
    let active = (0..MANY).filter(|l| dense.activation(h, *l) > 1e-3);
    let by_strength =
        |a: &usize, b: &usize| dense.activation(h, *a).total_cmp(&dense.activation(h, *b));
    let (count, weakest) = (active.clone().count(), active.min_by(by_strength));
    assert!(
        count > MAX_K,
        "{count} are active, the list has room for {MAX_K}"
    );
    let weakest = weakest.expect("an active latent") as u32;
    let mut chat = setup.chat();
    let hook = HookPoint::block(0);
    // What the cache holds of the first does not tell the second: the prompt is read again.
    for track in [weakest, (weakest + 1) % MANY as u32] {
        let wish = FeatureWish {
            hook,
            track: Some(track),
        };
        let (said, _) = answer(&mut chat, &prompts, 5, Some(wish), &mut |_| {}).expect("an answer");
        for (lane, said) in said.iter().enumerate() {
            let ids = after(&prompts[lane], &said.tokens).ids;
            let all = reference::plain(&setup.random, CacheFormat::F32, &ids)
                .residual
                .remove(0);
            let told = said
                .prompt
                .iter()
                .map(|t| &t.features)
                .chain(&said.features);
            for (position, (features, h)) in told.zip(&all).enumerate() {
                let Some(features) = features else {
                    assert_eq!(position + 1, ids.len(), "only the last token has none");
                    continue;
                };
                let got = features.activation(track).expect("the tracked feature");
                let exact = dense.activation(h, track as usize);
                let what = format!("lane {lane}, position {position}, feature {track}");
                assert!(
                    (f64::from(got) - exact).abs() < 1e-4,
                    "{what}: {got}, not {exact}"
                );
                assert!(features.listed().len() <= MAX_K);
                for listed in features.listed() {
                    let exact = dense.activation(h, listed.feature as usize);
                    assert!(
                        (f64::from(listed.value) - exact).abs() < 1e-4,
                        "{what}: {listed:?}"
                    );
                }
            }
        }
        // The same once more is all there.
        let (again, _) = answer(&mut chat, &prompts, 0, Some(wish), &mut |_| {}).expect("a prompt");
        for (lane, prompt) in again.iter().zip(&prompts) {
            assert_eq!(lane.reused, prompt.ids.len() - 1);
        }
        // The weakest had no room in the list where it was looked for.
        let features = again[0].prompt[4].features.as_ref().expect("features");
        assert!(features.listed().iter().all(|a| a.feature != weakest));
    }
}

#[test]
fn features_that_are_not_there_cannot_be_tracked() {
    let mut rng = fresh_rng();
    let setup = Setup::new(&mut rng, json!({}));
    let mut chat = setup.chat();
    let prompts = [prompt(setup.random.tokens(&mut rng, 3))];
    let mut ask = |layer, track| {
        let hook = HookPoint::block(layer);
        let wish = FeatureWish { hook, track };
        answer(&mut chat, &prompts, 1, Some(wish), &mut |_| {}).map(|_| ())
    };
    assert!(matches!(
        ask(1, None),
        Err(GenerateError::Steering(SteeringError::UnknownHook { .. }))
    ));
    assert!(matches!(
        ask(0, Some(LATENTS as u32)),
        Err(GenerateError::Steering(SteeringError::UnknownFeature {
            latents: LATENTS,
            ..
        }))
    ));
    ask(0, Some(LATENTS as u32 - 1)).expect("the last feature");
}
