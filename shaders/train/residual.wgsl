// Kernel: what a list of active latents leaves of its goal,
// goal - b_dec - sum of activation * decoder row; b_dec where CENTRED alone.
//
// goal [rows, width], codes [rows, k] (latent, f32 bits) -> out [rows, width]. One invocation computes
// 4 elements. Grid: (ceil(width/4 / 64), rows).
struct ResidualShape {
    width4: u32, // width / 4
    k: u32,
    latents: u32,
    unused0: u32,
}

override CENTRED: bool = false;

@group(0) @binding(0) var<storage, read> codes: array<vec2u>; // [rows, k]; empty slots hold 0xffffffff
@group(0) @binding(1) var<storage, read> goal: array<vec4f>; // [rows, width/4]
@group(0) @binding(2) var<storage, read> decoder: array<vec4f>; // [latents, width/4]
@group(0) @binding(3) var<uniform> shape: ResidualShape;
@group(0) @binding(4) var<storage, read> b_dec: array<vec4f>; // [width/4]
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [rows, width/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= shape.width4 {
        return;
    }
    let at = id.y * shape.width4 + id.x;
    var rest = goal[at];
    if CENTRED {
        rest -= b_dec[id.x];
    }
    for (var slot = 0u; slot < shape.k; slot++) {
        let entry = codes[id.y * shape.k + slot];
        if entry.x < shape.latents {
            rest -= bitcast<f32>(entry.y) * decoder[entry.x * shape.width4 + id.x];
        }
    }
    out[at] = rest;
}
