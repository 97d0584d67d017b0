//! The kernels in a browser's WebGPU, whose compiler is not the native one: the forward pass of small
//! random models in every variant that the adapter offers, and steering, against references in f64.
#![cfg(target_arch = "wasm32")]

mod support;

use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::gpu::{Gpu, GpuError, GpuOptions, MatmulKind, Reduction};
use phi3_steer::matrix::{Format, open_checked};
use phi3_steer::phi3::{CacheFormat, Model, ModelOptions, ROW_BOS, ROW_GENERATED, Row};
use phi3_steer::sae::{Dictionary, HookPoint, Wanted, live};
use phi3_steer::steering::{Intervention, Steering};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use support::checkpoint::{RandomModel, odd_config, tied_config};
use support::dictionary::{Kind, RandomDictionary};
use support::reference::{forward, plain};
use support::{assert_near, fresh_rng, say};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::*;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// f32 sums over a few hundred elements, a few blocks deep.
const TOLERANCE: f64 = 1e-4;
/// A key or value that rounds to the other of two f16 numbers.
const TOLERANCE_F16: f64 = 2e-3;

const THREAD: [MatmulKind; 2] = [MatmulKind::Thread, MatmulKind::Thread];
const SPLIT_AND_TILE: [MatmulKind; 2] = [MatmulKind::Split, MatmulKind::Tile];

fn options([few, many]: [MatmulKind; 2], reduction: Reduction, f16: bool) -> GpuOptions {
    GpuOptions {
        f16: Some(f16),
        reduction: Some(reduction),
        few_rows: Some(few),
        many_rows: Some(many),
        ..GpuOptions::default()
    }
}

async fn open(options: &GpuOptions) -> Rc<Gpu> {
    Rc::new(Gpu::open(options).await.expect("a device"))
}

/// What JavaScript says of the adapter, past the engine.
async fn adapter_has(feature: &str) -> bool {
    let script = format!(
        "navigator.gpu.requestAdapter({{powerPreference: 'high-performance'}})
            .then((adapter) => adapter.features.has('{feature}'))"
    );
    let promise = js_sys::eval(&script).expect("a promise");
    let answer = JsFuture::from(js_sys::Promise::from(promise)).await;
    answer.expect("an adapter").is_truthy()
}

/// What the tests need to know of a model.
struct Case {
    json: Value,
    format: Format,
    cache: CacheFormat,
    lanes: usize,
}

/// Loads a random model, and the same as its weights are stored.
async fn load(rng: &mut StdRng, gpu: &Rc<Gpu>, case: &Case) -> (Model, RandomModel) {
    let random = RandomModel::new(rng, case.json.clone());
    let options = ModelOptions {
        lanes: case.lanes,
        context: None,
        precision: case.format.into(),
        cache: case.cache,
    };
    let model = Model::load(gpu.clone(), &random.folder(), options).await;
    let model = model.expect("a model");
    let stored = match case.format {
        Format::F32 => random,
        _ => random.quantised(),
    };
    (model, stored)
}

/// The lanes' logits after what has been submitted; poisons them for the next time.
async fn take_logits(model: &Model) -> Vec<f32> {
    let n = model.lanes() * model.config().vocab_size;
    let logits = model.gpu().read_vec(model.logits(), 0, n).await;
    poison_logits(model);
    logits.expect("logits")
}

fn poison_logits(model: &Model) {
    let n = model.lanes() * model.config().vocab_size;
    model.gpu().write(model.logits(), 0, &vec![f32::NAN; n]);
}

/// Position of a token that the tests call generated.
const GENERATED_FROM: usize = 3;

fn row(lane: usize, position: usize, token: u32) -> Row {
    Row {
        token,
        lane: lane as u32,
        position: position as u32,
        flags: match position {
            0 => ROW_BOS,
            p if p < GENERATED_FROM => 0,
            _ => ROW_GENERATED,
        },
    }
}

