// Kernel: a block of a matrix, in rows or in columns, into the matrix's planes.
//
// block, f32 in the order of a file: rows of the matrix, or (transposed) 64 or more of its columns for all
// rows -> the planes of the storing twin. Matrix row r is multiplied by scale * gains[r]. One invocation
// stores 64 columns of a row, two groups. Grid: (ceil(rows / 64), pairs).
struct StoreShape {
    columns: u32, // K
    groups: u32, // ceil(K / 32)
    rows: u32, // matrix rows that the block is for
    first_row: u32, // the first of them in the matrix
    first_pair: u32, // the first 64 columns that the block holds
    pairs: u32, // how many times 64 columns it holds
    row_stride: u32, // elements of the block from one matrix row to the next
    column_stride: u32, // and from one column to the next
    offset: u32, // the block's element for the first row and column
    scale: f32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<storage, read> block: array<f32>;
@group(0) @binding(3) var<uniform> shape: StoreShape;
@group(0) @binding(4) var<storage, read> gains: array<f32>; // [matrix rows]

// Where the invocation's row begins in the block, and what it is multiplied by.
var<private> row_at: u32;
var<private> factor: f32;

// The value of a column; zero past the last.
fn value_at(column: u32) -> f32 {
    if column >= shape.columns {
        return 0.0;
    }
    return block[row_at + (column - 64u * shape.first_pair) * shape.column_stride] * factor;
}

fn four_at(column: u32) -> vec4f {
    return vec4f(
        value_at(column),
        value_at(column + 1u),
        value_at(column + 2u),
        value_at(column + 3u),
    );
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= shape.rows || id.y >= shape.pairs {
        return;
    }
    let row = shape.first_row + id.x;
    row_at = shape.offset + id.x * shape.row_stride;
    factor = shape.scale * gains[row];
    store_pair(row, shape.first_pair + id.y);
}
