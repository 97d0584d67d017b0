// Weight twin: 4-bit weights in groups of 32 along K, value = scale * nibble + minimum.
//
// words [matrix_rows, groups] vec4<u32>: a group's 32 nibbles; the low nibbles of word w's bytes are
//       weights 8w..8w+4, the high nibbles 8w+4..8w+8.
// side  [matrix_rows, groups] u32: f16 scale (low half) and minimum.
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> side: array<u32>;

struct Words {
    nibbles: vec4<u32>,
    line: vec2f, // scale, minimum
}
// Holds a weight.
alias Staged = vec4f;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    let at = row * groups + group;
    return Words(words[at], unpack2x16float(side[at]));
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    return 1.0;
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group.
fn weights_low(w: Words, i: u32) -> vec4f {
    return vec4f(unpack4xU8(w.nibbles[i] & 0x0f0f0f0fu)) * w.line.x + w.line.y;
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return vec4f(unpack4xU8((w.nibbles[i] >> 4u) & 0x0f0f0f0fu)) * w.line.x + w.line.y;
}