/// The tokens at the end of a sequence that go through the decode pass.
const DECODED: usize = 2;

/// Runs each lane's tokens, the last [`DECODED`] through the decode pass: the logits `[lanes][vocab]`
/// after the prompt and after each of these.
async fn run(model: &mut Model, lanes: &[Vec<u32>], steering: Option<&Steering>) -> Vec<Vec<f32>> {
    let longest = lanes.iter().map(Vec::len).max().unwrap_or(0);
    model.reserve(longest).await.expect("room");
    let hooks = || steering.map_or(Vec::new(), Steering::hooks);
    // All lanes mixed, token by token, cut where it comes.
    let mut rows = Vec::new();
    for position in 0..longest {
        for (lane, ids) in lanes.iter().enumerate() {
            if position + DECODED < ids.len() {
                rows.push(row(lane, position, ids[position]));
            }
        }
    }
    poison_logits(model);
    for chunk in rows.chunks(7) {
        let last = |r: &Row| r.position as usize + 1 + DECODED == lanes[r.lane as usize].len();
        let heads: Vec<(usize, usize)> = chunk
            .iter()
            .enumerate()
            .filter(|(_, r)| last(r))
            .map(|(i, r)| (i, r.lane as usize))
            .collect();
        model.prefill(chunk, &heads, &hooks(), &[]);
    }
    let mut all = vec![take_logits(model).await];
    for step in 0..DECODED {
        let rows: Vec<Row> = lanes
            .iter()
            .enumerate()
            .map(|(lane, ids)| {
                let position = ids.len() - DECODED + step;
                row(lane, position, ids[position])
            })
            .collect();
        model.set_decode_rows(&rows);
        // The last step splits its attention, as over a long cache.
        let seen = if step + 1 == DECODED { 1000 } else { longest };
        let mut encoder = model
            .gpu()
            .device()
            .create_command_encoder(&Default::default());
        model.decode(&mut encoder, seen, &hooks());
        model.gpu().queue().submit([encoder.finish()]);
        all.push(take_logits(model).await);
    }
    model.gpu().check().expect("no error of the device");
    all
}

/// Sequences of different lengths, one a lane, with at least `prompt` tokens before the decoded ones.
fn sequences(rng: &mut StdRng, random: &RandomModel, lanes: usize, prompt: usize) -> Vec<Vec<u32>> {
    let one = |rng: &mut StdRng| {
        let n = rng.random_range(prompt + DECODED..14);
        random.tokens(rng, n)
    };
    (0..lanes).map(|_| one(rng)).collect()
}

/// Checks what [`run`] gave against the logits of each lane, `[lanes][tokens][vocab]`.
fn check(got: &[Vec<f32>], expected: &[Vec<Vec<f64>>], tolerance: f64, what: &str) {
    for (step, logits) in got.iter().enumerate() {
        let vocab = logits.len() / expected.len();
        for (lane, (got, expected)) in logits.chunks(vocab).zip(expected).enumerate() {
            let token = expected.len() - 1 - DECODED + step;
            let what = format!("{what}: lane {lane}, token {token}");
            assert_near(got, &expected[token], tolerance, &what);
        }
    }
}

/// The forward pass of several models on a device of these variants.
async fn check_forward(rng: &mut StdRng, options: &GpuOptions, cases: &[Case]) {
    let gpu = open(options).await;
    for case in cases {
        let (mut model, stored) = load(rng, &gpu, case).await;
        let ids = sequences(rng, &stored, case.lanes, 1);
        let got = run(&mut model, &ids, None).await;
        let expected: Vec<_> = ids
            .iter()
            .map(|ids| plain(&stored, case.cache, ids).logits)
            .collect();
        let tolerance = match case.cache {
            CacheFormat::F32 => TOLERANCE,
            CacheFormat::F16 => TOLERANCE_F16,
        };
        let what = format!(
            "{options:?}, {:?}, {:?} cache, {} lanes, {}",
            case.format, case.cache, case.lanes, case.json
        );
        check(&got, &expected, tolerance, &what);
    }
    gpu.destroy();
}

