//! The GPU's memory in a browser, counted past the engine at WebGPU's own doors: what is live, what waits to
//! be uploaded, what is compiled, and that waiting waits.
#![cfg(target_arch = "wasm32")]

mod support;

use std::rc::Rc;

use js_sys::{Array, JsString, Uint8Array};
use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::Sampler;
use phi3_steer::gpu::{Access, Gpu, GpuError, GpuOptions, KernelDescriptor};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{Model, ModelError, ModelOptions, Row};
use phi3_steer::sae::{Dictionary, Encoder, HookPoint, Wanted};
use phi3_steer::steering::{Intervention, Operator, Steering};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use support::checkpoint::{RandomModel, config};
use support::dictionary::RandomDictionary;
use support::engine::sleep;
use support::{fresh_rng, say};
use wasm_bindgen_test::*;
use web_sys::Blob;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

const MIB: f64 = 1048576.0;
/// What uploads may have waiting.
const MOST_WAITING: f64 = 128.0 * MIB;

/// Counts at WebGPU's doors; the numbers are members of `counted`.
const COUNTING: &str = r#"
if (!globalThis.counted) {
  const counted = { live: 0, waiting: 0, mostWaiting: 0, written: 0, pipelines: [], queue: null, done: false };
  globalThis.counted = counted;
  const sizes = new Map();
  const codes = new WeakMap();
  const wrap = (type, name, wrapper) => {
    const own = type.prototype[name];
    type.prototype[name] = function (...args) { return wrapper.call(this, own, args); };
  };
  wrap(GPUDevice, "createBuffer", function (own, args) {
    const buffer = own.apply(this, args);
    sizes.set(buffer, args[0].size);
    counted.live += args[0].size;
    return buffer;
  });
  wrap(GPUBuffer, "destroy", function (own, args) {
    counted.live -= sizes.get(this) ?? 0;
    sizes.delete(this);
    return own.apply(this, args);
  });
  wrap(GPUDevice, "createShaderModule", function (own, args) {
    const module = own.apply(this, args);
    codes.set(module, args[0].code);
    return module;
  });
  wrap(GPUDevice, "createComputePipeline", function (own, args) {
    const { module, constants } = args[0].compute;
    counted.pipelines.push(codes.get(module) + JSON.stringify(Object.entries(constants ?? {}).sort()));
    return own.apply(this, args);
  });
  wrap(GPUQueue, "submit", function (own, args) {
    counted.queue = this;
    return own.apply(this, args);
  });
  wrap(GPUQueue, "writeBuffer", function (own, args) {
    const bytes = args[4] ?? args[2].byteLength;
    own.apply(this, args);
    counted.written += bytes;
    counted.waiting += bytes;
    counted.mostWaiting = Math.max(counted.mostWaiting, counted.waiting);
    this.onSubmittedWorkDone().then(() => { counted.waiting -= bytes; });
  });
}
"#;

/// Starts to count, from nothing.
fn count() {
    js_sys::eval(COUNTING).expect("a script");
    js_sys::eval("Object.assign(counted, { mostWaiting: counted.waiting, written: 0, pipelines: [], done: false })")
        .expect("a script");
}

fn counted(name: &str) -> f64 {
    let value = js_sys::eval(&format!("Number(counted.{name})")).expect("a number");
    value.as_f64().expect("a number")
}

async fn open() -> Rc<Gpu> {
    Rc::new(Gpu::open(&GpuOptions::default()).await.expect("a device"))
}

/// All buffers there are in this worker must be those that the devices count.
#[track_caller]
fn check_live(before: f64, gpu: &Gpu, what: &str) {
    let live = counted("live") - before;
    let says = gpu.live_bytes() as f64;
    assert!(
        live >= says && live <= 1.05 * says,
        "{what}: {live} bytes are live, {says} are said to be"
    );
}

const BUSY: &str = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var v = id.x;
    for (var i = 0u; i < 50000u; i++) { v = v * 1664525u + 1013904223u; }
    x[id.x] = v;
}";

