// Kernel: a sparse autoencoder's reconstruction, b_dec + sum of activation * decoder row.
//
// features [rows, k] (latent, f32 bits) -> out [rows, hidden]. A dictionary's decoder may lie in several
// buffers; one dispatch adds the latents of one of them, in the order of the list, and the first begins
// with b_dec. One invocation computes 4 elements. Grid: (ceil(hidden/4 / 64), rows).
struct DecodeShape {
    hidden4: u32, // hidden / 4
    k: u32,
    first: u32, // the first latent of this decoder buffer
    count: u32, // how many latents it holds
}

@group(0) @binding(0) var<storage, read> features: array<vec2u>; // [rows, k]
@group(0) @binding(1) var<storage, read> decoder: array<vec4f>; // [count, hidden/4]
@group(0) @binding(3) var<uniform> shape: DecodeShape;
@group(0) @binding(4) var<storage, read> b_dec: array<vec4f>; // [hidden/4]
@group(0) @binding(5) var<uniform> rows: Rows;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [rows, hidden/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if id.x >= shape.hidden4 || row >= rows.count {
        return;
    }
    let at = row * shape.hidden4 + id.x;
    var sum = b_dec[id.x];
    if shape.first > 0u {
        sum = out[at];
    }
    for (var i = 0u; i < shape.k; i++) {
        let feature = features[row * shape.k + i];
        // Latents before `first` wrap around; empty slots are past any buffer's end.
        let local = feature.x - shape.first;
        if local < shape.count {
            sum += bitcast<f32>(feature.y) * decoder[local * shape.hidden4 + id.x];
        }
    }
    out[at] = sum;
}
