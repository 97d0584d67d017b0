// Skeleton for CPU adapters with subgroups, for few and for many activation rows: one invocation computes four
// neighbouring units (eight matrix rows) for ROW_TILE activation rows, without barriers. Such adapters load
// element by element for each invocation, which costs more than the sums: so the invocations of a subgroup load
// each activation once between them and hand it around.
// Grid: (ceil(units / 4 / 16), ceil(rows / ROW_TILE)).
override ROW_TILE: u32 = 8u; // 1, 2, 4 or 8
override SUBGROUP: u32 = 8u; // invocations of a subgroup: 4 or 8

var<private> sum0: mat2x4f; // activation row 0 times matrix rows 0 to 3, and 4 to 7
var<private> sum1: mat2x4f;
var<private> sum2: mat2x4f;
var<private> sum3: mat2x4f;
var<private> sum4: mat2x4f;
var<private> sum5: mat2x4f;
var<private> sum6: mat2x4f;
var<private> sum7: mat2x4f;
var<private> part0: mat2x4f; // the same within one group, before its scales
var<private> part1: mat2x4f;
var<private> part2: mat2x4f;
var<private> part3: mat2x4f;
var<private> part4: mat2x4f;
var<private> part5: mat2x4f;
var<private> part6: mat2x4f;
var<private> part7: mat2x4f;
var<private> own0: vec4f; // four activations of row 0, those of this invocation
var<private> own1: vec4f;
var<private> own2: vec4f;
var<private> own3: vec4f;
var<private> own4: vec4f;
var<private> own5: vec4f;
var<private> own6: vec4f;
var<private> own7: vec4f;
var<private> inputs: array<u32, 8>; // the activation rows
var<private> squares: array<f32, 8>; // of this invocation's raw inputs, per activation row

// The activation row whose fours are `own`, times four columns of the eight matrix rows: the four of invocation
// `lane` with the columns of `near` and `far`.
fn add_row(part: mat2x4f, own: vec4f, lane: u32, near: mat4x4f, far: mat4x4f) -> mat2x4f {
    let v = subgroupShuffle(own, lane);
    return part + mat2x4f(v * near, v * far);
}

fn add_four(lane: u32, near: mat4x4f, far: mat4x4f) {
    part0 = add_row(part0, own0, lane, near, far);
    if ROW_TILE > 1u {
        part1 = add_row(part1, own1, lane, near, far);
    }
    if ROW_TILE > 2u {
        part2 = add_row(part2, own2, lane, near, far);
        part3 = add_row(part3, own3, lane, near, far);
    }
    if ROW_TILE > 4u {
        part4 = add_row(part4, own4, lane, near, far);
        part5 = add_row(part5, own5, lane, near, far);
        part6 = add_row(part6, own6, lane, near, far);
        part7 = add_row(part7, own7, lane, near, far);
    }
}

// This invocation's four of an activation row, at column `k` of fours.
fn own_of(i: u32, k: u32, p: vec4f) -> vec4f {
    let raw = raw_input(inputs[i], k);
    if PROLOGUE == PROLOGUE_NORM {
        squares[i] += dot(raw, raw);
    }
    return prologue(raw, p, k);
}

fn load_own(k: u32) {
    let p = pre_at(k);
    own0 = own_of(0u, k, p);
    if ROW_TILE > 1u {
        own1 = own_of(1u, k, p);
    }
    if ROW_TILE > 2u {
        own2 = own_of(2u, k, p);
        own3 = own_of(3u, k, p);
    }
    if ROW_TILE > 4u {
        own4 = own_of(4u, k, p);
        own5 = own_of(5u, k, p);
        own6 = own_of(6u, k, p);
        own7 = own_of(7u, k, p);
    }
}

fn add_part(sum: mat2x4f, part: mat2x4f, near: vec4f, far: vec4f) -> mat2x4f {
    return sum + mat2x4f(part[0] * near, part[1] * far);
}

@compute @workgroup_size(16)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(global_invocation_id) id: vec3u,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // No invocation may leave: the others need what it loads.
    let unit = BLOCK_UNITS * id.x;
    let row = ROW_TILE * workgroup.y;
    let pair0 = pair_of(unit);
    let pair1 = pair_of(unit + 1u);
    let pair2 = pair_of(unit + 2u);
    let pair3 = pair_of(unit + 3u);
    for (var i = 0u; i < ROW_TILE; i++) {
        inputs[i] = input_row(min(row + i, rows.count - 1u));
    }
    for (var group = 0u; group < shape.groups; group++) {
        let w0 = load_words(pair0.x, group, shape.groups);
        let w1 = load_words(pair0.y, group, shape.groups);
        let w2 = load_words(pair1.x, group, shape.groups);
        let w3 = load_words(pair1.y, group, shape.groups);
        let w4 = load_words(pair2.x, group, shape.groups);
        let w5 = load_words(pair2.y, group, shape.groups);
        let w6 = load_words(pair3.x, group, shape.groups);
        let w7 = load_words(pair3.y, group, shape.groups);
        part0 = mat2x4f();
        part1 = mat2x4f();
        part2 = mat2x4f();
        part3 = mat2x4f();
        part4 = mat2x4f();
        part5 = mat2x4f();
        part6 = mat2x4f();
        part7 = mat2x4f();
        // The group's eight fours of columns, as many at a time as there are invocations in a subgroup.
        for (var first = 0u; first < 8u; first += SUBGROUP) {
            load_own(group * 8u + first + lane);
            for (var pair = 0u; pair < SUBGROUP / 2u; pair++) {
                let i = first / 2u + pair;
                add_four(2u * pair, low(w0, w1, w2, w3, i), low(w4, w5, w6, w7, i));
                add_four(2u * pair + 1u, high(w0, w1, w2, w3, i), high(w4, w5, w6, w7, i));
            }
        }
        let near = four_scales(pair0, pair1, group);
        let far = four_scales(pair2, pair3, group);
        sum0 = add_part(sum0, part0, near, far);
        sum1 = add_part(sum1, part1, near, far);
        sum2 = add_part(sum2, part2, near, far);
        sum3 = add_part(sum3, part3, near, far);
        sum4 = add_part(sum4, part4, near, far);
        sum5 = add_part(sum5, part5, near, far);
        sum6 = add_part(sum6, part6, near, far);
        sum7 = add_part(sum7, part7, near, far);
    }
    var sums = array<mat2x4f, 8>(
        sum0,
        sum1,
        sum2,
        sum3,
        sum4,
        sum5,
        sum6,
        sum7,
    );
    for (var i = 0u; i < ROW_TILE; i++) {
        let scale = epilogue_scale(subgroupAdd(squares[i]));
        if row + i < rows.count {
            for (var j = 0u; j < BLOCK_UNITS && unit + j < shape.units; j++) {
                let four = sums[i][j / 2u] * scale;
                finish(unit + j, row + i, select(four.xy, four.zw, (j & 1u) == 1u));
            }
        }
    }
}
