// Kernel: the sum of squares of each row.
//
// x [rows, width] -> out [rows]. One workgroup of WG invocations a row. Grid: (1, rows).
struct SquaresShape {
    width4: u32, // width / 4
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, width/4]
@group(0) @binding(3) var<uniform> shape: SquaresShape;
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [rows]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let base = workgroup.y * shape.width4;
    var part = vec4f(0.0);
    for (var i = tid; i < shape.width4; i += WG) {
        part += x[base + i] * x[base + i];
    }
    let sums = reduce_sum(part, tid);
    if tid == 0u {
        out[workgroup.y] = sums.x + sums.y + sums.z + sums.w;
    }
}
