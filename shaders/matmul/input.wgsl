// Input of the matrix products: y[r, n] = sum over k of w[n, k] * x'[r, k], where x' is x under the
// prologue. A product works on units: pairs of matrix rows that the kernel's epilogue needs together.
//
// x       [rows, K/4] vec4f activations
// shape   sizes; `epsilon` is RMSNorm's
// pre     [K/4] vec4f: the norm's weight (PROLOGUE_NORM) or an offset (PROLOGUE_SUBTRACT); bound only
//         where there is a prologue
// rows    the pass's rows
struct Shape {
    units: u32,
    matrix_rows: u32,
    k4: u32, // K / 4
    groups: u32, // ceil(K / 32)
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    rotary_dim: u32,
    capacity: u32, // positions a lane's cache holds
    inner: u32, // the MLP's inner size; all latents of a dictionary; all tokens of the head
    epsilon: f32,
    first: u32, // the latent, token or row of the fused projection that is the matrix's first row
}

const PROLOGUE_NONE: u32 = 0u;
const PROLOGUE_NORM: u32 = 1u; // x * pre / rms(x)
const PROLOGUE_SUBTRACT: u32 = 2u; // x - pre

override PROLOGUE: u32 = 0u;
// Whether K is not a multiple of 32, so that reads of x past K must give zero.
override TAIL: bool = false;

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<uniform> shape: Shape;
@group(0) @binding(4) var<storage, read> pre: array<vec4f>;
@group(0) @binding(5) var<uniform> rows: Rows;

// x[row, 4*k .. 4*k+4] before the prologue.
fn raw_input(row: u32, k: u32) -> vec4f {
    if TAIL && k >= shape.k4 {
        return vec4f(0.0);
    }
    return x[row * shape.k4 + k];
}

fn pre_at(k: u32) -> vec4f {
    return pre[select(k, 0u, TAIL && k >= shape.k4)];
}

fn prologue(v: vec4f, p: vec4f, k: u32) -> vec4f {
    if PROLOGUE == PROLOGUE_NORM {
        return v * p;
    }
    if PROLOGUE == PROLOGUE_SUBTRACT {
        return select(v - p, vec4f(0.0), TAIL && k >= shape.k4);
    }
    return v;
}

// What the sum is multiplied by, given the sum of squares of the raw input. An input too large for its
// squares has no norm: one over infinity would make it zero.
fn epilogue_scale(squares: f32) -> f32 {
    if PROLOGUE == PROLOGUE_NORM {
        if not_finite(squares) {
            return no_number(squares);
        }
        return inverseSqrt(squares / f32(shape.k4 * 4u) + shape.epsilon);
    }
    return 1.0;
}

// The unit's matrix rows, kept inside the matrix (an odd last unit repeats its row).
fn matrix_rows_of(unit: u32) -> vec2u {
    return min(rows_of(unit), vec2u(shape.matrix_rows - 1u));
}

// The activation rows of a tile, kept inside the pass.
fn inputs_of(row: u32) -> vec4u {
    let last = rows.count - 1u;
    return vec4u(
        input_row(min(row, last)),
        input_row(min(row + 1u, last)),
        input_row(min(row + 2u, last)),
        input_row(min(row + 3u, last)),
    );
}
