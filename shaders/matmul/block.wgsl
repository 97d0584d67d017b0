// GEMM skeleton without barriers, for CPU adapters: one invocation computes two neighbouring units (four
// matrix rows) for 8 activation rows, so that what it loads is used often.
// Grid: (ceil(units / 2 / 64), ceil(rows / 8)).
const BLOCK_ROWS: u32 = 8u;

var<private> sums: array<vec4f, 8>; // [8 activation rows] of the 4 matrix rows
var<private> parts: array<vec4f, 8>; // the same within one group, before its scales
var<private> squares: array<f32, 8>; // of the raw input, per activation row
var<private> inputs: array<u32, 8>; // the activation rows

// Adds weights 4k..4k+4 of the four matrix rows.
fn add_four(w0: vec4f, w1: vec4f, w2: vec4f, w3: vec4f, k: u32) {
    let p = pre_at(k);
    for (var i = 0u; i < BLOCK_ROWS; i++) {
        let raw = raw_input(inputs[i], k);
        let v = prologue(raw, p, k);
        parts[i] += vec4f(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v));
        if PROLOGUE == PROLOGUE_NORM {
            squares[i] += dot(raw, raw);
        }
    }
}

// Adds weights 8i..8i+8 of a group whose first vec4 is k.
fn add_eight(i: u32, w0: Words, w1: Words, w2: Words, w3: Words, k: u32) {
    let at = k + 2u * i;
    add_four(weights_low(w0, i), weights_low(w1, i), weights_low(w2, i), weights_low(w3, i), at);
    add_four(
        weights_high(w0, i),
        weights_high(w1, i),
        weights_high(w2, i),
        weights_high(w3, i),
        at + 1u,
    );
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let unit = 2u * id.x;
    let row = BLOCK_ROWS * id.y;
    if unit >= shape.units || row >= rows.count {
        return;
    }
    // An odd last unit stands for its missing neighbour, an odd last matrix row for its own.
    let last = vec2u(shape.matrix_rows - 1u);
    let first = min(rows_of(unit), last);
    let second = min(rows_of(min(unit + 1u, shape.units - 1u)), last);
    for (var i = 0u; i < BLOCK_ROWS; i++) {
        inputs[i] = input_row(min(row + i, rows.count - 1u));
    }
    for (var group = 0u; group < shape.groups; group++) {
        let w0 = load_words(first.x, group, shape.groups);
        let w1 = load_words(first.y, group, shape.groups);
        let w2 = load_words(second.x, group, shape.groups);
        let w3 = load_words(second.y, group, shape.groups);
        for (var i = 0u; i < BLOCK_ROWS; i++) {
            parts[i] = vec4f(0.0);
        }
        let k = group * 8u;
        // A loop and not four calls: CPU adapters compile it in half the time.
        for (var i = 0u; i < 4u; i++) {
            add_eight(i, w0, w1, w2, w3, k);
        }
        let scale = vec4f(
            group_scale(first.x, group, shape.groups),
            group_scale(first.y, group, shape.groups),
            group_scale(second.x, group, shape.groups),
            group_scale(second.y, group, shape.groups),
        );
        for (var i = 0u; i < BLOCK_ROWS; i++) {
            sums[i] += parts[i] * scale;
        }
    }
    for (var i = 0u; i < min(BLOCK_ROWS, rows.count - row); i++) {
        let y = sums[i] * epilogue_scale(squares[i]);
        for (var j = 0u; j < min(2u, shape.units - unit); j++) {
            finish(unit + j, row + i, select(y.xy, y.zw, j == 1u));
        }
    }
}
