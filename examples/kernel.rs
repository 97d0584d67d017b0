//! A kernel of your own on the engine's GPU: `cargo run --release --example kernel`

use std::error::Error;

use phi3_steer::gpu::{Access, Gpu, GpuOptions, KernelDescriptor};

/// `y += a * x`, one element an invocation.
const AXPY: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>; // [n]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [n]
override a: f32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&y)) {
    y[id.x] += a * x[id.x];
  }
}
";

/// `y + a * x`.
pub async fn axpy(a: f32, x: &[f32], y: &[f32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let gpu = Gpu::open(&GpuOptions::default()).await?;
    let kernel = gpu.kernel(&KernelDescriptor {
        label: "axpy",
        parts: &[AXPY],
        constants: &[("a", a.into())],
        bindings: &[(0, Access::Read), (1, Access::Write)],
    });
    let bytes = size_of_val(y) as u64;
    let [of_x, of_y] = [gpu.storage("x", bytes)?, gpu.storage("y", bytes)?];
    gpu.write(&of_x, 0, x);
    gpu.write(&of_y, 0, y);
    let step = kernel.bind(&gpu, &[(0, &of_x), (1, &of_y)]);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    step.dispatch(&mut pass, [y.len().div_ceil(64) as u32, 1, 1]);
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    Ok(gpu.read_vec(&of_y, 0, y.len()).await?)
}

#[allow(dead_code, reason = "the tests run what is above")]
fn main() -> Result<(), Box<dyn Error>> {
    let sum = pollster::block_on(axpy(2.0, &[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0]))?;
    println!("{sum:?}");
    Ok(())
}
