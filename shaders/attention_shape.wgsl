// What the attention kernels share: causal attention of a row's head over its lane's cache, with online softmax.
//
// A row sees the positions max(0, p + 1 - window) ..= p of its lane, in SPLITS pieces. With SPLITS = 1 the result
// goes to out [rows, heads * head_dim]; otherwise to partials [rows, heads, SPLITS, head_dim/2 + 1] (the last
// pair is (maximum, sum)), which attention_merge combines.
struct AttentionShape {
    heads: u32,
    kv_heads: u32,
    pairs: u32, // head_dim / 2
    capacity: u32, // cells of a lane's head: position p is in cell p % capacity
    window: u32, // positions a token sees, itself included; at most the capacity
    splits: u32,
    scale: f32, // 1 / sqrt(head_dim)
    unused: u32,
}

@group(0) @binding(3) var<uniform> shape: AttentionShape;
@group(0) @binding(4) var<storage, read_write> out: array<vec2f>; // see above
@group(0) @binding(5) var<uniform> rows: Rows;

// The first position of a row's split, and the one after its last. Splits are whole tiles.
fn positions_of(row: u32, split: u32, tile: u32) -> vec2u {
    let end = rows.row[row].z + 1u;
    let start = end - min(end, shape.window);
    let tiles = (end - start + tile - 1u) / tile;
    let per_split = (tiles + shape.splits - 1u) / shape.splits * tile;
    let first = min(start + split * per_split, end);
    return vec2u(first, min(first + per_split, end));
}

// The position in the first cell when `position` was written.
fn lap_of(position: u32) -> u32 {
    return position - position % shape.capacity;
}

// The cell of a position that is less than two capacities past the first of a lap.
fn cell_of(position: u32, lap: u32) -> u32 {
    let ahead = position - lap;
    // Below zero wraps to more than any cell.
    return min(ahead, ahead - shape.capacity);
}

// Which of the caches' [lanes * kv_heads * capacity] cells is the first of the row's head.
fn cached_from(row: u32, head: u32) -> u32 {
    let kv_head = head / (shape.heads / shape.kv_heads);
    return (rows.row[row].y * shape.kv_heads + kv_head) * shape.capacity;
}

// The first pair of `out` that belongs to a split of the row's head.
fn out_from(row: u32, head: u32, split: u32) -> u32 {
    let of_row = row * shape.heads + head;
    if shape.splits == 1u {
        return of_row * shape.pairs;
    }
    return (of_row * shape.splits + split) * (shape.pairs + 1u);
}

// The weight of a score under the maximum; what is no number stays none.
fn weight_of(score: f32, top: f32) -> f32 {
    if not_finite(score) {
        return no_number(score);
    }
    return exp(max(score - top, -80.0));
}

// What the sums of a split whose pairs begin at `at` are divided by. Where attention_merge divides, one invocation,
// the `first`, leaves it the maximum and the sum.
fn divisor_of(at: u32, top: f32, total: f32, first: bool) -> f32 {
    if shape.splits == 1u {
        return total;
    }
    if first {
        out[at + shape.pairs] = vec2f(top, total);
    }
    return 1.0;
}
