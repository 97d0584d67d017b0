//! Steering inside a whole model of random weights on the software adapter.

use pollster::block_on;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use safetensors::tensor::{Dtype, TensorView};

use super::{Intervention, Steering, SteeringError};
use crate::checkpoint::Folder;
use crate::gpu::GpuOptions;
use crate::matrix::Format;
use crate::phi3::{CacheFormat, Model, ModelOptions, ROW_BOS, ROW_GENERATED, Row, Tap};
use crate::sae::reference::{Reference, assert_near, fresh_rng, numbers, software_gpu};
use crate::sae::{Dictionary, HookPoint, SaeError, Wanted};

const HIDDEN: usize = 48;
const BLOCKS: usize = 3;
const VOCAB: usize = 70;
const HOOKED: usize = 1;

/// A checkpoint of random weights.
fn checkpoint(rng: &mut StdRng) -> Folder {
    let (head, heads, kv_heads, inner) = (24, 2, 1, 80);
    let config = serde_json::json!({
        "model_type": "phi3", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": inner, "num_hidden_layers": BLOCKS, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head, "max_position_embeddings": 64
    });
    let mut shapes = vec![
        ("model.embed_tokens".to_string(), vec![VOCAB, HIDDEN]),
        ("lm_head".into(), vec![VOCAB, HIDDEN]),
        ("model.norm".into(), vec![HIDDEN]),
    ];
    for i in 0..BLOCKS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            (
                "self_attn.qkv_proj",
                vec![(heads + 2 * kv_heads) * head, HIDDEN],
            ),
            ("self_attn.o_proj", vec![HIDDEN, heads * head]),
            ("mlp.gate_up_proj", vec![2 * inner, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, inner]),
        ] {
            shapes.push((format!("model.layers.{i}.{name}"), shape));
        }
    }
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = numbers(rng, shape.iter().product());
            let values = match shape.as_slice() {
                [_] => values.iter().map(|v| 1.0 + 0.2 * v).collect(),
                _ => values.iter().map(|v| 0.3 * v).collect(),
            };
            (format!("{name}.weight"), shape, values)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let files = vec![
        ("config.json".to_string(), config.to_string().into_bytes()),
        (
            "model.safetensors".into(),
            safetensors::serialize(views, None).unwrap(),
        ),
    ];
    Folder::memory("random model", files)
}

struct Bench {
    model: Model,
    steering: Steering,
    reference: Reference,
    rows: Vec<Row>,
}

/// What a pass leaves behind.
#[derive(PartialEq)]
struct Pass {
    /// `[BLOCKS, rows, HIDDEN]`, at the blocks' outputs.
    residuals: Vec<Vec<f32>>,
    /// `[lanes, VOCAB]`
    logits: Vec<f32>,
}

impl Bench {
    fn new(rng: &mut StdRng, cache: CacheFormat) -> Self {
        let gpu = software_gpu(GpuOptions::default());
        let reference = Reference::random(rng, HIDDEN, 90, 6);
        let options = ModelOptions {
            lanes: 2,
            precision: Format::F32.into(),
            cache,
            ..ModelOptions::default()
        };
        let model = block_on(Model::load(gpu.clone(), &checkpoint(rng), options)).unwrap();
        let wanted = Wanted {
            hook: None,
            width: Some(HIDDEN),
            layers: Some(BLOCKS),
            ..Wanted::default()
        };
        let folder = reference.folder(HOOKED);
        let dictionary = block_on(Dictionary::find(&gpu, &folder, wanted)).unwrap();
        let steering = block_on(Steering::new(&model, vec![dictionary])).unwrap();
        let tokens: Vec<u32> = (0..VOCAB as u32).collect();
        let mut rows = Vec::new();
        // The same seven tokens in both lanes, the last three generated.
        for position in 0..7 {
            let token = *tokens.choose(rng).unwrap();
            for lane in 0..2 {
                let flags = match position {
                    0 => ROW_BOS,
                    1..4 => 0,
                    _ => ROW_GENERATED,
                };
                rows.push(Row {
                    token,
                    lane,
                    position,
                    flags,
                });
            }
        }
        Self {
            model,
            steering,
            reference,
            rows,
        }
    }

    fn set(&self, lane: usize, texts: &[String]) {
        let list: Vec<Intervention> = texts.iter().map(|t| t.parse().unwrap()).collect();
        self.steering.set(lane, &list).unwrap();
    }

    /// Runs all rows in one pass.
    fn prefill(&self) -> Pass {
        let gpu = self.model.gpu();
        let n = self.rows.len();
        let bytes = (BLOCKS * n * HIDDEN * 4) as u64;
        let buffer = gpu.storage("taps", bytes).unwrap();
        let taps: Vec<Tap<'_>> = (0..BLOCKS)
            .map(|layer| Tap {
                layer,
                buffer: &buffer,
                offset: (layer * n * HIDDEN * 4) as u64,
            })
            .collect();
        let heads = [(n - 2, 0), (n - 1, 1)];
        self.model
            .prefill(&self.rows, &heads, &self.steering.hooks(), &taps);
        let all: Vec<f32> = block_on(gpu.read_vec(&buffer, 0, BLOCKS * n * HIDDEN)).unwrap();
        Pass {
            residuals: all.chunks(n * HIDDEN).map(<[f32]>::to_vec).collect(),
            logits: self.logits(),
        }
    }

