// Kernel: a projection added to the residual stream (attention output, MLP down).
//
// x [rows, K] -> residual [rows, matrix_rows] += w x. Units: pairs of neighbouring matrix rows.
@group(0) @binding(6) var<storage, read_write> residual: array<f32>; // [rows, matrix_rows]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(2u * unit, 2u * unit + 1u);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let at = row * shape.matrix_rows + 2u * unit;
    residual[at] += y.x;
    if 2u * unit + 1u < shape.matrix_rows {
        residual[at + 1u] += y.y;
    }
}
