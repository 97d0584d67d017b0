// GEMV skeleton that splits K over a workgroup: WG invocations compute one unit for ROW_TILE
// activation rows and combine their sums. Grid: (units folded, ceil(rows / ROW_TILE)), where the units
// are folded into x and z because a grid's side is at most 65,535.
@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) tid: u32,
) {
    let unit = workgroup.z * grid.x + workgroup.x;
    let row = workgroup.y * ROW_TILE;
    // Uniform over the workgroup.
    if unit >= shape.units || row >= rows.count {
        return;
    }
    let matrix = matrix_rows_of(unit);
    let inputs = inputs_of(row);
    for (var group = tid; group < shape.groups; group += WG) {
        add_group(matrix, group, inputs);
    }
    if ROW_TILE > 2u {
        let low = reduce_sum(vec4f(sum0, sum1), tid);
        let high = reduce_sum(vec4f(sum2, sum3), tid);
        sum0 = low.xy;
        sum1 = low.zw;
        sum2 = high.xy;
        sum3 = high.zw;
        if PROLOGUE == PROLOGUE_NORM {
            squares = reduce_sum(squares, tid);
        }
    } else if ROW_TILE > 1u {
        let both = reduce_sum(vec4f(sum0, sum1), tid);
        sum0 = both.xy;
        sum1 = both.zw;
        if PROLOGUE == PROLOGUE_NORM {
            squares = reduce_sum(squares, tid);
        }
    } else {
        // One activation row: its sum of squares travels along.
        let all = reduce_sum(vec4f(sum0, squares.x, 0.0), tid);
        sum0 = all.xy;
        squares.x = all.z;
    }
    if tid == 0u {
        finish_tile(unit, row);
    }
}
