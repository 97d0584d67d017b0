// Kernel: attention (attention_shape.wgsl) of any cache and head.
//
// A workgroup of WG invocations takes one (row, head) and one split of the positions, WG at a time: an
// invocation scores one position, then owns pairs of the output. A head's size is at most 4 * WG.
// Grid: (heads, rows, SPLITS).
@group(0) @binding(0) var<storage, read> q: array<vec2f>; // [rows, heads, pairs]
@group(0) @binding(1) var<storage, read> k_cache: array<KvPair>; // [lanes, kv_heads, capacity, pairs]
@group(0) @binding(2) var<storage, read> v_cache: array<KvPair>; // the same

var<workgroup> weights: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let head = workgroup.x;
    let row = workgroup.y;
    let split = workgroup.z;
    if row >= rows.count {
        return;
    }
    let range = positions_of(row, split, WG);
    let to = range.y;
    let cache = cached_from(row, head);
    let lap = lap_of(range.x);
    let query = (row * shape.heads + head) * shape.pairs;
    var top = -3.0e38;
    var total = 0.0;
    var sum0 = vec2f(0.0); // output pair tid
    var sum1 = vec2f(0.0); // output pair tid + WG
    for (var base = range.x; base < to; base += WG) {
        let position = base + tid;
        var score = -3.0e38;
        if position < to {
            let key = (cache + cell_of(position, lap)) * shape.pairs;
            var product = vec2f(0.0);
            for (var j = 0u; j < shape.pairs; j++) {
                product += q[query + j] * kv_unpack(k_cache[key + j]);
            }
            score = (product.x + product.y) * shape.scale;
        }
        let next = max(top, reduce_max(score, tid));
        let shrink = exp(max(top - next, -80.0));
        let weight = select(0.0, weight_of(score, next), position < to);
        weights[tid] = weight;
        let tile_total = reduce_sum(vec4f(weight, 0.0, 0.0, 0.0), tid).x;
        total = total * shrink + tile_total;
        top = next;
        sum0 *= shrink;
        sum1 *= shrink;
        let count = min(to - base, WG);
        if tid < shape.pairs {
            for (var i = 0u; i < count; i++) {
                let value = (cache + cell_of(base + i, lap)) * shape.pairs + tid;
                sum0 += weights[i] * kv_unpack(v_cache[value]);
            }
        }
        if tid + WG < shape.pairs {
            for (var i = 0u; i < count; i++) {
                let value = (cache + cell_of(base + i, lap)) * shape.pairs + tid + WG;
                sum1 += weights[i] * kv_unpack(v_cache[value]);
            }
        }
        workgroupBarrier();
    }
    let at = out_from(row, head, split);
    let divisor = divisor_of(at, top, total, tid == 0u);
    if tid < shape.pairs {
        out[at + tid] = sum0 / divisor;
    }
    if tid + WG < shape.pairs {
        out[at + tid + WG] = sum1 / divisor;
    }
}
