// Shared by the reconstruction kernels: where a sum begins and ends.
struct DecodeShape {
    hidden4: u32, // hidden / 4
    groups: u32, // ceil(hidden / 32)
    inputs: u32, // entries of a row's list, or latents in all
    first: u32, // the first latent of this matrix
    count: u32, // how many latents it holds
    last: u32, // 1 for the last matrix of the dictionary
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(3) var<uniform> shape: DecodeShape;
@group(0) @binding(4) var<storage, read> b_dec: array<vec4f>; // [hidden/4]
@group(0) @binding(5) var<uniform> rows: Rows;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>; // [rows, hidden/4]
@group(0) @binding(7) var<storage, read> units: array<vec2f>; // [rows] (factor, offset) back to the residual

fn begin(row: u32, column: u32) -> vec4f {
    if shape.first > 0u {
        return out[row * shape.hidden4 + column];
    }
    return b_dec[column];
}

fn decoder_at(latent: u32, column: u32) -> vec4f {
    return row_at(latent, column, shape.groups);
}

fn end(row: u32, column: u32, sum: vec4f) {
    var y = sum;
    if shape.last == 1u {
        y = y * units[row].x + units[row].y;
    }
    out[row * shape.hidden4 + column] = y;
}
