//! What a dispatch and a byte cost, whatever is computed.

use std::fmt;

use serde::Serialize;

use super::seconds_of;
use crate::gpu::{Access, Gpu, GpuError, KernelDescriptor};

/// Dispatches that are recorded at a time.
const DISPATCHES: u32 = 100;
/// Bytes that are copied and read.
const BYTES: u64 = 64 << 20;
/// Workgroups of the reading kernel.
const WORKGROUPS: u32 = 1024;

/// Waits for what the dispatch before has written.
const DEPENDENT: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x == 0xffffffffu {
        out[0] = 1u;
    }
}";

/// Waits for nothing.
const INDEPENDENT: &str = "
@group(0) @binding(0) var<storage, read> out: array<u32>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if out[0] == id.x + 0x7fffffffu {
        return;
    }
}";

/// Reads everything once, four loads in flight.
const READS: &str = "
@group(0) @binding(0) var<storage, read> data: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let all = arrayLength(&data);
    let apart = grid.x * 256u;
    var seen = vec4u(0u);
    for (var i = id.x; i < all; i += 4u * apart) {
        seen ^= data[i] ^ data[min(i + apart, all - 1u)] ^ data[min(i + 2u * apart, all - 1u)]
            ^ data[min(i + 3u * apart, all - 1u)];
    }
    if (seen.x ^ seen.y ^ seen.z ^ seen.w) == 0x9e3779b9u {
        out[0] = 1u;
    }
}";

/// What a dispatch and a byte cost.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Seconds of a dispatch after one that writes what it is bound to.
    pub dependent_dispatch_seconds: f64,
    /// Seconds of a dispatch that waits for nothing.
    pub dispatch_seconds: f64,
    /// Bytes a second that a kernel reads which does nothing else.
    pub read_bytes_a_second: f64,
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "A dispatch costs {:.2} us after one that writes, {:.2} us else; 64 MiB are read at {:.1} GB/s (where they \
             fit the GPU's cache, from there).",
            self.dependent_dispatch_seconds * 1e6,
            self.dispatch_seconds * 1e6,
            self.read_bytes_a_second / 1e9
        )
    }
}

impl Floor {
    /// Measures it on a device.
    pub async fn measure(gpu: &Gpu) -> Result<Self, GpuError> {
        let small = gpu.storage("a few bytes", 1 << 10)?;
        let mut cost = [0.0; 2];
        for (cost, (text, access)) in cost
            .iter_mut()
            .zip([(DEPENDENT, Access::Write), (INDEPENDENT, Access::Read)])
        {
            let kernel = gpu.kernel(&KernelDescriptor {
                label: "nothing",
                parts: &[text],
                constants: &[],
                bindings: &[(0, access)],
            });
            let step = kernel.bind(gpu, &[(0, &small)]);
            let many = |pass: &mut wgpu::ComputePass<'_>| {
                (0..DISPATCHES).for_each(|_| step.dispatch(pass, [1, 1, 1]));
            };
            *cost = seconds_of(gpu, &many).await? / f64::from(DISPATCHES);
        }
        let data = gpu.storage("bytes to read", BYTES)?;
        let kernel = gpu.kernel(&KernelDescriptor {
            label: "reads",
            parts: &[READS],
            constants: &[],
            bindings: &[(0, Access::Read), (1, Access::Write)],
        });
        let step = kernel.bind(gpu, &[(0, &data), (1, &small)]);
        let reads = seconds_of(gpu, &|pass| step.dispatch(pass, [WORKGROUPS, 1, 1])).await?;
        gpu.settle().await?;
        Ok(Self {
            dependent_dispatch_seconds: cost[0],
            dispatch_seconds: cost[1],
            read_bytes_a_second: BYTES as f64 / reads,
        })
    }
}
