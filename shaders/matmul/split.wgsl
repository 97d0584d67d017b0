// GEMV skeleton that splits K over a team of invocations: a workgroup stages the activations, then each of
// its teams of TEAM computes UNITS neighbouring units for ROW_TILE activation rows, TEAM groups of 32 of K at a
// step, and adds up. Grid: (workgroups folded, ceil(rows / ROW_TILE)), where the workgroups, of WG / TEAM * UNITS
// units each, are folded into x and z because a grid's side is at most 65,535.
//
// The twin of the arithmetic says how activations are staged and what a group adds to the sums.
override WG: u32 = 64u;
override TEAM: u32 = 32u; // a power of two, at most WG
override UNITS: u32 = 1u; // 1 or 2
override STEPS: u32 = 1u; // ceil(groups / TEAM)
override CHUNK: u32 = 1u; // steps whose activations are staged at a time
override PITCH: u32 = 33u; // CHUNK * TEAM + 1: odd, so that neighbours lie in different banks
override RAGGED: bool = true; // whether the groups are no multiple of CHUNK * TEAM
override TEAMS: u32 = 2u; // WG / TEAM

// Of each team. Workgroup memory is dear: what a workgroup takes decides how many run side by side.
var<workgroup> team_squares: array<vec4f, TEAMS>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) tid: u32,
) {
    let first = (workgroup.z * grid.x + workgroup.x) * TEAMS * UNITS;
    let row = workgroup.y * ROW_TILE;
    // Uniform over the workgroup.
    if first >= shape.units || row >= rows.count {
        return;
    }
    let unit = first + tid / TEAM * UNITS;
    let lane = tid % TEAM;
    let matrix = vec4u(matrix_rows_of(unit), matrix_rows_of(unit + 1u));
    let inputs = inputs_of(row);
    for (var step = 0u; step < STEPS; step += CHUNK) {
        let base = step * TEAM;
        let count = min(CHUNK * TEAM, shape.groups - base);
        if step > 0u {
            workgroupBarrier();
        }
        stage(inputs, base, count, tid);
        workgroupBarrier();
        for (var i = 0u; i < CHUNK; i++) {
            let group = i * TEAM + lane;
            if !RAGGED || group < count {
                add_group(matrix, base, group);
            }
        }
    }
    if PROLOGUE == PROLOGUE_NORM {
        squares = team_sum(squares, tid);
        if lane == 0u {
            team_squares[tid / TEAM] = squares;
        }
        workgroupBarrier();
        squares = vec4f(0.0);
        for (var i = 0u; i < TEAMS; i++) {
            squares += team_squares[i];
        }
    }
    sum0 = team_sum(sum0, tid);
    if ROW_TILE > 1u {
        sum1 = team_sum(sum1, tid);
    }
    if ROW_TILE > 2u {
        sum2 = team_sum(sum2, tid);
        sum3 = team_sum(sum3, tid);
    }
    if lane == 0u && unit < shape.units {
        finish_tile(unit, row);
        if UNITS > 1u && unit + 1u < shape.units {
            sum0 = sum0.zwxy;
            sum1 = sum1.zwxy;
            sum2 = sum2.zwxy;
            sum3 = sum3.zwxy;
            finish_tile(unit + 1u, row);
        }
    }
}