#[wasm_bindgen_test]
async fn to_finish_is_to_wait_for_the_work() {
    count();
    let gpu = open().await;
    let x = gpu.storage("numbers", 4 * 64 * 4096).expect("a size");
    let kernel = gpu.kernel(&KernelDescriptor {
        label: "busy",
        parts: &[BUSY],
        constants: &[],
        bindings: &[(0, Access::Write)],
    });
    let step = kernel.bind(&gpu, &[(0, &x)]);
    gpu.finish().await.expect("compiled");
    for _ in 0..3 {
        js_sys::eval("counted.done = false").expect("a script");
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.dispatch(&mut pass, [4096, 1, 1]);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        js_sys::eval("counted.queue.onSubmittedWorkDone().then(() => { counted.done = true; })")
            .expect("a script");
        assert_eq!(counted("done"), 0.0);
        gpu.finish().await.expect("done");
        assert_eq!(counted("done"), 1.0, "the GPU is still at work");
    }
}

/// A safetensors file of zeros, outside of the wasm heap.
fn zeros(tensors: &[(String, Vec<usize>)], dtype: &str, bytes: usize) -> Blob {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<usize>() * bytes;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::from(header).to_string();
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend(header.as_bytes());
    const PIECE: usize = 1 << 20;
    let piece =
        Blob::new_with_u8_array_sequence(&Array::of1(&Uint8Array::new_with_length(PIECE as u32)));
    let piece = piece.expect("a blob");
    let parts = Array::of1(&Uint8Array::from(&head[..]));
    for _ in 0..end / PIECE {
        parts.push(&piece);
    }
    parts.push(&Uint8Array::new_with_length((end % PIECE) as u32));
    Blob::new_with_blob_sequence(&parts).expect("a blob")
}

fn text(contents: &str) -> Blob {
    let parts = Array::of1(&JsString::from(contents));
    Blob::new_with_str_sequence(&parts).expect("a blob")
}

#[wasm_bindgen_test]
async fn uploads_wait_within_bounds() {
    let mut rng = fresh_rng();
    count();
    let before = counted("live");
    let gpu = open().await;
    let width = 512;
    let vocab = rng.random_range(55_000..60_000);
    let json = config(
        json!({"hidden_size": width, "head_dim": 64, "num_attention_heads": 8,
        "num_key_value_heads": 8, "intermediate_size": 6000, "vocab_size": vocab}),
    );
    // The shapes alone are wanted.
    let small = config(json!({"vocab_size": 10}));
    let names: Vec<String> = RandomModel::new(&mut rng, small)
        .tensors
        .into_keys()
        .collect();
    let inner = 6000;
    let shape = |name: &str| match name {
        n if n.contains("embed_tokens") || n.contains("lm_head") => vec![vocab, width],
        n if n.contains("qkv_proj") => vec![3 * width, width],
        n if n.contains("o_proj") => vec![width, width],
        n if n.contains("gate_up_proj") => vec![2 * inner, width],
        n if n.contains("down_proj") => vec![width, inner],
        _ => vec![width],
    };
    let tensors: Vec<_> = names.iter().map(|n| (n.clone(), shape(n))).collect();
    let folder = Folder::blobs(vec![
        ("config.json".into(), text(&json.to_string())),
        ("model.safetensors".into(), zeros(&tensors, "BF16", 2)),
    ]);
    let options = ModelOptions {
        precision: Format::F32.into(),
        ..ModelOptions::default()
    };
    let model = Model::load(gpu.clone(), &folder, options)
        .await
        .expect("a model");
    gpu.finish().await.expect("memory");
    check_live(before, &gpu, "a large model");
    let (written, most) = (counted("written"), counted("mostWaiting"));
    say(&format!(
        "{:.0} MiB written, {:.0} waited",
        written / MIB,
        most / MIB
    ));
    assert!(written > 2.0 * MOST_WAITING && written >= model.gpu_bytes() as f64 / 2.0);
    assert!(most <= MOST_WAITING, "{most} bytes waited");
    drop(model);

    count();
    let latents = 65_536;
    let cfg = json!({"activation": "topk", "k": 8, "num_latents": latents, "d_in": width,
        "expansion_factor": 128, "normalize_decoder": false, "multi_topk": false,
        "skip_connection": false, "transcode": false});
    let tensors = [
        ("encoder.weight".to_string(), vec![latents, width]),
        ("encoder.bias".into(), vec![latents]),
        ("W_dec".into(), vec![latents, width]),
        ("b_dec".into(), vec![width]),
    ];
    let folder = Folder::blobs(vec![
        ("cfg.json".into(), text(&cfg.to_string())),
        ("sae.safetensors".into(), zeros(&tensors, "F32", 4)),
    ]);
    let dictionary = Dictionary::find(&gpu, &folder, Wanted::default()).await;
    let dictionary = dictionary.expect("a dictionary");
    gpu.finish().await.expect("memory");
    check_live(before, &gpu, "a large dictionary");
    let (written, most) = (counted("written"), counted("mostWaiting"));
    say(&format!(
        "{:.0} MiB written, {:.0} waited",
        written / MIB,
        most / MIB
    ));
    assert!(written > 2.0 * MOST_WAITING && dictionary.latents() == latents);
    assert!(most <= MOST_WAITING, "{most} bytes waited");
    drop(dictionary);
    check_live(before, &gpu, "nothing");
    assert_eq!(gpu.live_bytes(), 0);
}

