// Kernel: scales each row of a matrix to the norm 1, in place.
//
// matrix [rows, width]. One workgroup of WG invocations a row. Grid: (1, rows), the rows folded into y and
// z.
struct RowsShape {
    width4: u32, // width / 4
    rows: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<storage, read_write> matrix: array<vec4f>; // [rows, width/4]
@group(0) @binding(3) var<uniform> shape: RowsShape;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) tid: u32,
) {
    let row = workgroup.z * grid.y + workgroup.y;
    // Uniform over the workgroup.
    if row >= shape.rows {
        return;
    }
    let base = row * shape.width4;
    var part = vec4f(0.0);
    for (var i = tid; i < shape.width4; i += WG) {
        part += matrix[base + i] * matrix[base + i];
    }
    let sums = reduce_sum(part, tid);
    let norm = sqrt(sums.x + sums.y + sums.z + sums.w);
    let scale = 1.0 / max(norm, 1e-12);
    for (var i = tid; i < shape.width4; i += WG) {
        matrix[base + i] *= scale;
    }
}
