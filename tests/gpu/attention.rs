//! Attention over ragged lanes, in one piece and in splits.

use half::f16;
use phi3_steer::gpu::{Access, Buffer, Gpu, Kernel, KernelDescriptor, shaders};
use phi3_steer::phi3::{AttentionGrid, CacheFormat, Row, attention_kernel};
use rand::{Rng, rngs::StdRng};

use crate::reference::attend;
use crate::support::*;

const SPLITS: usize = 16;

/// The two kernels, as the engine has them.
struct Kernels {
    attention: Kernel,
    merge: Kernel,
}

impl Kernels {
    fn new(gpu: &Gpu, cache: CacheFormat, head_dim: usize) -> Self {
        let merge = KernelDescriptor {
            label: "merge",
            parts: &[shaders::ROWS, shaders::ATTENTION_MERGE],
            constants: &[],
            bindings: &[
                (0, Access::Read),
                (3, Access::Uniform),
                (4, Access::Write),
                (5, Access::Uniform),
            ],
        };
        Self {
            attention: attention_kernel(gpu, cache, head_dim),
            merge: gpu.kernel(&merge),
        }
    }
}

/// Keys or values `[lanes, kv_heads, capacity, head_dim]`, position p in cell p % capacity, NaN where no row looks.
struct Cache {
    values: Vec<f64>,
    buffer: Buffer,
}

impl Cache {
    fn new(
        gpu: &Gpu,
        rng: &mut StdRng,
        format: CacheFormat,
        sizes: [usize; 4],
        seen: &[std::ops::Range<usize>],
    ) -> Self {
        let [lanes, kv_heads, capacity, head_dim] = sizes;
        let mut values = vec![f32::NAN; lanes * kv_heads * capacity * head_dim];
        for (strip, of_strip) in values.chunks_exact_mut(capacity * head_dim).enumerate() {
            for position in seen[strip / kv_heads].clone() {
                of_strip[position % capacity * head_dim..][..head_dim]
                    .copy_from_slice(&normal(rng, head_dim, 1.0));
            }
        }
        let buffer = match format {
            CacheFormat::F32 => put(gpu, &values),
            CacheFormat::F16 => {
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                values = halves.iter().map(|h| h.to_f32()).collect();
                put(gpu, &halves)
            }
        };
        Self {
            values: values.into_iter().map(f64::from).collect(),
            buffer,
        }
    }
}

/// One shape of attention.
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    /// Cells of a lane's head; a few more than there are positions if none.
    cells: Option<usize>,
    /// The size of queries: large ones make sharp weights.
    size: f32,
    /// (lane, position) of each row.
    rows: Vec<(usize, usize)>,
}

fn check(
    gpu: &Gpu,
    name: &str,
    rng: &mut StdRng,
    kernels: &Kernels,
    format: CacheFormat,
    case: &Case,
) -> f64 {
    let Case {
        heads,
        kv_heads,
        head_dim,
        ..
    } = *case;
    let lanes = case.rows.iter().map(|r| r.0 + 1).max().unwrap();
    let positions = case.rows.iter().map(|r| r.1 + 1).max().unwrap();
    let capacity = case.cells.unwrap_or(positions + 3);
    let window = case.window.unwrap_or(usize::MAX);
    let start = |position: usize| (position + 1).saturating_sub(window);
    // What the rows of each lane see.
    let seen: Vec<_> = (0..lanes)
        .map(|lane| {
            let of_lane = || case.rows.iter().filter(move |r| r.0 == lane).map(|r| r.1);
            of_lane().map(start).min().unwrap_or(0)..of_lane().map(|p| p + 1).max().unwrap_or(0)
        })
        .collect();
    let sizes = [lanes, kv_heads, capacity, head_dim];
    let keys = Cache::new(gpu, rng, format, sizes, &seen);
    let values = Cache::new(gpu, rng, format, sizes, &seen);
    let q = normal(rng, case.rows.len() * heads * head_dim, case.size);
    let width = heads * head_dim;
    let mut wanted = Vec::new();
    for (&(lane, position), queries) in case.rows.iter().zip(q.chunks_exact(width)) {
        for (head, query) in queries.chunks_exact(head_dim).enumerate() {
            let query: Vec<f64> = query.iter().map(|v| f64::from(*v)).collect();
            let strip = (lane * kv_heads + head / (heads / kv_heads)) * capacity;
            let seen = |values: &[f64]| -> Vec<f64> {
                let cells = (start(position)..=position).map(|p| (strip + p % capacity) * head_dim);
                cells
                    .flat_map(|at| values[at..][..head_dim].to_vec())
                    .collect()
            };
            wanted.extend(attend(&query, &seen(&keys.values), &seen(&values.values)));
        }
    }

    let rows: Vec<Row> = case
        .rows
        .iter()
        .map(|&(lane, position)| Row {
            token: 0,
            lane: lane as u32,
            position: position as u32,
            flags: 0,
        })
        .collect();
    let (q, rows_buffer) = (put(gpu, &q), put_rows(gpu, &rows));
    let pairs = head_dim / 2;
    let scale = ((head_dim as f64).sqrt().recip() as f32).to_bits();
    let count = rows.len();
    let mut worst = 0.0f64;
    for splits in [1, SPLITS] {
        let shape = gpu.uniform(
            "shape",
            &[
                heads as u32,
                kv_heads as u32,
                pairs as u32,
                capacity as u32,
                u32::try_from(window).unwrap_or(u32::MAX),
                splits as u32,
                scale,
                0,
            ],
        );
        let merge_shape = gpu.uniform("shape", &[heads as u32, pairs as u32, splits as u32, 0]);
        let out = poisoned(gpu, (count + 2) * width);
        let partials = poisoned(gpu, count * heads * splits * (pairs + 1) * 2);
        let to = if splits == 1 { &out } else { &partials };
        let step = kernels.attention.bind(
            gpu,
            &[
                (0, &q),
                (1, &keys.buffer),
                (2, &values.buffer),
                (3, &shape),
                (4, to),
                (5, &rows_buffer),
            ],
        );
        let merge = kernels.merge.bind(
            gpu,
            &[
                (0, &partials),
                (3, &merge_shape),
                (4, &out),
                (5, &rows_buffer),
            ],
        );
        run(gpu, |pass| {
            // One more row in the grid than in the pass.
            let grid = AttentionGrid::new(gpu, heads as u32);
            step.dispatch(pass, grid.of(count as u32 + 1, splits as u32));
            if splits > 1 {
                let across = (pairs as u32).div_ceil(64);
                merge.dispatch(pass, [across, heads as u32, count as u32 + 1]);
            }
        });
        let what = format!(
            "{name}, {format:?} cache, {heads}/{kv_heads} heads of {head_dim}, window {:?}, {count} rows up to {capacity}, {splits} splits",
            case.window
        );
        let beyond: Vec<u32> = get(gpu, &out, (count + 2) * width);
        assert_untouched(&what, &beyond[count * width..]);
        let got: Vec<f32> = get(gpu, &out, count * width);
        for (got, wanted) in got
            .chunks_exact(head_dim)
            .zip(wanted.chunks_exact(head_dim))
        {
            worst = worst.max(assert_close(&what, got, wanted, 3e-5));
        }
    }
    worst
}

