// Kernel: attention (attention_shape.wgsl) without barriers, for CPU adapters: one invocation takes a row's head and
// one split of the positions, four at a time, and adds up in its own part of the output.
//
// Grid: (ceil(rows * heads / 16), 1, SPLITS).
@group(0) @binding(0) var<storage, read> q: array<vec2f>; // [rows, heads, pairs]
@group(0) @binding(1) var<storage, read> k_cache: array<KvPair>; // [lanes, kv_heads, capacity, pairs]
@group(0) @binding(2) var<storage, read> v_cache: array<KvPair>; // the same

@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.x / shape.heads;
    let head = id.x % shape.heads;
    if row >= rows.count {
        return;
    }
    let range = positions_of(row, id.z, 4u);
    let cache = cached_from(row, head);
    let lap = lap_of(range.x);
    let query = (row * shape.heads + head) * shape.pairs;
    let at = out_from(row, head, id.z);
    for (var j = 0u; j < shape.pairs; j++) {
        out[at + j] = vec2f(0.0);
    }
    var top = -3.0e38;
    var total = 0.0;
    for (var base = range.x; base < range.y; base += 4u) {
        let four = vec4u(base) + vec4u(0u, 1u, 2u, 3u);
        let seen = four < vec4u(range.y);
        // Past the end stands the last position, with a weight of zero.
        let ahead = min(four, vec4u(range.y - 1u)) - vec4u(lap);
        // As cell_of.
        let cells = (vec4u(cache) + min(ahead, ahead - vec4u(shape.capacity))) * shape.pairs;
        var products = vec4f(0.0);
        for (var j = 0u; j < shape.pairs; j++) {
            let pair = q[query + j];
            products += vec4f(
                dot(pair, kv_unpack(k_cache[cells.x + j])),
                dot(pair, kv_unpack(k_cache[cells.y + j])),
                dot(pair, kv_unpack(k_cache[cells.z + j])),
                dot(pair, kv_unpack(k_cache[cells.w + j])),
            );
        }
        let scores = select(vec4f(-3.0e38), products * shape.scale, seen);
        let next = max(top, max(max(scores.x, scores.y), max(scores.z, scores.w)));
        let shrink = exp(max(top - next, -80.0));
        top = next;
        let raw = vec4f(
            weight_of(scores.x, top),
            weight_of(scores.y, top),
            weight_of(scores.z, top),
            weight_of(scores.w, top),
        );
        let weights = select(vec4f(0.0), raw, seen);
        total = total * shrink + weights.x + weights.y + weights.z + weights.w;
        for (var j = 0u; j < shape.pairs; j++) {
            out[at + j] = out[at + j] * shrink
                + weights.x * kv_unpack(v_cache[cells.x + j])
                + weights.y * kv_unpack(v_cache[cells.y + j])
                + weights.z * kv_unpack(v_cache[cells.z + j])
                + weights.w * kv_unpack(v_cache[cells.w + j]);
        }
    }
    if shape.splits > 1u {
        out[at + shape.pairs] = vec2f(top, total);
        return;
    }
    for (var j = 0u; j < shape.pairs; j++) {
        out[at + j] /= total;
    }
}
