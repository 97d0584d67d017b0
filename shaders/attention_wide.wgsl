// Kernel: attention (attention_shape.wgsl) for caches of f16 and heads of 32, 64, 96 and so on up to 256 elements:
// reads of 16 bytes, tiles of 64 positions.
//
// A workgroup of WG invocations takes one (row, head) and one split of the positions. To score a tile, four
// invocations share a position; to add up its values, an invocation owns four pairs of the output and every
// WG / COLUMNS-th position. Grid: (heads, rows, SPLITS).
@group(0) @binding(0) var<storage, read> q: array<vec4f>; // [rows, heads, pairs / 2], two pairs each
@group(0) @binding(1) var<storage, read> k_cache: array<vec4u>; // [lanes, kv_heads, capacity, quads], four pairs each
@group(0) @binding(2) var<storage, read> v_cache: array<vec4u>; // the same

override QUADS: u32 = 12u; // head_dim / 8, a multiple of 4
override COLUMNS: u32 = 16u; // the power of two from QUADS on

const TILE: u32 = 64u; // positions

var<workgroup> scores: array<f32, TILE>;
var<workgroup> shares: array<vec4f, WG>; // of an invocation, its scores' shares, then its sums
var<workgroup> more_shares: array<vec4f, WG>;

fn dot_quad(key: vec4u, low: vec4f, high: vec4f) -> f32 {
    return dot(vec4f(kv_unpack(key.x), kv_unpack(key.y)), low)
        + dot(vec4f(kv_unpack(key.z), kv_unpack(key.w)), high);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let head = workgroup.x;
    let row = workgroup.y;
    let split = workgroup.z;
    if row >= rows.count {
        return;
    }
    let range = positions_of(row, split, TILE);
    let to = range.y;
    let cache = cached_from(row, head);
    let lap = lap_of(range.x);
    let query = (row * shape.heads + head) * QUADS * 2u;
    let part = tid % 4u;
    let column = tid % COLUMNS;
    var top = -3.0e38;
    var total = 0.0;
    var sum0 = vec4f(0.0); // output pairs 4 column and on, of this invocation's positions
    var sum1 = vec4f(0.0);
    for (var base = range.x; base < to; base += TILE) {
        // Past the end stands the last position, whose score is not used.
        let key0 = (cache + cell_of(min(base + tid / 4u, to - 1u), lap)) * QUADS;
        let key1 = (cache + cell_of(min(base + WG / 4u + tid / 4u, to - 1u), lap)) * QUADS;
        var share = vec2f(0.0);
        for (var j = 0u; j < QUADS / 4u; j++) {
            let quad = 4u * j + part;
            let low = q[query + 2u * quad];
            let high = q[query + 2u * quad + 1u];
            share.x += dot_quad(k_cache[key0 + quad], low, high);
            share.y += dot_quad(k_cache[key1 + quad], low, high);
        }
        shares[tid] = vec4f(share, 0.0, 0.0);
        workgroupBarrier();
        var score = -3.0e38;
        let mine = tid % TILE;
        if tid < TILE && base + mine < to {
            let at = 4u * (mine % (WG / 4u));
            let four = select(
                vec4f(shares[at].x, shares[at + 1u].x, shares[at + 2u].x, shares[at + 3u].x),
                vec4f(shares[at].y, shares[at + 1u].y, shares[at + 2u].y, shares[at + 3u].y),
                mine >= WG / 4u,
            );
            score = (four.x + four.y + four.z + four.w) * shape.scale;
        }
        let next = max(top, reduce_max(score, tid));
        let shrink = exp(max(top - next, -80.0));
        var weight = 0.0;
        if tid < TILE && base + mine < to {
            weight = weight_of(score, next);
        }
        if tid < TILE {
            scores[tid] = weight;
        }
        let tile_total = reduce_sum(vec4f(weight, 0.0, 0.0, 0.0), tid).x;
        total = total * shrink + tile_total;
        top = next;
        sum0 *= shrink;
        sum1 *= shrink;
        if column < QUADS {
            for (var i = tid / COLUMNS; i < TILE; i += WG / COLUMNS) {
                // Weights past the end are zero, but what lies there may be no number.
                let cell = cell_of(min(base + i, to - 1u), lap);
                let value = v_cache[(cache + cell) * QUADS + column];
                sum0 += scores[i] * vec4f(kv_unpack(value.x), kv_unpack(value.y));
                sum1 += scores[i] * vec4f(kv_unpack(value.z), kv_unpack(value.w));
            }
        }
        workgroupBarrier();
    }
    // The invocations of a column add up.
    shares[tid] = sum0;
    more_shares[tid] = sum1;
    workgroupBarrier();
    let at = out_from(row, head, split);
    let divisor = divisor_of(at, top, total, tid == 0u);
    if tid < QUADS {
        for (var i = tid + COLUMNS; i < WG; i += COLUMNS) {
            sum0 += shares[i];
            sum1 += more_shares[i];
        }
        sum0 /= divisor;
        sum1 /= divisor;
        out[at + 4u * tid] = sum0.xy;
        out[at + 4u * tid + 1u] = sum0.zw;
        out[at + 4u * tid + 2u] = sum1.xy;
        out[at + 4u * tid + 3u] = sum1.zw;
    }
}
