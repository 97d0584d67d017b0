// Kernel: a sparse autoencoder's activations, encoder (x - b) and each latent's rule.
//
// x [rows, hidden] -> out [rows, latents]. For TopK these are the values that the largest are taken of.
// Units: pairs of neighbouring latents. The matrix holds the latents from shape.first on, of shape.inner
// in all.
//
//   plain  f = max(q + bias, 0) scale, where q + bias > threshold
//   gated  f = max(q slope + magnitude bias, 0), where q + gate bias > 0

// [matrix_rows] (bias, threshold, scale, 0), or for gated ones (gate bias, slope, magnitude bias, 1)
@group(0) @binding(6) var<storage, read> latents: array<vec4f>;
@group(0) @binding(7) var<storage, read_write> out: array<f32>; // [rows, latents]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(2u * unit, 2u * unit + 1u);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn activation(latent: u32, q: f32) -> f32 {
    let p = latents[latent];
    let biased = q + p.x;
    if p.w == 1.0 {
        return select(0.0, max(q * p.y + p.z, 0.0), biased > 0.0);
    }
    return select(0.0, max(biased, 0.0) * p.z, biased > p.y);
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let at = row * shape.inner + shape.first + 2u * unit;
    out[at] = activation(2u * unit, y.x);
    if 2u * unit + 1u < shape.matrix_rows {
        out[at + 1u] = activation(2u * unit + 1u, y.y);
    }
}
