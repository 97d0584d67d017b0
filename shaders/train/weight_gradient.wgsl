// Kernel: the loss's gradient by the encoder and the decoder, from the rows in which a latent was active.
//
//   decoder gradient [latent] = sum of decoder factor * residual [row]
//   encoder gradient [latent] = sum of encoder factor * (x [row] - b_dec)
//
// The uses of all latents lie one after another; latent j's are starts[j] to starts[j + 1]. A use's row has
// AUXILIARY set where it is the auxiliary loss's, whose residual is another. One invocation computes 4
// elements of both. Grid: (ceil(width/4 / 64), latents), the latents folded into y and z.
struct GradientShape {
    width4: u32, // width / 4
    latents: u32,
    unused0: u32,
    unused1: u32,
}

const AUXILIARY: u32 = 0x80000000u;

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, width/4]
@group(0) @binding(1) var<storage, read> uses: array<vec4u>; // (row, decoder factor, encoder factor, 0)
@group(0) @binding(2) var<storage, read> starts: array<u32>; // [latents + 1]
@group(0) @binding(3) var<uniform> shape: GradientShape;
@group(0) @binding(4) var<storage, read> b_dec: array<vec4f>; // [width/4]
@group(0) @binding(5) var<storage, read> residual: array<vec4f>; // [rows, width/4]
@group(0) @binding(6) var<storage, read> auxiliary: array<vec4f>; // [rows, width/4]
@group(0) @binding(7) var<storage, read_write> by_encoder: array<vec4f>; // [latents, width/4]
@group(0) @binding(8) var<storage, read_write> by_decoder: array<vec4f>; // [latents, width/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let latent = id.z * grid.y + id.y;
    if id.x >= shape.width4 || latent >= shape.latents {
        return;
    }
    let offset = b_dec[id.x];
    var encoder = vec4f(0.0);
    var decoder = vec4f(0.0);
    for (var i = starts[latent]; i < starts[latent + 1u]; i++) {
        let use_of = uses[i];
        let at = (use_of.x & ~AUXILIARY) * shape.width4 + id.x;
        if (use_of.x & AUXILIARY) == 0u {
            decoder += bitcast<f32>(use_of.y) * residual[at];
        } else {
            decoder += bitcast<f32>(use_of.y) * auxiliary[at];
        }
        encoder += bitcast<f32>(use_of.z) * (x[at] - offset);
    }
    by_encoder[latent * shape.width4 + id.x] = encoder;
    by_decoder[latent * shape.width4 + id.x] = decoder;
}
