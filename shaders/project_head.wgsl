// Kernel: the language-model head with the final RMSNorm.
//
// x [activation rows, hidden] -> out [lanes, vocab]: row r of the pass reads activation row row.x and
// writes the logits of lane row.y. The matrix holds the tokens shape.first .. shape.first +
// shape.matrix_rows of shape.inner. Units: pairs of neighbouring tokens.
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [lanes, vocab]

fn rows_of(unit: u32) -> vec2u {
    return vec2u(2u * unit, 2u * unit + 1u);
}

fn input_row(row: u32) -> u32 {
    return rows.row[row].x;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let at = rows.row[row].y * shape.inner + shape.first + 2u * unit;
    out[at] = y.x;
    if 2u * unit + 1u < shape.matrix_rows {
        out[at + 1u] = y.y;
    }
}
