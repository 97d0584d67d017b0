//! The GPU's memory: what is counted, freed, refused, and what waits to be uploaded.
#![cfg(not(target_arch = "wasm32"))]

mod support;

use std::cell::Cell;
use std::rc::Rc;

use phi3_steer::gpu::{Access, Buffer, Gpu, GpuError, GpuOptions, KernelDescriptor};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::{CacheFormat, Model, ModelError, ModelOptions, Row};
use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;

use support::checkpoint::{RandomModel, config};
use support::{fresh_rng, say};

const MIB: u64 = 1 << 20;
const LANES: usize = 2;
/// Positions that a cache holds at first.
const FIRST: usize = 256;

/// The software adapter with so much memory.
fn limited(bytes: Option<u64>) -> Rc<Gpu> {
    let options = GpuOptions {
        cpu_adapter: true,
        memory_bytes: bytes,
        ..GpuOptions::default()
    };
    Rc::new(block_on(Gpu::open(&options)).expect("a software Vulkan adapter"))
}

fn plain() -> Rc<Gpu> {
    limited(None)
}

fn get<T: bytemuck::Pod>(gpu: &Gpu, buffer: &Buffer, count: usize) -> Vec<T> {
    block_on(gpu.read_vec(buffer, 0, count)).unwrap()
}

const DOUBLE: &str = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<uniform> by: vec4<u32>;
@compute @workgroup_size(1) fn main() { x[0] = x[0] * by.x; }";

fn double<'a>(text: &'a [&'a str]) -> KernelDescriptor<'a> {
    KernelDescriptor {
        label: "double",
        parts: text,
        constants: &[],
        bindings: &[(0, Access::Write), (1, Access::Uniform)],
    }
}

#[test]
fn buffers_are_counted_and_live_as_long_as_what_is_bound_to_them() {
    let mut rng = fresh_rng();
    let gpu = plain();
    assert_eq!(gpu.live_bytes(), 0);
    let odd = rng.random_range(1..1000u64);
    let buffer = gpu.storage("some", odd).unwrap();
    assert_eq!(gpu.live_bytes(), odd.next_multiple_of(16));
    let clone = buffer.clone();
    drop(buffer);
    assert_eq!(gpu.live_bytes(), odd.next_multiple_of(16));
    drop(clone);
    assert_eq!(gpu.live_bytes(), 0);

    let number = rng.random_range(1..1000u32);
    let x = gpu.storage("x", 4).unwrap();
    gpu.write(&x, 0, &[number]);
    let by = gpu.uniform("by", &[3u32, 0, 0, 0]);
    let step = gpu
        .kernel(&double(&[DOUBLE]))
        .bind(&gpu, &[(0, &x), (1, &by)]);
    // The step holds it.
    drop(by);
    for _ in 0..2 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        step.dispatch(&mut pass, [1, 1, 1]);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
    }
    assert_eq!(get::<u32>(&gpu, &x, 1), [9 * number]);
    assert_eq!(gpu.dispatches(), 2);
    assert_eq!(gpu.live_bytes(), 32);
    drop((step, x));
    assert_eq!(gpu.live_bytes(), 0);
}

#[test]
fn memory_that_is_not_there_is_told_once_and_given_back() {
    let mut rng = fresh_rng();
    let limit = 16 * rng.random_range(1000..100_000u64);
    let gpu = limited(Some(limit));
    let half = gpu.storage("half", limit / 2).unwrap();
    block_on(gpu.settle()).unwrap();
    let more = gpu.storage("more than there is", limit).unwrap();
    match block_on(gpu.settle()) {
        Err(GpuError::OutOfMemory { what, bytes }) => {
            assert_eq!((what.as_str(), bytes), ("more than there is", limit));
        }
        other => panic!("{other:?}"),
    }
    block_on(gpu.settle()).unwrap();
    drop(more);
    let rest = gpu.storage("the other half", limit - half.size()).unwrap();
    block_on(gpu.settle()).unwrap();
    drop((half, rest));
    assert_eq!(gpu.live_bytes(), 0);
    let large = gpu.storage_limit() + 1;
    assert!(matches!(
        gpu.storage("a giant", large),
        Err(GpuError::TooLarge { bytes, .. }) if bytes == large
    ));
}

