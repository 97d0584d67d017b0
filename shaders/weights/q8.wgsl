// Weight twin: 8-bit weights in groups of 32 along K, value = scale * signed byte.
//
// words  [matrix_rows, groups, 2] vec4<u32>: a group's 32 bytes in order. K is padded to whole groups
//        with zeros.
// scales [matrix_rows, ceil(groups / 2)] u32: two f16 each.
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

struct Words {
    first: vec4<u32>, // weights 0..16
    second: vec4<u32>, // weights 16..32
}
// Holds a weight over its scale, an integer in -128..127, exactly.
alias Staged = real4;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    let at = 2u * (row * groups + group);
    return Words(words[at], words[at + 1u]);
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    let pair = unpack2x16float(scales[row * ((groups + 1u) / 2u) + group / 2u]);
    return select(pair.x, pair.y, (group & 1u) == 1u);
}

fn four(w: Words, word: u32) -> vec4f {
    return vec4f(unpack4xI8(select(w.first[word & 3u], w.second[word & 3u], word >= 4u)));
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group, over its scale.
fn weights_low(w: Words, i: u32) -> vec4f {
    return four(w, 2u * i);
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return four(w, 2u * i + 1u);
}