fn case(json: Value, format: Format, cache: CacheFormat, lanes: usize) -> Case {
    Case {
        json,
        format,
        cache,
        lanes,
    }
}

/// Each weight and cache format, odd sizes and a tied head, all tiles of lanes.
fn cases() -> [Case; 3] {
    [
        case(odd_config(), Format::Q4, CacheFormat::F32, 2),
        case(odd_config(), Format::F32, CacheFormat::F16, 1),
        case(tied_config(), Format::Q4, CacheFormat::F16, 5),
    ]
}

#[wasm_bindgen_test]
async fn forward_pass_thread_by_thread() {
    let mut rng = fresh_rng();
    let options = options(THREAD, Reduction::Shared, false);
    check_forward(&mut rng, &options, &cases()).await;
}

#[wasm_bindgen_test]
async fn forward_pass_in_splits_and_tiles() {
    let mut rng = fresh_rng();
    let options = options(SPLIT_AND_TILE, Reduction::Shared, false);
    check_forward(&mut rng, &options, &cases()).await;
}

/// Checks the variants that need a `feature`, or that asking for them without it is refused.
async fn check_optional(feature: &str, engine_has: bool, variants: &[GpuOptions], cases: &[Case]) {
    assert_eq!(engine_has, adapter_has(feature).await, "{feature}");
    for options in variants {
        if engine_has {
            check_forward(&mut fresh_rng(), options, cases).await;
        } else {
            say(&format!("this adapter has no {feature}"));
            let refused = Gpu::open(options).await.err();
            assert!(
                matches!(refused, Some(GpuError::Unsupported(_))),
                "{refused:?}"
            );
        }
    }
}

#[wasm_bindgen_test]
async fn forward_pass_with_subgroups() {
    let gpu = open(&GpuOptions::default()).await;
    let has = gpu.capabilities().has_subgroups;
    let variants = [
        options(SPLIT_AND_TILE, Reduction::Subgroup, false),
        options(THREAD, Reduction::Subgroup, false),
    ];
    check_optional("subgroups", has, &variants, &cases()[..2]).await;
}

#[wasm_bindgen_test]
async fn forward_pass_in_f16() {
    let gpu = open(&GpuOptions::default()).await;
    let has = gpu.capabilities().has_f16;
    let variants = [
        options(SPLIT_AND_TILE, Reduction::Shared, true),
        options(THREAD, Reduction::Shared, true),
    ];
    check_optional("shader-f16", has, &variants, &cases()[..2]).await;
}

#[wasm_bindgen_test]
async fn subgroups_and_f16_together() {
    let gpu = open(&GpuOptions::default()).await;
    let has = gpu.capabilities().has_f16 && gpu.capabilities().has_subgroups;
    let options = options(SPLIT_AND_TILE, Reduction::Subgroup, true);
    if has {
        check_forward(&mut fresh_rng(), &options, &cases()).await;
    } else {
        let refused = Gpu::open(&options).await.err();
        assert!(matches!(refused, Some(GpuError::Unsupported(_))));
    }
}

/// A dictionary on which rounding cannot change the active latents of any of `vectors`.
fn steady_dictionary(rng: &mut StdRng, width: usize, vectors: &[Vec<f64>]) -> RandomDictionary {
    for _ in 0..100 {
        let dictionary = RandomDictionary::new(rng, width, 75, 7);
        if vectors.iter().all(|h| dictionary.margin(h) > 1e-3) {
            return dictionary;
        }
    }
    panic!("no dictionary without near ties");
}

