// Kernel: the normalisation of a dictionary's input.
//
// x [rows, hidden] -> out [rows, hidden], and units [rows] (factor, offset), which bring a reconstruction y
// back: y * factor + offset. One workgroup of WG invocations a row. Grid: (1, rows).
//
//   NORM        out = x sqrt(hidden) / |x|
//   LAYER_NORM  out = (x - mean) / (std + 1e-5), with the unbiased standard deviation; the way back is
//               y * std + mean
struct NormalizeShape {
    hidden4: u32, // hidden / 4
    unused0: u32,
    unused1: u32,
    unused2: u32,
}

override LAYER_NORM: bool = false;

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, hidden/4]
@group(0) @binding(3) var<uniform> shape: NormalizeShape;
@group(0) @binding(5) var<uniform> rows: Rows;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [rows, hidden/4]
@group(0) @binding(7) var<storage, read_write> units: array<vec2f>; // [rows]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = workgroup.y;
    // Uniform over the workgroup.
    if row >= rows.count {
        return;
    }
    let base = row * shape.hidden4;
    let n = f32(4u * shape.hidden4);
    var mean = 0.0;
    if LAYER_NORM {
        var part = vec4f(0.0);
        for (var i = tid; i < shape.hidden4; i += WG) {
            part += x[base + i];
        }
        let sums = reduce_sum(part, tid);
        mean = (sums.x + sums.y + sums.z + sums.w) / n;
    }
    var part = vec4f(0.0);
    for (var i = tid; i < shape.hidden4; i += WG) {
        let v = x[base + i] - mean;
        part += v * v;
    }
    let sums = reduce_sum(part, tid);
    let squares = sums.x + sums.y + sums.z + sums.w;
    // A vector of zeros stays one.
    var back = sqrt(squares / n);
    var factor = select(0.0, 1.0 / back, back > 0.0);
    if LAYER_NORM {
        back = sqrt(squares / (n - 1.0));
        factor = 1.0 / (back + 1e-5);
    }
    for (var i = tid; i < shape.hidden4; i += WG) {
        out[base + i] = (x[base + i] - mean) * factor;
    }
    if tid == 0u {
        units[row] = vec2f(back, mean);
    }
}
