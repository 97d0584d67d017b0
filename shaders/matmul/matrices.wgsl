// GEMM skeleton on the adapter's matrix units: a workgroup of four subgroups of 32 computes 64 activation rows times
// 32 units (64 matrix rows), a group of K at a time through workgroup memory in f16; a subgroup computes 32 x 32 in
// four matrices of 16 x 16, whose sums are f32. Native only: `enable wgpu_cooperative_matrix`.
// Grid: (ceil(units / 32), ceil(rows / 64)).
//
// Activations are staged over 16, so that 1,000,000 is not yet too large; what is beyond becomes infinite and reaches
// the check of the logits.
const ROWS: u32 = 64u;
const UNITS: u32 = 32u;
const PITCH: u32 = 40u; // f16 of a staged row: a group and what keeps rows in different banks
const STAGED_OVER: f32 = 16.0;

var<workgroup> tile_x: array<f16, 2560>; // [ROWS, PITCH]
var<workgroup> tile_w: array<f16, 2560>; // [2 UNITS, PITCH]
var<workgroup> tile_y: array<f32, 1024>; // [4 subgroups, 16 rows, 8 units, 2]
var<workgroup> tile_squares: array<f32, 512>; // [ROWS, 8 invocations]
var<workgroup> tile_scales: array<f32, 64>; // [ROWS]

fn put_x(at: u32, v: vec4f) {
    let h = vec4<f16>(v / STAGED_OVER);
    tile_x[at] = h.x;
    tile_x[at + 1u] = h.y;
    tile_x[at + 2u] = h.z;
    tile_x[at + 3u] = h.w;
}

fn put_w(at: u32, v: vec4f) {
    let h = vec4<f16>(v);
    tile_w[at] = h.x;
    tile_w[at + 1u] = h.y;
    tile_w[at + 2u] = h.z;
    tile_w[at + 3u] = h.w;
}

// Stages one vec4 of an activation row; returns the squares of the raw input.
fn stage_x(row: u32, input: u32, group: u32, i: u32) -> f32 {
    let k = group * 8u + i;
    let raw = raw_input(input, k);
    put_x(row * PITCH + 4u * i, prologue(raw, pre_at(k), k));
    return dot(raw, raw);
}

// Hands 16 rows times 8 units to the kernel: the workgroup's rows from `row`, units from `unit` on, of which `y` is the
// first in tile_y.
fn finish_block(first_row: u32, row: u32, unit: u32, y: u32, lane: u32) {
    for (var i = lane; i < 128u; i += 32u) {
        let r = row + i / 8u;
        let u = unit + i % 8u;
        if first_row + r < rows.count && u < shape.units {
            let at = y + 2u * i;
            finish(u, first_row + r, vec2f(tile_y[at], tile_y[at + 1u]) * tile_scales[r]);
        }
    }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let first_unit = workgroup.x * UNITS;
    let first_row = workgroup.y * ROWS;
    // Uniform over the workgroup.
    if first_row >= rows.count {
        return;
    }
    let subgroup = tid / 32u;
    let lane = tid % 32u;
    let row0 = subgroup / 2u * 32u; // the subgroup's first row and matrix row in the tile
    let column0 = subgroup % 2u * 32u;
    // What this invocation stages: a vec4 of four activation rows, and half a matrix row's group.
    let row = tid / 8u;
    let last = rows.count - 1u;
    let inputs = vec4u(
        input_row(min(first_row + row, last)),
        input_row(min(first_row + row + 16u, last)),
        input_row(min(first_row + row + 32u, last)),
        input_row(min(first_row + row + 48u, last)),
    );
    let unit = min(first_unit + tid / 4u, shape.units - 1u);
    let pair = min(rows_of(unit), vec2u(shape.matrix_rows - 1u));
    let matrix = select(pair.x, pair.y, (tid & 2u) != 0u);
    let half = tid & 1u;
    var squares = vec4f(0.0);
    var c00: coop_mat16x16<f32, C>;
    var c01: coop_mat16x16<f32, C>;
    var c10: coop_mat16x16<f32, C>;
    var c11: coop_mat16x16<f32, C>;
    for (var group = 0u; group < shape.groups; group++) {
        let i = tid % 8u;
        squares += vec4f(
            stage_x(row, inputs.x, group, i),
            stage_x(row + 16u, inputs.y, group, i),
            stage_x(row + 32u, inputs.z, group, i),
            stage_x(row + 48u, inputs.w, group, i),
        );
        let words = load_words(matrix, group, shape.groups);
        let scale = group_scale(matrix, group, shape.groups);
        let to = tid / 2u * PITCH + 16u * half;
        put_w(to, weights_low(words, 2u * half) * scale);
        put_w(to + 4u, weights_high(words, 2u * half) * scale);
        put_w(to + 8u, weights_low(words, 2u * half + 1u) * scale);
        put_w(to + 12u, weights_high(words, 2u * half + 1u) * scale);
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += 16u) {
            let a0 = coopLoadT<coop_mat16x16<f16, A>>(&tile_x[row0 * PITCH + k], PITCH);
            let a1 = coopLoadT<coop_mat16x16<f16, A>>(&tile_x[(row0 + 16u) * PITCH + k], PITCH);
            let b0 = coopLoad<coop_mat16x16<f16, B>>(&tile_w[column0 * PITCH + k], PITCH);
            let b1 = coopLoad<coop_mat16x16<f16, B>>(&tile_w[(column0 + 16u) * PITCH + k], PITCH);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < 4u; j++) {
        tile_squares[(row + 16u * j) * 8u + tid % 8u] = squares[j];
    }
    workgroupBarrier();
    if tid < ROWS {
        var sum = 0.0;
        for (var j = 0u; j < 8u; j++) {
            sum += tile_squares[tid * 8u + j];
        }
        tile_scales[tid] = epilogue_scale(sum) * STAGED_OVER;
    }
    // naga wants what it stores, and where, in variables.
    let y = subgroup * 256u;
    let s00 = c00;
    coopStoreT(s00, &tile_y[y], 16u);
    workgroupBarrier();
    finish_block(first_row, row0, first_unit + column0 / 2u, y, lane);
    workgroupBarrier();
    let s01 = c01;
    coopStoreT(s01, &tile_y[y], 16u);
    workgroupBarrier();
    finish_block(first_row, row0, first_unit + column0 / 2u + 8u, y, lane);
    workgroupBarrier();
    let s10 = c10;
    coopStoreT(s10, &tile_y[y], 16u);
    workgroupBarrier();
    finish_block(first_row, row0 + 16u, first_unit + column0 / 2u, y, lane);
    workgroupBarrier();
    let s11 = c11;
    coopStoreT(s11, &tile_y[y], 16u);
    workgroupBarrier();
    finish_block(first_row, row0 + 16u, first_unit + column0 / 2u + 8u, y, lane);
}