const WIDTH: usize = 96;

fn small_model(rng: &mut StdRng) -> RandomModel {
    RandomModel::new(rng, config(json!({"max_position_embeddings": 4096})))
}

fn dictionary_folder(rng: &mut StdRng) -> Folder {
    let latents = rng.random_range(100..400);
    Folder::memory(
        "a dictionary",
        RandomDictionary::new(rng, WIDTH, latents, 6).files(""),
    )
}

async fn find(gpu: &Gpu, folder: &Folder) -> Dictionary {
    let wanted = Wanted {
        place: Some(HookPoint::block(1)),
        ..Wanted::default()
    };
    Dictionary::find(gpu, folder, wanted)
        .await
        .expect("a dictionary")
}

async fn load(gpu: &Rc<Gpu>, folder: &Folder) -> Result<Model, ModelError> {
    Model::load(gpu.clone(), folder, ModelOptions::default()).await
}

#[wasm_bindgen_test]
async fn what_is_live_is_what_is_said_while_the_cache_grows() {
    let mut rng = fresh_rng();
    count();
    let before = counted("live");
    let gpu = open().await;
    let random = small_model(&mut rng);
    let mut model = load(&gpu, &random.folder()).await.expect("a model");
    let steering =
        Steering::new(&model, vec![find(&gpu, &dictionary_folder(&mut rng)).await]).await;
    let steering = steering.expect("steering");
    check_live(before, &gpu, "loaded");
    let first = model.gpu_bytes();
    let mut positions = 0;
    while positions < 4096 {
        let row = Row {
            token: rng.random_range(0..333),
            position: positions as u32,
            ..Row::default()
        };
        positions = (positions + rng.random_range(1..500)).min(4096);
        model.reserve(positions).await.expect("room");
        let clamp = Intervention::new(
            HookPoint::block(1),
            rng.random_range(0..100),
            Operator::Clamp,
            Some(1.0),
        );
        steering
            .set(rng.random_range(0..2), &[clamp])
            .expect("a feature");
        model.prefill(&[row], &[(0, 0)], &steering.hooks(), &[]);
        gpu.read_vec::<f32>(model.logits(), 0, 333)
            .await
            .expect("logits");
        check_live(before, &gpu, &format!("{positions} positions"));
    }
    assert!(model.gpu_bytes() > 2 * first);
    gpu.check().expect("no complaint");
    drop((model, steering));
    assert_eq!((gpu.live_bytes(), counted("live")), (0, before));
}

#[wasm_bindgen_test]
async fn what_is_replaced_is_freed() {
    let mut rng = fresh_rng();
    count();
    let before = counted("live");
    let gpu = open().await;
    let random = small_model(&mut rng);
    let mut model = load(&gpu, &random.folder()).await.expect("a model");
    let mut most = 0.0f64;
    let mut after_first = None;
    for round in 0..10 {
        let dictionary = find(&gpu, &dictionary_folder(&mut rng)).await;
        check_live(before, &gpu, "a dictionary more");
        let encoder = Encoder::new(&gpu, &dictionary, 16)
            .await
            .expect("an encoder");
        let some = vec![0.5; 3 * WIDTH];
        encoder.run(&some).await.expect("encoded");
        drop(encoder);
        let steering = Steering::new(&model, vec![dictionary])
            .await
            .expect("steering");
        let sampler = Sampler::new(&model).expect("a sampler");
        check_live(before, &gpu, "replaced");
        drop((steering, sampler));
        // Both are there for a moment.
        model = load(&gpu, &small_model(&mut rng).folder())
            .await
            .expect("a model");
        most = most.max(counted("live"));
        gpu.finish().await.expect("no complaint");
        let live = *after_first.get_or_insert(counted("live"));
        assert_eq!(counted("live"), live, "round {round}");
        check_live(before, &gpu, "a model more");
    }
    drop(model);
    assert_eq!((gpu.live_bytes(), counted("live")), (0, before));
}

