//! The attention kernels.

use super::CacheFormat;
use crate::gpu::{Access, Gpu, Kernel, KernelDescriptor, MatmulKind, shaders};

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

/// The kernel of attention over a cache of `cache` with heads of `head_dim` elements: the wide one where they fit it,
/// unless the device computes an invocation a unit.
pub fn attention_kernel(gpu: &Gpu, cache: CacheFormat, head_dim: usize) -> Kernel {
    let fits = head_dim.is_multiple_of(32) && head_dim <= 256 && cache == CacheFormat::F16;
    let quads = head_dim / 8;
    let (text, constants) = match fits && gpu.capabilities().few_rows != MatmulKind::Thread {
        true => (
            shaders::ATTENTION_WIDE,
            vec![
                ("WG", f64::from(WIDE_INVOCATIONS)),
                ("QUADS", quads as f64),
                ("COLUMNS", quads.next_power_of_two() as f64),
            ],
        ),
        false => (shaders::ATTENTION, vec![("WG", f64::from(INVOCATIONS))]),
    };
    gpu.kernel(&KernelDescriptor {
        label: "attention",
        parts: &[shaders::ROWS, gpu.reduction_part(), cache.part(), text],
        constants: &constants,
        bindings: BINDINGS,
    })
}
