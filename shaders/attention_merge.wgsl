// Kernel: combines the splits of attention.
//
// partials [rows, heads, splits, pairs + 1], the last pair (maximum, sum) -> out [rows, heads, pairs].
// One invocation an output pair. Grid: (ceil(pairs / 64), heads, rows).
struct MergeShape {
    heads: u32,
    pairs: u32,
    splits: u32,
    unused: u32,
}

@group(0) @binding(0) var<storage, read> partials: array<vec2f>;
@group(0) @binding(3) var<uniform> shape: MergeShape;
@group(0) @binding(4) var<storage, read_write> out: array<vec2f>; // [rows, heads, pairs]
@group(0) @binding(5) var<uniform> rows: Rows;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let pair = id.x;
    let head = id.y;
    let row = id.z;
    if pair >= shape.pairs || row >= rows.count {
        return;
    }
    let stride = shape.pairs + 1u;
    let base = (row * shape.heads + head) * shape.splits * stride;
    var top = -3.0e38;
    for (var s = 0u; s < shape.splits; s++) {
        top = max(top, partials[base + s * stride + shape.pairs].x);
    }
    var sum = vec2f(0.0);
    var total = 0.0;
    for (var s = 0u; s < shape.splits; s++) {
        let m = partials[base + s * stride + shape.pairs];
        let weight = exp(max(m.x - top, -80.0));
        total += m.y * weight;
        sum += partials[base + s * stride + pair] * weight;
    }
    out[(row * shape.heads + head) * shape.pairs + pair] = sum / total;
}
