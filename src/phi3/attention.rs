//! The attention kernels.

use super::CacheFormat;
use crate::gpu::{Access, Gpu, Grid, Kernel, KernelDescriptor, shaders};

/// Invocations of a workgroup of the plain kernel.
const INVOCATIONS: u32 = 64;
/// Invocations of a workgroup of the wide kernel, two a position of its tiles.
const WIDE_INVOCATIONS: u32 = 128;

const BINDINGS: &[(u32, Access)] = &[
    (0, Access::Read),
    (1, Access::Read),
    (2, Access::Read),
    (3, Access::Uniform),
    (4, Access::Write),
    (5, Access::Uniform),
];

/// Heads of rows of a workgroup of the kernel without barriers, an invocation each.
const THREADS: u32 = 16;

/// Whether the device computes attention an invocation a head of a row.
fn by_thread(gpu: &Gpu) -> bool {
    gpu.capabilities().without_barriers()
}

/// The kernel of attention over a cache of `cache` with heads of `head_dim` elements: the one without barriers where
/// the device computes an invocation a unit, else the wide one where they fit it.
pub fn attention_kernel(gpu: &Gpu, cache: CacheFormat, head_dim: usize) -> Kernel {
    let wide = head_dim.is_multiple_of(32) && head_dim <= 256 && cache == CacheFormat::F16;
    let quads = head_dim / 8;
    let (text, constants) = if by_thread(gpu) {
        (shaders::ATTENTION_THREAD, vec![])
    } else if wide {
        let constants = vec![
            ("WG", f64::from(WIDE_INVOCATIONS)),
            ("QUADS", quads as f64),
            ("COLUMNS", quads.next_power_of_two() as f64),
        ];
        (shaders::ATTENTION_WIDE, constants)
    } else {
        (shaders::ATTENTION, vec![("WG", f64::from(INVOCATIONS))])
    };
    let mut parts = vec![shaders::ROWS, cache.part(), shaders::ATTENTION_SHAPE];
    if !by_thread(gpu) {
        parts.push(gpu.reduction_part());
    }
    parts.push(text);
    gpu.kernel(&KernelDescriptor {
        label: "attention",
        parts: &parts,
        constants: &constants,
        bindings: BINDINGS,
    })
}

/// The grids of that kernel.
#[derive(Clone, Copy)]
pub struct AttentionGrid {
    /// Query heads of a row.
    pub heads: u32,
    by_thread: bool,
}

impl AttentionGrid {
    /// Those of rows of `heads` query heads.
    pub fn new(gpu: &Gpu, heads: u32) -> Self {
        Self {
            heads,
            by_thread: by_thread(gpu),
        }
    }

    /// The grid of `rows` rows whose positions are read in `splits` pieces.
    pub fn of(&self, rows: u32, splits: u32) -> Grid {
        match self.by_thread {
            true => [(rows * self.heads).div_ceil(THREADS), 1, splits],
            false => [self.heads, rows, splits],
        }
    }
}
