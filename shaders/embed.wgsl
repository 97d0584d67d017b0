// Kernel: the token embedding.
//
// Row r of the pass reads the embedding of token row.x into residual [rows, hidden], if the token is one
// of this part of the table: first .. first + count. One invocation dequantises 8 elements.
// Grid: (ceil(groups * 4 / 64), rows).
struct EmbedShape {
    hidden4: u32, // hidden / 4
    groups: u32, // ceil(hidden / 32)
    first: u32, // the part's first token
    count: u32, // its tokens
}

@group(0) @binding(3) var<uniform> shape: EmbedShape;
@group(0) @binding(5) var<uniform> rows: Rows;
@group(0) @binding(6) var<storage, read_write> residual: array<vec4f>; // [rows, hidden/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let group = id.x / 4u;
    let i = id.x % 4u;
    let row = id.y;
    if group >= shape.groups || row >= rows.count {
        return;
    }
    let token = rows.row[row].x - shape.first;
    // Of another part; below the first it wraps around.
    if token >= shape.count {
        return;
    }
    let words = load_words(token, group, shape.groups);
    let scale = group_scale(token, group, shape.groups);
    let at = group * 8u + 2u * i;
    if at < shape.hidden4 {
        residual[row * shape.hidden4 + at] = weights_low(words, i) * scale;
    }
    if at + 1u < shape.hidden4 {
        residual[row * shape.hidden4 + at + 1u] = weights_high(words, i) * scale;
    }
}
