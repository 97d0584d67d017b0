// Kernel: a dictionary's pre-activations while it is trained, encoder (x - b_dec) + bias.
//
// x [rows, width] -> out [rows, latents]. Units: pairs of neighbouring latents.
@group(0) @binding(6) var<storage, read> bias: array<f32>; // [latents]
@group(0) @binding(7) var<storage, read_write> out: array<f32>; // [rows, latents]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(2u * unit, 2u * unit + 1u);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let latent = 2u * unit;
    let at = row * shape.matrix_rows + latent;
    out[at] = y.x + bias[latent];
    if latent + 1u < shape.matrix_rows {
        out[at + 1u] = y.y + bias[latent + 1u];
    }
}