#[test]
fn faults_are_told_once_and_do_not_stay() {
    let gpu = plain();
    let bad = double(&["@compute @workgroup_size(1) fn main() { nonsense(); }"]);
    for _ in 0..2 {
        gpu.kernel(&bad);
        match block_on(gpu.settle()) {
            Err(GpuError::Validation(said)) => assert!(said.contains("double"), "{said}"),
            other => panic!("{other:?}"),
        }
        block_on(gpu.settle()).unwrap();
    }
    gpu.kernel(&double(&[DOUBLE]));
    block_on(gpu.settle()).unwrap();

    // Past the buffer's end, by way of the device itself.
    let buffer = gpu.storage("small", 16).unwrap();
    gpu.queue().write_buffer(&buffer, 16, &[0; 16]);
    assert!(matches!(gpu.check(), Err(GpuError::Validation(_))));
    gpu.check().unwrap();
    gpu.write(&buffer, 0, &[7u32; 4]);
    assert_eq!(get::<u32>(&gpu, &buffer, 4), [7; 4]);
}

#[test]
fn what_is_written_waits_within_bounds() {
    let mut rng = fresh_rng();
    let gpu = plain();
    let buffer = gpu.storage("target", 16 * MIB).unwrap();
    let data = vec![rng.random::<u32>(); 4 * MIB as usize];
    let (mut all, mut most) = (0, 0);
    while all < 400 * MIB {
        let some = &data[..rng.random_range(1..=data.len())];
        gpu.write(&buffer, 0, some);
        all += size_of_val(some) as u64;
        most = most.max(gpu.waiting_bytes());
        block_on(gpu.pace()).unwrap();
    }
    assert!(most > 64 * MIB, "nothing ever waited: {most}");
    assert!(most <= 128 * MIB, "{most} bytes waited");
    say(&format!("{most} bytes waited at most"));
    block_on(gpu.finish()).unwrap();
    assert_eq!(gpu.waiting_bytes(), 0);
}

/// A model whose weights are well over what may wait, uploaded as they come.
#[test]
fn a_large_model_is_uploaded_within_bounds() {
    let mut rng = fresh_rng();
    let json = config(
        json!({"hidden_size": 512, "head_dim": 64, "num_attention_heads": 8,
        "num_key_value_heads": 8, "intermediate_size": 4096, "vocab_size": 20_000}),
    );
    let random = RandomModel::new(&mut rng, json);
    let gpu = plain();
    let (most, all) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let heard = (most.clone(), all.clone(), gpu.clone());
    let folder = random.folder().on_progress(move |_| {
        let (most, all, gpu) = &heard;
        most.set(gpu.waiting_bytes().max(most.get()));
        all.set(all.get() + 1);
    });
    let options = ModelOptions {
        precision: Format::F32.into(),
        ..ModelOptions::default()
    };
    let model = block_on(Model::load(gpu.clone(), &folder, options)).unwrap();
    block_on(gpu.finish()).unwrap();
    assert!(model.gpu_bytes() > 128 * MIB, "too small a model to tell");
    assert!(all.get() > 10 && most.get() > 0);
    assert!(most.get() <= 128 * MIB, "{} bytes waited", most.get());
    // Weights, cache, and what a pass needs.
    let live = gpu.live_bytes();
    assert!(model.gpu_bytes() < live && live < model.gpu_bytes() + 32 * MIB);
    drop(model);
    assert_eq!(gpu.live_bytes(), 0);
}

/// A model with random tokens for both lanes, read in pieces.
struct Reader {
    model: Model,
    tokens: Vec<Vec<u32>>,
    read: usize,
}

impl Reader {
    fn new(gpu: &Rc<Gpu>, random: &RandomModel, tokens: &[Vec<u32>]) -> Self {
        let options = ModelOptions {
            lanes: LANES,
            cache: CacheFormat::F16,
            ..ModelOptions::default()
        };
        let model = block_on(Model::load(gpu.clone(), &random.folder(), options)).unwrap();
        block_on(gpu.finish()).unwrap();
        Self {
            model,
            tokens: tokens.to_vec(),
            read: 0,
        }
    }

