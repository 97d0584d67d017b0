// Kernel: the MLP's fused gate and up projections with RMSNorm and SwiGLU.
//
// x [rows, hidden] -> out [rows, inner] = silu(gate) * up. The matrix's rows are gate [inner], up
// [inner]. A unit is the pair (i, inner + i).
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [rows, inner]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(unit, shape.inner + unit);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    // exp of a large argument overflows to infinity, which gives the right limit, zero.
    out[row * shape.inner + unit] = y.x / (1.0 + exp(min(-y.x, 88.0))) * y.y;
}
