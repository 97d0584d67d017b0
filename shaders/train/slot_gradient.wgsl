// Kernel: the loss's gradient by each listed activation, factor * (residual . decoder row).
//
// codes [rows, k] (latent, f32 bits), residual [rows, width] -> out [rows, k]; 0 in empty slots. One
// invocation a slot. Grid: (ceil(rows * k / 64)), folded into x and y.
struct SlotShape {
    width4: u32, // width / 4
    k: u32,
    latents: u32,
    slots: u32, // rows * k
    factor: f32, // -2 over what the squared error is divided by
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<storage, read> codes: array<vec2u>; // [rows, k]; empty slots hold 0xffffffff
@group(0) @binding(1) var<storage, read> residual: array<vec4f>; // [rows, width/4]
@group(0) @binding(2) var<storage, read> decoder: array<vec4f>; // [latents, width/4]
@group(0) @binding(3) var<uniform> shape: SlotShape;
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [rows, k]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let slot = id.y * grid.x * 64u + id.x;
    if slot >= shape.slots {
        return;
    }
    let latent = codes[slot].x;
    if latent >= shape.latents {
        out[slot] = 0.0;
        return;
    }
    let row = slot / shape.k;
    var sum = 0.0;
    for (var i = 0u; i < shape.width4; i++) {
        sum += dot(residual[row * shape.width4 + i], decoder[latent * shape.width4 + i]);
    }
    out[slot] = shape.factor * sum;
}
