// Kernel: the fused attention projection with RMSNorm, rotary embedding and cache append.
//
// x [rows, hidden] -> q [rows, heads, head_dim/2] pairs, and into the caches at each row's position: cell
// position % capacity, in place of a position that no row's window has any more.
// The projection's rows are q [heads * head_dim], k [kv_heads * head_dim], v [kv_heads * head_dim]; the
// matrix holds those from shape.first on, whole heads.
//
// A unit of q and k is a pair of elements that the rotary embedding turns together: (j, j + rotary/2)
// for j < rotary/2, neighbours after that. q and k are stored in that order (a dot product does not
// mind), so that a pair is one store; v keeps its natural order.
//
// Units: q, k and v, head_dim / 2 a head of the matrix.
//
// With x, the norm's weight and the matrix's two planes these are 8 storage buffers, all that WebGPU
// promises a stage.
@group(0) @binding(6) var<storage, read> rotary: array<vec2f>; // [positions, rotary_dim/2] (cos, sin)
@group(0) @binding(7) var<storage, read_write> q: array<vec2f>; // [rows, heads, head_dim/2]
@group(0) @binding(8) var<storage, read_write> k_cache: array<KvPair>; // [lanes, kv_heads, capacity, head_dim/2]
@group(0) @binding(9) var<storage, read_write> v_cache: array<KvPair>; // the same

fn rows_of(unit: u32) -> vec2u {
    let pairs = shape.head_dim / 2u;
    let own = unit / pairs;
    let head = shape.first / shape.head_dim + own;
    let j = unit % pairs;
    let base = own * shape.head_dim;
    let turned = shape.rotary_dim / 2u;
    if head >= shape.heads + shape.kv_heads || j >= turned {
        return vec2u(base + 2u * j, base + 2u * j + 1u);
    }
    return vec2u(base + j, base + j + turned);
}

fn input_row(row: u32) -> u32 {
    return row;
}

fn finish(unit: u32, row: u32, y: vec2f) {
    let pairs = shape.head_dim / 2u;
    let head = shape.first / shape.head_dim + unit / pairs;
    let j = unit % pairs;
    let lane = rows.row[row].y;
    let position = rows.row[row].z;
    var pair = y;
    let turned = shape.rotary_dim / 2u;
    if head < shape.heads + shape.kv_heads && j < turned {
        let turn = rotary[position * turned + j];
        pair = vec2f(y.x * turn.x - y.y * turn.y, y.y * turn.x + y.x * turn.y);
    }
    if head < shape.heads {
        q[(row * shape.heads + head) * pairs + j] = pair;
        return;
    }
    let kv_head = (head - shape.heads) % shape.kv_heads;
    let at = ((lane * shape.kv_heads + kv_head) * shape.capacity + position % shape.capacity) * pairs + j;
    if head < shape.heads + shape.kv_heads {
        k_cache[at] = kv_pack(pair);
    } else {
        v_cache[at] = kv_pack(pair);
    }
}
