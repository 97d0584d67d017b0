// GEMM skeleton without barriers, for CPU adapters: one invocation computes four neighbouring units (eight
// matrix rows) for 8 activation rows, so that what it loads is used often. Sums are variables and not arrays,
// which such adapters index by gathers.
// Grid: (ceil(units / 4 / 16), ceil(rows / 8)).
const BLOCK_ROWS: u32 = 8u;

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
var<private> inputs: array<u32, BLOCK_ROWS>; // the activation rows
var<private> squares: array<f32, BLOCK_ROWS>; // of the raw input, per activation row

// One activation row times weights 4k..4k+4 of the eight matrix rows, the columns of `near` and `far`.
fn add_row(part: mat2x4f, raw: vec4f, p: vec4f, k: u32, near: mat4x4f, far: mat4x4f) -> mat2x4f {
    let v = prologue(raw, p, k);
    return part + mat2x4f(v * near, v * far);
}

fn add_four(k: u32, near: mat4x4f, far: mat4x4f) {
    let p = pre_at(k);
    let raw0 = raw_input(inputs[0], k);
    part0 = add_row(part0, raw0, p, k, near, far);
    let raw1 = raw_input(inputs[1], k);
    part1 = add_row(part1, raw1, p, k, near, far);
    let raw2 = raw_input(inputs[2], k);
    part2 = add_row(part2, raw2, p, k, near, far);
    let raw3 = raw_input(inputs[3], k);
    part3 = add_row(part3, raw3, p, k, near, far);
    let raw4 = raw_input(inputs[4], k);
    part4 = add_row(part4, raw4, p, k, near, far);
    let raw5 = raw_input(inputs[5], k);
    part5 = add_row(part5, raw5, p, k, near, far);
    let raw6 = raw_input(inputs[6], k);
    part6 = add_row(part6, raw6, p, k, near, far);
    let raw7 = raw_input(inputs[7], k);
    part7 = add_row(part7, raw7, p, k, near, far);
    if PROLOGUE == PROLOGUE_NORM {
        squares[0] += dot(raw0, raw0);
        squares[1] += dot(raw1, raw1);
        squares[2] += dot(raw2, raw2);
        squares[3] += dot(raw3, raw3);
        squares[4] += dot(raw4, raw4);
        squares[5] += dot(raw5, raw5);
        squares[6] += dot(raw6, raw6);
        squares[7] += dot(raw7, raw7);
    }
}

@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let unit = BLOCK_UNITS * id.x;
    let row = BLOCK_ROWS * id.y;
    if unit >= shape.units || row >= rows.count {
        return;
    }
    let pair0 = pair_of(unit);
    let pair1 = pair_of(unit + 1u);
    let pair2 = pair_of(unit + 2u);
    let pair3 = pair_of(unit + 3u);
    for (var i = 0u; i < BLOCK_ROWS; i++) {
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
        // A loop and not four copies: CPU adapters compile it in half the time.
        for (var i = 0u; i < 4u; i++) {
            let k = group * 8u + 2u * i;
            add_four(k, low(w0, w1, w2, w3, i), low(w4, w5, w6, w7, i));
            add_four(k + 1u, high(w0, w1, w2, w3, i), high(w4, w5, w6, w7, i));
        }
        let near = four_scales(pair0, pair1, group);
        let far = four_scales(pair2, pair3, group);
        sum0 += mat2x4f(part0[0] * near, part0[1] * far);
        sum1 += mat2x4f(part1[0] * near, part1[1] * far);
        sum2 += mat2x4f(part2[0] * near, part2[1] * far);
        sum3 += mat2x4f(part3[0] * near, part3[1] * far);
        sum4 += mat2x4f(part4[0] * near, part4[1] * far);
        sum5 += mat2x4f(part5[0] * near, part5[1] * far);
        sum6 += mat2x4f(part6[0] * near, part6[1] * far);
        sum7 += mat2x4f(part7[0] * near, part7[1] * far);
    }
    var sums = array<mat2x4f, BLOCK_ROWS>(
        sum0,
        sum1,
        sum2,
        sum3,
        sum4,
        sum5,
        sum6,
        sum7,
    );
    for (var i = 0u; i < min(BLOCK_ROWS, rows.count - row); i++) {
        let scale = epilogue_scale(squares[i]);
        for (var j = 0u; j < min(BLOCK_UNITS, shape.units - unit); j++) {
            let four = sums[i][j / 2u] * scale;
            finish(unit + j, row + i, select(four.xy, four.zw, (j & 1u) == 1u));
        }
    }
}