#[test]
fn ragged_lanes_windows_and_head_sizes() {
    let mut rng = seeded("attention");
    let mut worst = 0.0f64;
    for (name, gpu) in variants() {
        for format in [CacheFormat::F32, CacheFormat::F16] {
            for (heads, kv_heads, head_dim, window) in [
                (2, 2, 64, None),
                (4, 2, 80, Some(1)),
                (3, 1, 96, Some(64)),
                (2, 1, 128, Some(65)),
                (4, 4, 96, None),
                (1, 1, 2, Some(7)),
                (2, 2, 256, None),
                (2, 2, 32, Some(90)),
                (4, 1, 160, None),
            ] {
                let kernels = Kernels::new(&gpu, format, head_dim);
                // A chunk of one lane, and single tokens of others, the first position among them.
                let from = rng.random_range(0..70);
                let mut rows: Vec<(usize, usize)> = (from..from + 3).map(|p| (1, p)).collect();
                rows.extend([(0, 0), (2, 63), (3, rng.random_range(60..140))]);
                let case = Case {
                    heads,
                    kv_heads,
                    head_dim,
                    window,
                    cells: None,
                    size: [1.0, 12.0][rng.random_range(0..2)],
                    rows,
                };
                worst = worst.max(check(&gpu, name, &mut rng, &kernels, format, &case));
            }
        }
    }
    println!("attention: off by at most {worst:.1e} of the scale");
}

#[test]
fn long_caches_in_splits() {
    let mut rng = seeded("long attention");
    for (name, gpu) in variants() {
        let kernels = Kernels::new(&gpu, CacheFormat::F16, 96);
        for window in [None, Some(700)] {
            let case = Case {
                heads: 2,
                kv_heads: 1,
                head_dim: 96,
                window,
                cells: None,
                size: 3.0,
                rows: vec![(0, 1024 + rng.random_range(0..200)), (1, 511), (2, 3)],
            };
            check(&gpu, name, &mut rng, &kernels, CacheFormat::F16, &case);
        }
    }
}

#[test]
fn caches_that_go_round() {
    let mut rng = seeded("rings");
    for (name, gpu) in variants() {
        for (format, head_dim) in [
            (CacheFormat::F32, 80),
            (CacheFormat::F16, 96),
            (CacheFormat::F16, 22),
        ] {
            let kernels = Kernels::new(&gpu, format, head_dim);
            for window in [1, rng.random_range(2..64), rng.random_range(65..300)] {
                let chunk = rng.random_range(1..9);
                // A chunk that lies anywhere, one that goes on at the first cell, a lane that has just begun.
                let cells = window + chunk - 1 + rng.random_range(0..3);
                let from = rng.random_range(0..4 * cells);
                let mut rows: Vec<(usize, usize)> = (from..from + chunk).map(|p| (1, p)).collect();
                rows.extend([(0, 0), (2, cells - 1), (3, cells), (4, 3 * cells)]);
                let case = Case {
                    heads: 2,
                    kv_heads: 1,
                    head_dim,
                    window: Some(window),
                    cells: Some(cells),
                    size: 3.0,
                    rows,
                };
                check(&gpu, name, &mut rng, &kernels, format, &case);
            }
        }
    }
}
