// Shared by the GEMV skeletons: the running sums of one unit for up to four activation rows.
override ROW_TILE: u32 = 1u; // 1, 2 or 4

var<private> sum0: vec2f; // (first, second) matrix row of the unit times activation row 0
var<private> sum1: vec2f;
var<private> sum2: vec2f;
var<private> sum3: vec2f;
var<private> part0: vec2f; // the same within one group, before its scales
var<private> part1: vec2f;
var<private> part2: vec2f;
var<private> part3: vec2f;
var<private> squares: vec4f; // of the raw input, per activation row

// Adds weights 8i..8i+8 of a group: `inputs` are the activation rows, `k` is the group's first vec4.
fn add_eight(i: u32, first: Words, second: Words, inputs: vec4u, k: u32) {
    let a0 = weights_low(first, i);
    let a1 = weights_high(first, i);
    let b0 = weights_low(second, i);
    let b1 = weights_high(second, i);
    let at = k + 2u * i;
    let p0 = pre_at(at);
    let p1 = pre_at(at + 1u);
    {
        let r0 = raw_input(inputs.x, at);
        let r1 = raw_input(inputs.x, at + 1u);
        let x0 = prologue(r0, p0, at);
        let x1 = prologue(r1, p1, at + 1u);
        part0 += vec2f(dot(a0, x0) + dot(a1, x1), dot(b0, x0) + dot(b1, x1));
        squares.x += dot(r0, r0) + dot(r1, r1);
    }
    if ROW_TILE > 1u {
        let r0 = raw_input(inputs.y, at);
        let r1 = raw_input(inputs.y, at + 1u);
        let x0 = prologue(r0, p0, at);
        let x1 = prologue(r1, p1, at + 1u);
        part1 += vec2f(dot(a0, x0) + dot(a1, x1), dot(b0, x0) + dot(b1, x1));
        squares.y += dot(r0, r0) + dot(r1, r1);
    }
    if ROW_TILE > 2u {
        let r0 = raw_input(inputs.z, at);
        let r1 = raw_input(inputs.z, at + 1u);
        let x0 = prologue(r0, p0, at);
        let x1 = prologue(r1, p1, at + 1u);
        part2 += vec2f(dot(a0, x0) + dot(a1, x1), dot(b0, x0) + dot(b1, x1));
        squares.z += dot(r0, r0) + dot(r1, r1);
        let s0 = raw_input(inputs.w, at);
        let s1 = raw_input(inputs.w, at + 1u);
        let y0 = prologue(s0, p0, at);
        let y1 = prologue(s1, p1, at + 1u);
        part3 += vec2f(dot(a0, y0) + dot(a1, y1), dot(b0, y0) + dot(b1, y1));
        squares.w += dot(s0, s0) + dot(s1, s1);
    }
}

// Adds one group of 32 of the unit's two matrix rows.
fn add_group(matrix: vec2u, group: u32, inputs: vec4u) {
    let first = load_words(matrix.x, group, shape.groups);
    let second = load_words(matrix.y, group, shape.groups);
    part0 = vec2f(0.0);
    part1 = vec2f(0.0);
    part2 = vec2f(0.0);
    part3 = vec2f(0.0);
    // A loop and not four calls: CPU adapters compile it in a third of the time.
    for (var i = 0u; i < 4u; i++) {
        add_eight(i, first, second, inputs, group * 8u);
    }
    let scale = vec2f(
        group_scale(matrix.x, group, shape.groups),
        group_scale(matrix.y, group, shape.groups),
    );
    sum0 += part0 * scale;
    sum1 += part1 * scale;
    sum2 += part2 * scale;
    sum3 += part3 * scale;
}

// Hands the tile's results to the kernel.
fn finish_tile(unit: u32, row: u32) {
    var sums = array<vec2f, 4>(sum0, sum1, sum2, sum3);
    for (var i = 0u; i < min(ROW_TILE, rows.count - row); i++) {
        finish(unit, row + i, sums[i] * epilogue_scale(squares[i]));
    }
}
