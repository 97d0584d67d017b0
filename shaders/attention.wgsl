// Kernel: causal attention of a row's head over its lane's cache, with online softmax.
//
// A workgroup of WG invocations takes one (row, head) and one split of the positions, WG at a time: an
// invocation scores one position, then owns pairs of the output. With SPLITS = 1 the result goes to
// out [rows, heads * head_dim]; otherwise to partials [rows, heads, SPLITS, head_dim/2 + 1] (the last
// pair is (maximum, sum)), which attention_merge combines. A head's size is at most 4 * WG.
// A row sees the positions max(0, p + 1 - window) ..= p of its lane. Grid: (heads, rows, SPLITS).
struct AttentionShape {
    heads: u32,
    kv_heads: u32,
    pairs: u32, // head_dim / 2
    capacity: u32,
    window: u32, // positions a token sees, itself included
    splits: u32,
    scale: f32, // 1 / sqrt(head_dim)
    unused: u32,
}

@group(0) @binding(0) var<storage, read> q: array<vec2f>; // [rows, heads, pairs]
@group(0) @binding(1) var<storage, read> k_cache: array<KvPair>; // [lanes, kv_heads, capacity, pairs]
@group(0) @binding(2) var<storage, read> v_cache: array<KvPair>; // the same
@group(0) @binding(3) var<uniform> shape: AttentionShape;
@group(0) @binding(4) var<storage, read_write> out: array<vec2f>; // see above
@group(0) @binding(5) var<uniform> rows: Rows;

var<workgroup> weights: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let head = workgroup.x;
    let row = workgroup.y;
    let split = workgroup.z;
    if row >= rows.count {
        return;
    }
    let lane = rows.row[row].y;
    let end = rows.row[row].z + 1u;
    let start = end - min(end, shape.window);
    // Splits are whole tiles of WG positions.
    let tiles = (end - start + WG - 1u) / WG;
    let per_split = (tiles + shape.splits - 1u) / shape.splits;
    let first = min(start + split * per_split * WG, end);
    let to = min(first + per_split * WG, end);

    let kv_head = head / (shape.heads / shape.kv_heads);
    let cache = (lane * shape.kv_heads + kv_head) * shape.capacity * shape.pairs;
    let query = (row * shape.heads + head) * shape.pairs;
    var top = -3.0e38;
    var total = 0.0;
    var sum0 = vec2f(0.0); // output pair tid
    var sum1 = vec2f(0.0); // output pair tid + WG
    for (var base = first; base < to; base += WG) {
        let position = base + tid;
        var score = -3.0e38;
        if position < to {
            let key = cache + position * shape.pairs;
            var product = vec2f(0.0);
            for (var j = 0u; j < shape.pairs; j++) {
                product += q[query + j] * kv_unpack(k_cache[key + j]);
            }
            score = (product.x + product.y) * shape.scale;
        }
        let next = max(top, reduce_max(score, tid));
        let shrink = exp(max(top - next, -80.0));
        var weight = select(0.0, exp(max(score - next, -80.0)), position < to);
        if not_finite(score) {
            weight = no_number(score);
        }
        weights[tid] = weight;
        let tile_total = reduce_sum(vec4f(weight, 0.0, 0.0, 0.0), tid).x;
        total = total * shrink + tile_total;
        top = next;
        sum0 *= shrink;
        sum1 *= shrink;
        let count = min(to - base, WG);
        if tid < shape.pairs {
            var value = cache + base * shape.pairs + tid;
            for (var i = 0u; i < count; i++) {
                sum0 += weights[i] * kv_unpack(v_cache[value]);
                value += shape.pairs;
            }
        }
        if tid + WG < shape.pairs {
            var value = cache + base * shape.pairs + tid + WG;
            for (var i = 0u; i < count; i++) {
                sum1 += weights[i] * kv_unpack(v_cache[value]);
                value += shape.pairs;
            }
        }
        workgroupBarrier();
    }
    if shape.splits == 1u {
        let at = (row * shape.heads + head) * shape.pairs;
        if tid < shape.pairs {
            out[at + tid] = sum0 / total;
        }
        if tid + WG < shape.pairs {
            out[at + tid + WG] = sum1 / total;
        }
        return;
    }
    let at = ((row * shape.heads + head) * shape.splits + split) * (shape.pairs + 1u);
    if tid < shape.pairs {
        out[at + tid] = sum0;
    }
    if tid + WG < shape.pairs {
        out[at + tid + WG] = sum1;
    }
    if tid == 0u {
        out[at + shape.pairs] = vec2f(top, total);
    }
}