    fn reserve(&mut self, positions: usize) -> Result<(), ModelError> {
        block_on(self.model.reserve(positions))
    }

    /// The last logits of both lanes after reading up to position `end`.
    fn read_to(&mut self, end: usize) -> Vec<f32> {
        while self.read < end {
            let piece = self.read..end.min(self.read + 100);
            let rows: Vec<Row> = (0..LANES)
                .flat_map(|lane| {
                    let tokens = &self.tokens[lane];
                    piece.clone().map(move |position| Row {
                        token: tokens[position],
                        lane: lane as u32,
                        position: position as u32,
                        flags: 0,
                    })
                })
                .collect();
            let last = piece.len() - 1;
            let heads = [(last, 0), (last + piece.len(), 1)];
            self.model.prefill(&rows, &heads, &[], &[]);
            self.read = piece.end;
        }
        let count = LANES * self.model.config().vocab_size;
        get(self.model.gpu(), self.model.logits(), count)
    }
}

fn growing_model(rng: &mut StdRng) -> (RandomModel, u64) {
    let json = config(json!({"max_position_embeddings": 2048}));
    let random = RandomModel::new(rng, json);
    let c = &random.config;
    let each = c.num_hidden_layers * LANES * c.num_key_value_heads * c.head_dim;
    // Keys and values of 2 bytes.
    (random, each as u64 * 4)
}

#[test]
fn a_cache_that_cannot_grow_stays_as_it_was() {
    let mut rng = fresh_rng();
    let (random, position) = growing_model(&mut rng);
    let tokens: Vec<_> = (0..LANES)
        .map(|_| (0..600).map(|_| rng.random_range(0..333)).collect())
        .collect();
    let mut free = Reader::new(&plain(), &random, &tokens);
    let base = free.model.gpu().live_bytes();
    free.reserve(1000).unwrap();
    // The old cache is gone.
    let grown = base + position * (1000 - FIRST) as u64;
    assert_eq!(free.model.gpu().live_bytes(), grown);

    // Old and new cache are there together for a moment; there is room for 400 new positions, not for 512.
    let spare = rng.random_range(384..511);
    let gpu = limited(Some(base + position * spare));
    let mut tight = Reader::new(&gpu, &random, &tokens);
    assert_eq!(gpu.live_bytes(), base);
    assert_eq!(tight.read_to(250), free.read_to(250));
    for asked in [600, 2048] {
        match tight.reserve(asked) {
            Err(ModelError::CacheFull { tokens, held }) => {
                assert_eq!((tokens, held), (asked, FIRST))
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(gpu.live_bytes(), base);
    }
    tight.reserve(FIRST).unwrap();
    assert_eq!(tight.read_to(FIRST), free.read_to(FIRST));
    // What cannot double grows by less.
    tight.reserve(FIRST + 1).unwrap();
    assert_eq!(gpu.live_bytes(), base + position * 64);
    assert_eq!(tight.read_to(320), free.read_to(320));
    assert!(matches!(
        tight.reserve(4096),
        Err(ModelError::ContextFull { context: 2048, .. })
    ));
}

#[test]
fn replaced_caches_and_models_leave_nothing() {
    let mut rng = fresh_rng();
    let (random, position) = growing_model(&mut rng);
    let tokens: Vec<_> = (0..LANES)
        .map(|_| (0..2048).map(|_| rng.random_range(0..333)).collect())
        .collect();
    let gpu = plain();
    let mut base = None;
    for _ in 0..4 {
        let mut reader = Reader::new(&gpu, &random, &tokens);
        let base = *base.get_or_insert(gpu.live_bytes());
        assert_eq!(gpu.live_bytes(), base);
        let (mut capacity, mut positions) = (FIRST, FIRST);
        while positions < 2048 {
            positions = (positions + rng.random_range(1..400)).min(2048);
            reader.reserve(positions).unwrap();
            if positions > capacity {
                capacity = positions.max(2 * capacity).min(2048);
            }
            let added = position * (capacity - FIRST) as u64;
            assert_eq!(gpu.live_bytes(), base + added);
        }
        drop(reader);
        assert_eq!(gpu.live_bytes(), 0);
    }
}
