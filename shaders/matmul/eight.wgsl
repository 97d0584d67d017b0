// Shared by the skeletons for CPU adapters: the weights of eight matrix rows, the four neighbouring units of an
// invocation.
const BLOCK_UNITS: u32 = 4u;

// Weights 8i..8i+4 of a group of four matrix rows, as columns, and 8i+4..8i+8.
fn low(w0: Words, w1: Words, w2: Words, w3: Words, i: u32) -> mat4x4f {
    return mat4x4f(weights_low(w0, i), weights_low(w1, i), weights_low(w2, i), weights_low(w3, i));
}

fn high(w0: Words, w1: Words, w2: Words, w3: Words, i: u32) -> mat4x4f {
    return mat4x4f(weights_high(w0, i), weights_high(w1, i), weights_high(w2, i), weights_high(w3, i));
}

// The matrix rows of a unit; units past the last one stand in for it.
fn pair_of(unit: u32) -> vec2u {
    return matrix_rows_of(min(unit, shape.units - 1u));
}

// The scales of one group of four matrix rows.
fn four_scales(first: vec2u, second: vec2u, group: u32) -> vec4f {
    return vec4f(
        group_scale(first.x, group, shape.groups),
        group_scale(first.y, group, shape.groups),
        group_scale(second.x, group, shape.groups),
        group_scale(second.y, group, shape.groups),
    );
}
