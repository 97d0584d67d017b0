// Kernel: pre-activations of dead latents alone, those of all others zero, in place.
//
// pre [rows, latents] f32. Grid: (ceil(latents / 64), rows).
struct KeepShape {
    latents: u32,
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<storage, read_write> pre: array<f32>; // [rows, latents]
@group(0) @binding(1) var<storage, read> dead: array<u32>; // [latents] 1 where dead
@group(0) @binding(3) var<uniform> shape: KeepShape;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < shape.latents && dead[id.x] == 0u {
        pre[id.y * shape.latents + id.x] = 0.0;
    }
}
