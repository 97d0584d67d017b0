// Storing twin: f32.
@group(0) @binding(1) var<storage, read_write> dense: array<vec4f>; // [rows, groups * 8], zeros past K

// Stores columns 64 pair .. 64 pair + 64 of a matrix row.
fn store_pair(row: u32, pair: u32) {
    for (var group = 2u * pair; group < min(2u * pair + 2u, shape.groups); group++) {
        for (var i = 0u; i < 8u; i++) {
            dense[(row * shape.groups + group) * 8u + i] = four_at(group * 32u + 4u * i);
        }
    }
}
