// Weight twin: unquantised f32 weights.
//
// dense [matrix_rows, groups * 8] vec4f: K is padded to whole groups of 32 with zeros.
@group(0) @binding(1) var<storage, read> dense: array<vec4f>;

// The group's first vec4.
alias Words = u32;
// Holds a weight exactly.
alias Staged = vec4f;

fn load_words(row: u32, group: u32, groups: u32) -> Words {
    return (row * groups + group) * 8u;
}

fn group_scale(row: u32, group: u32, groups: u32) -> f32 {
    return 1.0;
}

// Weights 8i..8i+4 and 8i+4..8i+8 of the group.
fn weights_low(w: Words, i: u32) -> vec4f {
    return dense[w + 2u * i];
}

fn weights_high(w: Words, i: u32) -> vec4f {
    return dense[w + 2u * i + 1u];
}
