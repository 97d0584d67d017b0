// Twin of the split skeleton's arithmetic: f16, for 4-bit weights of one scale (weights/q4.wgsl).
//
// Activations are staged as f16 over 16, so that 130,000 is not yet too large; what is beyond becomes no
// number and reaches the check of the logits. Four products are added in f16, the rest in f32: the sum
// is off by about 4e-4 of its size, as keys and values in f16 are.
override STAGED: u32 = 132u; // ROW_TILE * 4 * PITCH

// [ROW_TILE, 4 times 8 elements of a group, PITCH groups]: pairs (0, 2), (1, 3), (4, 6), (5, 7) of f16
var<workgroup> staged: array<vec4u, STAGED>;

const STAGED_OVER: f32 = 16.0;
const TOO_LARGE: u32 = 0x49742400u; // 1.0e6
const NO_HALVES: u32 = 0x7e007e00u;

fn pack_eight(low: vec4f, high: vec4f) -> vec4u {
    let a = low / STAGED_OVER;
    let b = high / STAGED_OVER;
    let packed = vec4u(
        pack2x16float(a.xz),
        pack2x16float(a.yw),
        pack2x16float(b.xz),
        pack2x16float(b.yw),
    );
    let bits = max(bitcast<vec4u>(low) & vec4u(0x7fffffffu), bitcast<vec4u>(high) & vec4u(0x7fffffffu));
    return select(packed, vec4u(NO_HALVES), any(bits > vec4u(TOO_LARGE)));
}

// Stages activation row `tile` of the tile: `count` groups from group `base` on. Returns the squares of the
// raw input that this invocation has read.
fn stage_row(tile: u32, input: u32, base: u32, count: u32, tid: u32) -> f32 {
    var sum = 0.0;
    for (var i = tid; i < count * 4u; i += WG) {
        let k = base * 8u + 2u * i;
        let low = raw_input(input, k);
        let high = raw_input(input, k + 1u);
        if PROLOGUE == PROLOGUE_NORM {
            sum += dot(low, low) + dot(high, high);
        }
        staged[(tile * 4u + (i & 3u)) * PITCH + (i >> 2u)] =
            pack_eight(prologue(low, pre_at(k), k), prologue(high, pre_at(k + 1u), k + 1u));
    }
    return sum;
}

// Eight weights over their scale, in the order of the staged pairs.
struct Eight {
    a: vec2<f16>,
    b: vec2<f16>,
    c: vec2<f16>,
    d: vec2<f16>,
}

// A nibble n in an f16's lowest bits under the exponent of 1024 is 1024 + n, four bits higher 1024 + 16 n: no
// conversion from integers.
fn eight_of(word: u32) -> Eight {
    let odd = word >> 8u;
    return Eight(
        half_pair((word & 0x000f000fu) | 0x64006400u) - vec2<f16>(1032.0h),
        half_pair((odd & 0x000f000fu) | 0x64006400u) - vec2<f16>(1032.0h),
        fma(half_pair((word & 0x00f000f0u) | 0x64006400u), vec2<f16>(0.0625h), vec2<f16>(-72.0h)),
        fma(half_pair((odd & 0x00f000f0u) | 0x64006400u), vec2<f16>(0.0625h), vec2<f16>(-72.0h)),
    );
}

fn dot_eight(w: Eight, x: vec4u) -> f32 {
    let tail = fma(w.c, half_pair(x.z), w.d * half_pair(x.w));
    let all = vec2f(fma(w.a, half_pair(x.x), fma(w.b, half_pair(x.y), tail)));
    return all.x + all.y;
}

// Weights 8i..8i+8 of a group of the four matrix rows times activation row `tile`.
fn eight(i: u32, a: Words, b: Words, c: Words, d: Words, tile: u32, group: u32) -> vec4f {
    let x = staged[(tile * 4u + i) * PITCH + group];
    var products = vec4f(dot_eight(eight_of(a[i]), x), dot_eight(eight_of(b[i]), x), 0.0, 0.0);
    if UNITS > 1u {
        products.z = dot_eight(eight_of(c[i]), x);
        products.w = dot_eight(eight_of(d[i]), x);
    }
    return products;
}
