// Elements of a decoder's rows, through the weight twin.

// Elements 4c..4c+4 of a matrix row of `groups` groups.
fn row_at(row: u32, c: u32, groups: u32) -> vec4f {
    let group = c / 8u;
    let w = load_words(row, group, groups);
    let i = (c / 2u) % 4u;
    let scale = group_scale(row, group, groups);
    if (c & 1u) == 1u {
        return weights_high(w, i) * scale;
    }
    return weights_low(w, i) * scale;
}
