// Weight twin: 6-bit weights in groups of 32 along K, value = scale * (nibble + 16 * high - 32), with a
// scale for each half of a group.
//
// words [matrix_rows, groups] vec4<u32>: a group's 32 nibbles; the low nibbles of word w's bytes are
//       weights 8w..8w+4, the high nibbles 8w+4..8w+8.
// side  [matrix_rows, groups, 3] u32: f16 scales of weights 0..16 (low half) and 16..32; then two words
//       of 2-bit high parts, weight i at bits 2 * (i % 16) of word i / 16.
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> side: array<u32>;

struct Words {
    nibbles: vec4<u32>,
    high: vec2u,
    scales: vec2f,
}
// Holds a weight.
alias Staged = vec4f;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    let at = row * groups + group;
    let high = vec2u(side[3u * at + 1u], side[3u * at + 2u]);
    return Words(words[at], high, unpack2x16float(side[3u * at]));
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    return 1.0;
}

fn weights_of(w: Words, nibbles: u32, i: u32, first: u32) -> vec4f {
    let shifts = vec4u(16u * (i & 1u) + first) + vec4u(0u, 2u, 4u, 6u);
    let high = (vec4u(w.high[i / 2u]) >> shifts) & vec4u(3u);
    return (vec4f(unpack4xU8(nibbles & 0x0f0f0f0fu) + 16u * high) - 32.0) * w.scales[i / 2u];
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group.
fn weights_low(w: Words, i: u32) -> vec4f {
    return weights_of(w, w.nibbles[i], i, 0u);
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return weights_of(w, w.nibbles[i] >> 4u, i, 8u);
}
