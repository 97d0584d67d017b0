// Kernel: a sparse autoencoder's pre-activations, encoder (x - b_dec) + bias.
//
// x [rows, hidden] -> out [rows, latents]. Units: pairs of neighbouring latents. The matrix holds the
// latents from shape.first on, of shape.inner in all.
@group(0) @binding(6) var<storage, read> bias: array<f32>; // [matrix_rows]
@group(0) @binding(7) var<storage, read_write> out: array<f32>; // [rows, latents]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(2u * unit, 2u * unit + 1u);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let at = row * shape.inner + shape.first + 2u * unit;
    out[at] = y.x + bias[2u * unit];
    if 2u * unit + 1u < shape.matrix_rows {
        out[at + 1u] = y.y + bias[2u * unit + 1u];
    }
}
