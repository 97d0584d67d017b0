//! What the tests share: adapters, variants, buffers full of poison, errors relative to a scale.

use std::rc::Rc;

use phi3_steer::gpu::{Buffer, Gpu, GpuError, GpuOptions, MatmulKind, Reduction};
use phi3_steer::phi3::{MAX_ROWS, Row};
use pollster::block_on;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Random numbers from a fresh seed, which is printed; `SEED` in the environment sets it.
pub fn seeded(test: &str) -> StdRng {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => rand::rng().random::<u64>(),
    };
    println!("{test}: SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Roughly normal numbers with a standard deviation of `spread`.
pub fn normal(rng: &mut StdRng, n: usize, spread: f32) -> Vec<f32> {
    (0..n)
        .map(|_| (0..3).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * spread)
        .collect()
}

/// The software adapter, or the machine's first one where `TEST_ADAPTER=gpu`, in the variants that `options`
/// ask for.
pub fn open(options: GpuOptions) -> Rc<Gpu> {
    let options = GpuOptions {
        cpu_adapter: std::env::var("TEST_ADAPTER").as_deref() != Ok("gpu"),
        ..options
    };
    match block_on(Gpu::open(&options)) {
        Ok(gpu) => Rc::new(gpu),
        Err(GpuError::NoAdapter { .. }) => panic!(
            "these tests need a software Vulkan adapter (Debian: mesa-vulkan-drivers libvulkan1)"
        ),
        Err(error) => panic!("{error}"),
    }
}

/// The adapter as the engine would open it.
pub fn plain() -> Rc<Gpu> {
    open(GpuOptions::default())
}

/// Devices that between them run every kernel in every variant that the adapter has: split sums and
/// tiles in both preludes and both reductions, one invocation a unit, and what CPU adapters with subgroups take.
pub fn variants() -> Vec<(&'static str, Rc<Gpu>)> {
    let has = plain();
    let has = has.capabilities();
    let few_and_many = |f16, reduction, few, many| GpuOptions {
        f16: Some(f16),
        half_products: Some(false),
        reduction: Some(reduction),
        few_rows: Some(few),
        many_rows: Some(many),
        ..GpuOptions::default()
    };
    use MatmulKind::{Block, Broadcast, Split, Thread, Tile};
    let mut all = vec![
        (
            "f32 shared split tile",
            open(few_and_many(false, Reduction::Shared, Split, Tile)),
        ),
        (
            "f32 shared thread block",
            open(few_and_many(false, Reduction::Shared, Thread, Block)),
        ),
    ];
    if let Some(4 | 8) = has.subgroup_size {
        all.push((
            "f32 shared broadcast",
            open(few_and_many(false, Reduction::Shared, Broadcast, Broadcast)),
        ));
    }
    match (has.has_f16, has.has_subgroups) {
        (true, true) => all.push((
            "f16 subgroup split tile",
            open(few_and_many(true, Reduction::Subgroup, Split, Tile)),
        )),
        (true, false) => all.push((
            "f16 shared thread tile",
            open(few_and_many(true, Reduction::Shared, Thread, Tile)),
        )),
        (false, true) => all.push((
            "f32 subgroup split tile",
            open(few_and_many(false, Reduction::Subgroup, Split, Tile)),
        )),
        (false, false) => {}
    }
    let small = matches!(has.subgroup_size, Some(4 | 8));
    for (lacks, what) in [
        (!has.has_f16, "f16"),
        (!has.has_subgroups, "subgroup"),
        (!small, "broadcast"),
    ] {
        if lacks {
            println!("{} has no {what} variants to test", has.name);
        }
    }
    all
}

/// Devices whose products compute in f16, in both reductions and on matrix units; none where the adapter has no f16.
pub fn half_variants() -> Vec<(&'static str, Rc<Gpu>)> {
    let has = plain();
    let has = has.capabilities();
    let half = |reduction| GpuOptions {
        half_products: Some(true),
        reduction: Some(reduction),
        few_rows: Some(MatmulKind::Split),
        many_rows: Some(match (reduction, has.has_matrices) {
            (Reduction::Subgroup, true) => MatmulKind::Matrices,
            _ => MatmulKind::Tile,
        }),
        ..GpuOptions::default()
    };
    let mut all = Vec::new();
    if has.has_f16 {
        all.push(("f16 products, shared", open(half(Reduction::Shared))));
    }
    if has.has_f16 && has.has_subgroups {
        all.push(("f16 products, subgroup", open(half(Reduction::Subgroup))));
    }
    all
}

/// Four bytes that are NaN as an f32, as two f16, and an absurd number as a u32.
pub const POISON: u32 = 0xffff_ffff;

/// A storage buffer that holds `data`.
pub fn put<T: bytemuck::Pod>(gpu: &Gpu, data: &[T]) -> Buffer {
    let buffer = gpu.storage("input", size_of_val(data) as u64).unwrap();
    gpu.write(&buffer, 0, data);
    buffer
}

/// A storage buffer of `words` times 4 bytes, all poison.
pub fn poisoned(gpu: &Gpu, words: usize) -> Buffer {
    put(gpu, &vec![POISON; words])
}

/// A pass's rows as the kernels see them.
pub fn put_rows(gpu: &Gpu, rows: &[Row]) -> Buffer {
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE;
    let bytes = 16 + MAX_ROWS * size_of::<Row>();
    let buffer = gpu.buffer("rows", bytes as u64, usage).unwrap();
    // What is past the count must not be used.
    gpu.write(&buffer, 0, &vec![POISON; bytes / 4]);
    gpu.write(&buffer, 0, &[rows.len() as u32]);
    gpu.write(&buffer, 16, rows);
    buffer
}

/// The first `count` elements of `buffer`.
pub fn get<T: bytemuck::Pod>(gpu: &Gpu, buffer: &Buffer, count: usize) -> Vec<T> {
    block_on(gpu.read_vec(buffer, 0, count)).unwrap()
}

/// Runs what `record` puts into a pass.
pub fn run(gpu: &Gpu, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    record(&mut pass);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    gpu.check().unwrap();
}

/// The largest difference over the largest magnitude of `wanted`; infinite if anything is not finite.
pub fn relative_error(got: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len(), "lengths differ");
    let scale = wanted.iter().fold(1e-30f64, |m, w| m.max(w.abs()));
    let worst = got.iter().zip(wanted).fold(0.0f64, |m, (g, w)| {
        let difference = (f64::from(*g) - w).abs();
        m.max(if difference.is_finite() {
            difference
        } else {
            f64::INFINITY
        })
    });
    worst / scale
}

/// Fails unless `got` is `wanted` within `tolerance` of its scale; returns the error.
pub fn assert_close(what: &str, got: &[f32], wanted: &[f64], tolerance: f64) -> f64 {
    let error = relative_error(got, wanted);
    assert!(
        error <= tolerance,
        "{what}: off by {error:.2e} of the scale, {tolerance:.0e} allowed"
    );
    error
}

/// Fails unless all of `words` are still poison.
pub fn assert_untouched(what: &str, words: &[u32]) {
    if let Some(at) = words.iter().position(|w| *w != POISON) {
        panic!("{what}: word {at} of {} was written", words.len());
    }
}
