// Weight twin: 4-bit weights in groups of 32 along K, value = scale * (nibble - 8).
//
// words  [matrix_rows, groups] vec4<u32>: a group's 32 nibbles; the low nibbles of word w's bytes are
//        weights 8w..8w+4, the high nibbles 8w+4..8w+8. K is padded to whole groups with zeros.
// scales [matrix_rows, ceil(groups / 2)] u32: two f16 each.
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

alias Words = vec4<u32>;
// Holds a weight over its scale, an integer in -8..7, exactly.
alias Staged = real4;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    return words[row * groups + group];
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    let pair = unpack2x16float(scales[row * ((groups + 1u) / 2u) + group / 2u]);
    return select(pair.x, pair.y, (group & 1u) == 1u);
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group, over its scale.
fn weights_low(w: Words, i: u32) -> vec4f {
    return vec4f(unpack4xU8(w[i] & 0x0f0f0f0fu)) - 8.0;
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return vec4f(unpack4xU8((w[i] >> 4u) & 0x0f0f0f0fu)) - 8.0;
}
