// Weight twin: 5-bit weights in groups of 32 along K, value = scale * (nibble + 16 * bit) + minimum.
//
// words [matrix_rows, groups] vec4<u32>: a group's 32 nibbles; the low nibbles of word w's bytes are
//       weights 8w..8w+4, the high nibbles 8w+4..8w+8.
// side  [matrix_rows, groups] vec2<u32>: f16 scale (low half) and minimum; then bit i is weight i's.
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> side: array<vec2u>;

struct Words {
    nibbles: vec4<u32>,
    bits: u32,
    line: vec2f, // scale, minimum
}
// Holds a weight.
alias Staged = vec4f;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    let at = row * groups + group;
    let beside = side[at];
    return Words(words[at], beside.y, unpack2x16float(beside.x));
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    return 1.0;
}

fn weights_of(w: Words, nibbles: u32, first: u32) -> vec4f {
    let bits = (vec4u(w.bits) >> (vec4u(first) + vec4u(0u, 1u, 2u, 3u))) & vec4u(1u);
    return vec4f(unpack4xU8(nibbles & 0x0f0f0f0fu) + 16u * bits) * w.line.x + w.line.y;
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group.
fn weights_low(w: Words, i: u32) -> vec4f {
    return weights_of(w, w.nibbles[i], 8u * i);
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return weights_of(w, w.nibbles[i] >> 4u, 8u * i + 4u);
}
