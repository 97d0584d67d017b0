// Shared by the twins of the split skeleton's arithmetic: the running sums of two units for up to four activation
// rows. A twin gives `stage_row`, `eight` and STAGED_OVER.
override ROW_TILE: u32 = 1u; // 1, 2 or 4

var<private> sum0: vec4f; // (first, second) matrix row of both units times activation row 0
var<private> sum1: vec4f;
var<private> sum2: vec4f;
var<private> sum3: vec4f;
var<private> squares: vec4f; // of the raw input, per activation row, as far as this invocation staged it

// Stages the activation rows of the tile: `count` groups from group `base` on.
fn stage(inputs: vec4u, base: u32, count: u32, tid: u32) {
    squares.x += stage_row(0u, inputs.x, base, count, tid);
    if ROW_TILE > 1u {
        squares.y += stage_row(1u, inputs.y, base, count, tid);
    }
    if ROW_TILE > 2u {
        squares.z += stage_row(2u, inputs.z, base, count, tid);
        squares.w += stage_row(3u, inputs.w, base, count, tid);
    }
}

// A group of the four matrix rows times activation row `tile`, before the scales.
fn all_eights(a: Words, b: Words, c: Words, d: Words, tile: u32, group: u32) -> vec4f {
    return eight(0u, a, b, c, d, tile, group) + eight(1u, a, b, c, d, tile, group)
        + eight(2u, a, b, c, d, tile, group) + eight(3u, a, b, c, d, tile, group);
}

// Adds group base + group of the matrix rows, whose activations lie at `group`.
fn add_group(matrix: vec4u, base: u32, group: u32) {
    let a = load_words(matrix.x, base + group, shape.groups);
    let b = load_words(matrix.y, base + group, shape.groups);
    var c = a;
    var d = b;
    var scale = vec4f(
        group_scale(matrix.x, base + group, shape.groups),
        group_scale(matrix.y, base + group, shape.groups),
        0.0,
        0.0,
    );
    if UNITS > 1u {
        c = load_words(matrix.z, base + group, shape.groups);
        d = load_words(matrix.w, base + group, shape.groups);
        scale.z = group_scale(matrix.z, base + group, shape.groups);
        scale.w = group_scale(matrix.w, base + group, shape.groups);
    }
    scale *= STAGED_OVER;
    sum0 += scale * all_eights(a, b, c, d, 0u, group);
    if ROW_TILE > 1u {
        sum1 += scale * all_eights(a, b, c, d, 1u, group);
    }
    if ROW_TILE > 2u {
        sum2 += scale * all_eights(a, b, c, d, 2u, group);
        sum3 += scale * all_eights(a, b, c, d, 3u, group);
    }
}

// Hands a unit's results to the kernel.
fn finish_tile(unit: u32, row: u32) {
    finish(unit, row, sum0.xy * epilogue_scale(squares.x));
    if ROW_TILE > 1u && row + 1u < rows.count {
        finish(unit, row + 1u, sum1.xy * epilogue_scale(squares.y));
    }
    if ROW_TILE > 2u && row + 2u < rows.count {
        finish(unit, row + 2u, sum2.xy * epilogue_scale(squares.z));
    }
    if ROW_TILE > 2u && row + 3u < rows.count {
        finish(unit, row + 3u, sum3.xy * epilogue_scale(squares.w));
    }
}
