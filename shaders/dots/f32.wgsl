// Twin of the split skeleton's arithmetic: f32, for weights of any format.
override STAGED: u32 = 264u; // ROW_TILE * 8 * PITCH

// What activations are staged over.
const STAGED_OVER: f32 = 1.0;

var<workgroup> staged: array<vec4f, STAGED>; // [ROW_TILE, 8 vec4 of a group, PITCH groups]

// Stages activation row `tile` of the tile: `count` groups from group `base` on. Returns the squares of the
// raw input that this invocation has read.
fn stage_row(tile: u32, input: u32, base: u32, count: u32, tid: u32) -> f32 {
    var sum = 0.0;
    for (var i = tid; i < count * 8u; i += WG) {
        let k = base * 8u + i;
        let raw = raw_input(input, k);
        if PROLOGUE == PROLOGUE_NORM {
            sum += dot(raw, raw);
        }
        staged[(tile * 8u + (i & 7u)) * PITCH + (i >> 3u)] = prologue(raw, pre_at(k), k);
    }
    return sum;
}

// Weights 8i..8i+8 of a group of the four matrix rows times activation row `tile`.
fn eight(i: u32, a: Words, b: Words, c: Words, d: Words, tile: u32, group: u32) -> vec4f {
    let low = staged[(tile * 8u + 2u * i) * PITCH + group];
    let high = staged[(tile * 8u + 2u * i + 1u) * PITCH + group];
    var products = vec4f(
        dot(weights_low(a, i), low) + dot(weights_high(a, i), high),
        dot(weights_low(b, i), low) + dot(weights_high(b, i), high),
        0.0,
        0.0,
    );
    if UNITS > 1u {
        products.z = dot(weights_low(c, i), low) + dot(weights_high(c, i), high);
        products.w = dot(weights_low(d, i), low) + dot(weights_high(d, i), high);
    }
    return products;
}