#[wasm_bindgen_test]
async fn nothing_is_compiled_twice() {
    let mut rng = fresh_rng();
    let gpu = open().await;
    count();
    let model = load(&gpu, &small_model(&mut rng).folder())
        .await
        .expect("a model");
    let dictionary = find(&gpu, &dictionary_folder(&mut rng)).await;
    let encoder = Encoder::new(&gpu, &dictionary, 16)
        .await
        .expect("an encoder");
    drop(encoder);
    let steering = Steering::new(&model, vec![dictionary])
        .await
        .expect("steering");
    let _sampler = Sampler::new(&model).expect("a sampler");
    gpu.finish().await.expect("compiled");
    let all = counted("pipelines.length");
    assert_eq!(
        all,
        js_sys::eval("new Set(counted.pipelines).size")
            .expect("a script")
            .as_f64()
            .expect("a number")
    );
    say(&format!("{all} kernels"));
    // Embedding, attention, merge, head, two skeletons of three products; store, topk, two encoders, decode,
    // steer, fetch; the sampler.
    assert!((10.0..=20.0).contains(&all), "{all} kernels");
    drop(steering);
    // The same once more needs nothing new.
    load(&gpu, &small_model(&mut rng).folder())
        .await
        .expect("a model");
    assert_eq!(counted("pipelines.length"), all);
}

#[wasm_bindgen_test]
async fn a_device_lost_while_loading_is_said_to_be_lost() {
    let mut rng = fresh_rng();
    let random = small_model(&mut rng);
    let heard = Rc::new(std::cell::Cell::new(0));
    // How many times a load reports, to lose the device at any of them.
    let ear = heard.clone();
    let folder = random.folder().on_progress(move |_| ear.set(ear.get() + 1));
    load(&open().await, &folder).await.expect("a model");
    let reports = heard.get();
    assert!(reports > 2);
    for at in [1, rng.random_range(2..reports), reports] {
        let gpu = open().await;
        let (victim, heard) = (gpu.clone(), std::cell::Cell::new(0));
        let folder = random.folder().on_progress(move |_| {
            heard.set(heard.get() + 1);
            if heard.get() == at {
                victim.destroy();
            }
        });
        let lost = async {
            let model = load(&gpu, &folder).await?;
            gpu.finish().await?;
            // The browser may tell only now.
            gpu.read_vec::<f32>(model.logits(), 0, 4).await?;
            Ok::<_, ModelError>(())
        };
        match lost.await {
            Err(ModelError::Gpu(GpuError::Lost(_))) => {}
            other => panic!("lost at report {at} of {reports}: {other:?}"),
        }
    }
}

#[wasm_bindgen_test]
async fn an_error_outside_of_any_scope_is_told_once() {
    let gpu = open().await;
    let buffer = gpu.storage("small", 16).expect("a size");
    // Past its end, by way of the device itself: one error, where a command buffer gives two.
    gpu.queue().write_buffer(&buffer, 8, &[0; 16]);
    // The browser tells of it in an event, which may come after the work is done.
    let mut told = gpu.finish().await;
    for _ in 0..200 {
        if told.is_err() {
            break;
        }
        sleep(10).await;
        told = gpu.finish().await;
    }
    assert!(matches!(told, Err(GpuError::Validation(_))), "{told:?}");
    gpu.finish().await.expect("told already");
    gpu.write(&buffer, 0, &[5u32; 4]);
    assert_eq!(
        gpu.read_vec::<u32>(&buffer, 0, 4).await.expect("numbers"),
        [5; 4]
    );
}
