// Kernel: the loss's gradient by b_dec, which is added to every reconstruction and subtracted from every
// input: factor * sum of the residuals - sum of bias gradient * encoder row.
//
// residual [rows, width], by_bias [latents], encoder [latents, width] -> out [width]. One workgroup of WG
// invocations for 4 elements. Grid: (width/4).
struct OffsetShape {
    width4: u32, // width / 4
    rows: u32,
    latents: u32,
    factor: f32, // -2 over what the squared error is divided by
}

@group(0) @binding(0) var<storage, read> residual: array<vec4f>; // [rows, width/4]
@group(0) @binding(1) var<storage, read> by_bias: array<f32>; // [latents]
@group(0) @binding(2) var<storage, read> encoder: array<vec4f>; // [latents, width/4]
@group(0) @binding(3) var<uniform> shape: OffsetShape;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [width/4]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let column = workgroup.x;
    var part = vec4f(0.0);
    for (var row = tid; row < shape.rows; row += WG) {
        part += shape.factor * residual[row * shape.width4 + column];
    }
    for (var latent = tid; latent < shape.latents; latent += WG) {
        part -= by_bias[latent] * encoder[latent * shape.width4 + column];
    }
    let sums = reduce_sum(part, tid);
    if tid == 0u {
        out[column] = sums;
    }
}
