// Kernel: a step of Adam (Kingma and Ba, 2015) on the elements of a tensor, in place.
//
//   mean   = b1 mean + (1 - b1) gradient
//   square = b2 square + (1 - b2) gradient^2
//   weight = weight - rate * (mean / correction1) / (sqrt(square / correction2) + epsilon)
//
// All [n]. One invocation computes 4 elements. Grid: (ceil(n/4 / 64)), folded into x and y.
struct AdamStep {
    n4: u32, // n / 4
    rate: f32,
    correction1: f32, // 1 - b1^step
    correction2: f32, // 1 - b2^step
}

const B1: f32 = 0.9;
const B2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

@group(0) @binding(0) var<storage, read_write> weight: array<vec4f>; // [n/4]
@group(0) @binding(1) var<storage, read> gradient: array<vec4f>; // [n/4]
@group(0) @binding(2) var<storage, read_write> mean: array<vec4f>; // [n/4]
@group(0) @binding(3) var<uniform> step_of: AdamStep;
@group(0) @binding(4) var<storage, read_write> square: array<vec4f>; // [n/4]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
    let i = id.y * grid.x * 64u + id.x;
    if i >= step_of.n4 {
        return;
    }
    let g = gradient[i];
    let m = B1 * mean[i] + (1.0 - B1) * g;
    let s = B2 * square[i] + (1.0 - B2) * g * g;
    mean[i] = m;
    square[i] = s;
    let change = (m / step_of.correction1) / (sqrt(s / step_of.correction2) + EPSILON);
    weight[i] -= step_of.rate * change;
}
