// Kernel: one row of a decoder, in f32.
//
// The weight twin's row shape.row -> out[shape.slot], [slots, hidden]. One invocation copies 4 elements.
// Grid: (ceil(hidden/4 / 64)).
struct FetchShape {
    hidden4: u32, // hidden / 4
    groups: u32, // ceil(hidden / 32)
    row: u32,
    slot: u32,
}

@group(0) @binding(3) var<uniform> shape: FetchShape;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [slots, hidden/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < shape.hidden4 {
        out[shape.slot * shape.hidden4 + id.x] = row_at(shape.row, id.x, shape.groups);
    }
}