/// Steering in the middle of a forward pass, on one lane of two, in both skeletons.
#[wasm_bindgen_test]
async fn steered_forward_pass() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    let has = open(&GpuOptions::default()).await;
    let mut variants = vec![
        options(THREAD, Reduction::Shared, false),
        options(SPLIT_AND_TILE, Reduction::Shared, false),
    ];
    if has.capabilities().has_subgroups {
        variants.push(options(SPLIT_AND_TILE, Reduction::Subgroup, false));
    }
    for options in variants {
        let gpu = open(&options).await;
        let layer = 1;
        let case = case(odd_config(), Format::Q4, CacheFormat::F32, 2);
        let (mut model, stored) = load(rng, &gpu, &case).await;
        let mut ids = sequences(rng, &stored, 1, 3);
        ids.push(ids[0].clone());
        let base = plain(&stored, case.cache, &ids[0]);
        let width = stored.config.hidden_size;
        let dictionary = steady_dictionary(rng, width, &base.residual[layer]);
        let files = dictionary.files(&format!("layers.{layer}/"));
        let folder = Folder::memory("a random dictionary", files);
        let wanted = Wanted {
            width: Some(width),
            ..Wanted::default()
        };
        let loaded = Dictionary::find(&gpu, &folder, wanted).await;
        let steering = Steering::new(&model, vec![loaded.expect("a dictionary")]).await;
        let steering = steering.expect("steering");
        let unsteered = run(&mut model, &ids, Some(&steering)).await;
        check(
            &unsteered,
            &[base.logits.clone(), base.logits.clone()],
            TOLERANCE,
            "steering off",
        );
        // A latent that is active at the second token, and one that may be anything.
        let code = dictionary.code(&base.residual[layer][1]);
        let active = *code.keys().next().expect("an active latent");
        let other = (active + 1 + rng.random_range(0..dictionary.latents - 1)) % dictionary.latents;
        for list in [
            format!("{active}:clamp:4"),
            format!("{active}:clamp_replace:3:+bos"),
            format!("{active}:scale:0:prompt {other}:add:-1.5:generated"),
            format!("{active}:scale:2.5:if-active {other}:project_out"),
            "-:reconstruct".to_string(),
        ] {
            let list: Vec<Intervention> = list
                .split(' ')
                .map(|one| {
                    format!("layers.{layer}:{one}")
                        .parse()
                        .expect("well written")
                })
                .collect();
            steering.set(1, &list).expect("accepted");
            let got = run(&mut model, &ids, Some(&steering)).await;
            let steered = forward(&stored, case.cache, &ids[1], &mut |at, position, h| {
                if at == layer {
                    let kind = Kind {
                        bos: position == 0,
                        generated: position >= GENERATED_FROM,
                    };
                    dictionary.steer(h, &list, kind);
                }
            });
            let what = format!("{options:?}, {list:?}");
            check(
                &got,
                &[base.logits.clone(), steered.logits],
                TOLERANCE,
                &what,
            );
            for (got, before) in got.iter().zip(&unsteered) {
                let vocab = got.len() / 2;
                let same = got[..vocab] == before[..vocab];
                assert!(same, "{what}: the other lane has other bits");
                assert!(got[vocab..] != before[vocab..], "{what}: nothing changed");
            }
            steering.set(1, &[]).expect("accepted");
        }
        let again = run(&mut model, &ids, Some(&steering)).await;
        assert!(again == unsteered, "steering off again: other bits");
        check_features(
            &model,
            &steering,
            &dictionary,
            &ids[0],
            &base.residual[layer],
        )
        .await;
        gpu.destroy();
    }
}