    fn logits(&self) -> Vec<f32> {
        block_on(self.model.gpu().read_vec(self.model.logits(), 0, 2 * VOCAB)).unwrap()
    }

    /// Runs the rows a position at a time, both lanes at once; the logits at the end.
    fn decode(&self) -> Vec<f32> {
        let gpu = self.model.gpu();
        for (position, rows) in self.rows.chunks(2).enumerate() {
            self.model.set_decode_rows(rows);
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            self.model
                .decode(&mut encoder, position + 1, &self.steering.hooks());
            gpu.queue().submit([encoder.finish()]);
        }
        self.logits()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn steering_edits_the_output_of_its_block() {
    let mut rng = fresh_rng();
    let bench = Bench::new(&mut rng, CacheFormat::F16);
    let base = bench.prefill();
    let d = bench.reference.direction(5);
    bench.set(1, &["layers.1:5:add:2.5:generated".into()]);
    let steered = bench.prefill();
    assert_eq!(bits(&steered.residuals[0]), bits(&base.residuals[0]));
    for (r, row) in bench.rows.iter().enumerate() {
        let span = r * HIDDEN..(r + 1) * HIDDEN;
        let before = &base.residuals[HOOKED][span.clone()];
        let after = &steered.residuals[HOOKED][span.clone()];
        let last = BLOCKS - 1;
        let later = bits(&steered.residuals[last][span.clone()]);
        if row.lane == 1 && row.flags == ROW_GENERATED {
            let expected: Vec<f64> = wide(before)
                .iter()
                .zip(&d)
                .map(|(h, d)| h + 2.5 * d)
                .collect();
            assert_near(after, &expected, 1e-6, "the hooked block");
            assert_ne!(later, bits(&base.residuals[last][span]));
        } else {
            assert_eq!(bits(after), bits(before));
            assert_eq!(later, bits(&base.residuals[last][span]));
        }
    }
    assert_eq!(bits(&steered.logits[..VOCAB]), bits(&base.logits[..VOCAB]));
    assert_ne!(bits(&steered.logits[VOCAB..]), bits(&base.logits[VOCAB..]));
    // Off again, and both lanes are as if nothing had been.
    bench.set(1, &[]);
    assert!(bench.prefill() == base);
}

#[test]
fn a_steered_prompt_is_the_same_in_one_pass_and_token_by_token() {
    let mut rng = fresh_rng();
    let bench = Bench::new(&mut rng, CacheFormat::F32);
    let features: Vec<usize> = (0..bench.reference.latents).collect();
    for op in [
        "clamp:4",
        "clamp_replace:4:+bos",
        "scale:-1",
        "project_out:prompt",
        "add:3:generated",
    ] {
        let feature = features.choose(&mut rng).unwrap();
        bench.set(
            0,
            &[
                format!("layers.1:{feature}:{op}"),
                "layers.1:7:add:0.5".into(),
            ],
        );
        let at_once = bench.prefill().logits;
        assert_near(&bench.decode(), &wide(&at_once), 1e-4, op);
    }
}

#[test]
fn dictionaries_that_do_not_fit_the_model_are_refused() {
    let mut rng = fresh_rng();
    let bench = Bench::new(&mut rng, CacheFormat::F32);
    let gpu = bench.model.gpu();
    let put = |reference: &Reference, folder: &Folder| {
        let dictionary = block_on(Dictionary::find(gpu, folder, Wanted::default())).unwrap();
        assert_eq!(dictionary.width(), reference.width);
        block_on(Steering::new(&bench.model, vec![dictionary]))
            .err()
            .unwrap()
    };
    let narrow = Reference::random(&mut rng, 44, 10, 2);
    assert!(matches!(
        put(&narrow, &narrow.folder(1)),
        SteeringError::Dictionary(SaeError::WrongWidth {
            dictionary: 44,
            model: HIDDEN,
            ..
        })
    ));
    let fits = Reference::random(&mut rng, HIDDEN, 10, 2);
    assert!(matches!(
        put(&fits, &fits.folder(BLOCKS)),
        SteeringError::Dictionary(SaeError::NoSuchBlock { layers: BLOCKS, .. })
    ));
    let nameless = Folder::memory("mine", fits.files(""));
    assert!(matches!(
        put(&fits, &nameless),
        SteeringError::Dictionary(SaeError::HookUnknown { .. })
    ));
    let twice = [1, 1].map(|layer| {
        block_on(Dictionary::find(
            gpu,
            &fits.folder(layer),
            Wanted::default(),
        ))
        .unwrap()
    });
    assert!(matches!(
        block_on(Steering::new(&bench.model, twice.into()))
            .err()
            .unwrap(),
        SteeringError::TwoDictionaries(HookPoint { layer: 1 })
    ));
}
