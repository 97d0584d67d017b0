// GEMV skeleton without barriers: one invocation computes one unit for ROW_TILE activation rows.
// Fastest on CPU adapters. Grid: (ceil(units / 64), ceil(rows / ROW_TILE)).
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let unit = id.x;
    let row = id.y * ROW_TILE;
    if unit >= shape.units || row >= rows.count {
        return;
    }
    let matrix = matrix_rows_of(unit);
    let inputs = inputs_of(row);
    for (var group = 0u; group < shape.groups; group++) {
        add_group(matrix, group, inputs);
    }
    finish_tile(unit, row);
}