/// The features of each token of a prompt, against the reference's.
async fn check_features(
    model: &Model,
    steering: &Steering,
    dictionary: &RandomDictionary,
    ids: &[u32],
    vectors: &[Vec<f64>],
) {
    let hook = steering.hook(HookPoint::block(1)).expect("a hook");
    hook.watch(true);
    let rows: Vec<Row> = ids
        .iter()
        .enumerate()
        .map(|(p, id)| row(0, p, *id))
        .collect();
    model.prefill(&rows, &[], &steering.hooks(), &[]);
    let slots = hook.read_features(rows.len()).await.expect("features");
    hook.watch(false);
    for (position, (slots, h)) in slots.chunks(dictionary.k).zip(vectors).enumerate() {
        let expected = dictionary.code(h);
        let got = live(slots);
        assert_eq!(got.len(), expected.len(), "token {position}");
        for a in got {
            let exact = expected.get(&(a.feature as usize));
            let exact = exact.unwrap_or_else(|| panic!("token {position}: {a:?} is not active"));
            let off = (f64::from(a.value) - exact).abs();
            assert!(off < 1e-3, "token {position}: {a:?}, not {exact}");
        }
    }
}

/// Has the driver compile every shader that holds `text` with `other` in its place, or all shaders as they are.
fn miscompile(text: &str, other: &str) {
    let script = format!(
        "globalThis.compileShader ??= GPUDevice.prototype.createShaderModule;
        GPUDevice.prototype.createShaderModule = function (descriptor) {{
            const code = descriptor.code.replaceAll({text:?}, {other:?});
            return compileShader.call(this, {{ ...descriptor, code }});
        }};"
    );
    js_sys::eval(&script).expect("a script");
}

/// A driver that is wrong, or fails, about what only the fast products use is found out, and they are not used.
#[wasm_bindgen_test]
async fn products_that_come_out_wrong_are_left_out() {
    let has = open(&GpuOptions::default()).await;
    let has = has.capabilities();
    let reductions = match has.has_subgroups {
        true => &[Reduction::Shared, Reduction::Subgroup][..],
        false => &[Reduction::Shared],
    };
    let lanes = ("subgroupShuffleXor(sum, apart)", "sum");
    let half = ("bitcast<vec2<f16>>(bits)", "bitcast<vec2<f16>>(bits).yx");
    let no_lanes = ("subgroupShuffleXor(sum, apart)", "no_such_function(sum)");
    let no_half = ("bitcast<vec2<f16>>(bits)", "no_such_function(bits)");
    let mut left_out = 0;
    for &reduction in reductions {
        for in_half in [false, true]
            .into_iter()
            .filter(|half| has.has_f16 || !half)
        {
            let wished = GpuOptions {
                half_products: Some(in_half),
                ..options(SPLIT_AND_TILE, reduction, in_half)
            };
            let subgroups = reduction == Reduction::Subgroup;
            // A fault, whether it strikes here, and what is still used then.
            let faults = [
                (("nothing", "nothing"), false, in_half, reduction),
                (lanes, subgroups, false, Reduction::Shared),
                (half, in_half, false, reduction),
                (no_half, in_half, false, reduction),
                (no_lanes, subgroups, false, Reduction::Shared),
            ];
            for ((text, other), strikes, half, used) in faults {
                let about = format!("{reduction:?}, f16 products {in_half}: {text} as {other}");
                miscompile(text, other);
                let opened = open_checked(&wished).await;
                miscompile("nothing", "nothing");
                let (gpu, told) = opened.unwrap_or_else(|e| panic!("{about}: {e}"));
                assert_eq!(told.is_some(), strikes, "{about}: {told:?}");
                if strikes {
                    let capabilities = gpu.capabilities();
                    assert_eq!(capabilities.half_products, half, "{about}");
                    assert_eq!(capabilities.reduction, used, "{about}");
                    left_out += 1;
                }
                gpu.destroy();
            }
        }
    }
    say(&format!("{left_out} faults were found out"));

    // One that is wrong about what plain products use too is refused.
    miscompile("residual[at] += y.x", "residual[at] -= y.x");
    let opened = open_checked(&options(SPLIT_AND_TILE, Reduction::Shared, false)).await;
    miscompile("nothing", "nothing");
    let refused = opened.err();
    assert!(
        matches!(refused, Some(GpuError::WrongResults { .. })),
        "{refused:?}"
    );
}
