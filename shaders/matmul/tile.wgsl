// GEMM skeleton: a workgroup of 8 x 8 invocations computes 32 activation rows times 16 units (32
// matrix rows), a group of K at a time through workgroup memory; an invocation computes 4 rows times
// 2 units. Weights are staged over their scale, in a type that holds them exactly.
// Grid: (ceil(units / 16), ceil(rows / 32)).
var<workgroup> tile_x: array<vec4f, 256>; // [32 rows, 8 vec4 of K]
var<workgroup> tile_w: array<Staged, 256>; // [32 matrix rows, 8 vec4 of K]

@compute @workgroup_size(8, 8)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_id) local: vec3u,
    @builtin(local_invocation_index) tid: u32,
) {
    let first_unit = workgroup.x * 16u;
    let first_row = workgroup.y * 32u;
    // What this invocation stages: half an activation row's and half a matrix row's group.
    let staged = tid / 2u;
    let staged_from = input_row(min(first_row + staged, rows.count - 1u));
    let staged_unit = min(first_unit + staged / 2u, shape.units - 1u);
    let staged_pair = rows_of(staged_unit);
    let staged_matrix = min(
        select(staged_pair.x, staged_pair.y, (staged & 1u) == 1u),
        shape.matrix_rows - 1u,
    );
    // The two units of this invocation.
    let unit0 = min(first_unit + local.x * 2u, shape.units - 1u);
    let unit1 = min(first_unit + local.x * 2u + 1u, shape.units - 1u);
    let pair0 = min(rows_of(unit0), vec2u(shape.matrix_rows - 1u));
    let pair1 = min(rows_of(unit1), vec2u(shape.matrix_rows - 1u));

    var sums: array<vec4f, 4>; // [4 rows] of the 4 matrix rows
    var squares: vec4f; // [4 rows]
    for (var group = 0u; group < shape.groups; group++) {
        let words = load_words(staged_matrix, group, shape.groups);
        let half = (tid & 1u) * 4u;
        for (var i = 0u; i < 4u; i++) {
            let k = group * 8u + half + i;
            tile_x[staged * 8u + half + i] = raw_input(staged_from, k);
        }
        let word = (tid & 1u) * 2u;
        tile_w[staged * 8u + half] = Staged(weights_low(words, word));
        tile_w[staged * 8u + half + 1u] = Staged(weights_high(words, word));
        tile_w[staged * 8u + half + 2u] = Staged(weights_low(words, word + 1u));
        tile_w[staged * 8u + half + 3u] = Staged(weights_high(words, word + 1u));
        workgroupBarrier();
        var part0 = vec4f(0.0);
        var part1 = vec4f(0.0);
        var part2 = vec4f(0.0);
        var part3 = vec4f(0.0);
        for (var i = 0u; i < 8u; i++) {
            let k = group * 8u + i;
            let p = pre_at(k);
            let w0 = vec4f(tile_w[(local.x * 4u) * 8u + i]);
            let w1 = vec4f(tile_w[(local.x * 4u + 1u) * 8u + i]);
            let w2 = vec4f(tile_w[(local.x * 4u + 2u) * 8u + i]);
            let w3 = vec4f(tile_w[(local.x * 4u + 3u) * 8u + i]);
            let r0 = tile_x[(local.y * 4u) * 8u + i];
            let r1 = tile_x[(local.y * 4u + 1u) * 8u + i];
            let r2 = tile_x[(local.y * 4u + 2u) * 8u + i];
            let r3 = tile_x[(local.y * 4u + 3u) * 8u + i];
            squares += vec4f(dot(r0, r0), dot(r1, r1), dot(r2, r2), dot(r3, r3));
            let x0 = prologue(r0, p, k);
            let x1 = prologue(r1, p, k);
            let x2 = prologue(r2, p, k);
            let x3 = prologue(r3, p, k);
            part0 += vec4f(dot(w0, x0), dot(w1, x0), dot(w2, x0), dot(w3, x0));
            part1 += vec4f(dot(w0, x1), dot(w1, x1), dot(w2, x1), dot(w3, x1));
            part2 += vec4f(dot(w0, x2), dot(w1, x2), dot(w2, x2), dot(w3, x2));
            part3 += vec4f(dot(w0, x3), dot(w1, x3), dot(w2, x3), dot(w3, x3));
        }
        let scale = vec4f(
            group_scale(pair0.x, group, shape.groups),
            group_scale(pair0.y, group, shape.groups),
            group_scale(pair1.x, group, shape.groups),
            group_scale(pair1.y, group, shape.groups),
        );
        sums[0] += part0 * scale;
        sums[1] += part1 * scale;
        sums[2] += part2 * scale;
        sums[3] += part3 * scale;
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + local.y * 4u + i;
        if row < rows.count {
            let y = sums[i] * epilogue_scale(squares[i]);
            if first_unit + local.x * 2u < shape.units {
                finish(first_unit + local.x * 2u, row, y.xy);
            }
            if first_unit + local.x * 2u + 1u < shape.units {
                finish(first_unit + local.x * 2u + 1u, row, y.zw);
            }
        }
    }
}
