// Kernel: samples each lane's next token from its logits and makes it the lane's next row.
//
// logits [lanes, vocab]; one workgroup of WG invocations a lane. The order is that of the usual
// samplers: repetition penalty, temperature, min-p, top-k, top-p of what is left, then one draw. Thresholds on the
// probabilities are found exactly, by bisection over the bits of their floats. A temperature of zero
// takes the largest logit, the lowest id among equals. Grid: (lanes).
//
// The sampled token goes to out [lanes] (token, flags, step, -), into the lane's set of seen tokens,
// and into the decode rows: the next pass reads it there, without the host.
const OUT_STOPPED: u32 = 1u; // the token is a stop token
const OUT_NOT_FINITE: u32 = 2u; // a logit is NaN or infinite
const OUT_IDLE: u32 = 4u; // the lane had stopped before

struct Lane {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    top_k: u32, // 0: all
    seed: u32,
    step: u32, // tokens sampled so far
    unused: u32,
}

struct SampleShape {
    vocab: u32,
    words: u32, // ceil(vocab / 32)
    unused: vec2<u32>,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>; // [lanes, vocab]
@group(0) @binding(1) var<storage, read_write> lanes: array<Lane>; // [lanes]
@group(0) @binding(2) var<storage, read_write> seen: array<u32>; // [lanes, words] a bit a token
@group(0) @binding(3) var<uniform> shape: SampleShape;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<u32>>; // [lanes]
@group(0) @binding(5) var<storage, read_write> rows: Rows; // the decode rows
@group(0) @binding(6) var<storage, read> stops: array<u32>; // [words] a bit a token: those that end a lane

var<workgroup> chunk_sums: array<f32, WG>;
var<workgroup> found: atomic<u32>; // the lowest token that may be it
var<workgroup> spoiled: atomic<u32>; // 1: a logit is not finite
var<workgroup> asked: u32; // bit 0: top-k, bit 1: top-p, bit 2: a draw

var<private> penalty: f32; // the lane's, read once
var<private> heat: f32; // its temperature

// The logit of token i after penalty and temperature; a very low temperature must not make it infinite.
fn adjusted(lane: u32, i: u32) -> f32 {
    var l = logits[lane * shape.vocab + i];
    if penalty != 1.0 && ((seen[lane * shape.words + i / 32u] >> (i % 32u)) & 1u) == 1u {
        l = select(l * penalty, l / penalty, l > 0.0);
    }
    return l / select(1.0, max(heat, 1.0e-6), heat > 0.0);
}

// The unnormalised probability of token i: 1 for the likeliest alone, however close the next.
fn weight(lane: u32, i: u32, top: f32) -> f32 {
    let below = adjusted(lane, i) - top;
    return select(min(exp(max(below, -80.0)), 0.99999994), 1.0, below >= 0.0);
}

// (how many, their sum) of the weights that are at least `least`.
fn at_least(lane: u32, top: f32, least: f32, tid: u32) -> vec2f {
    var sum = vec4f(0.0);
    for (var i = tid; i < shape.vocab; i += WG) {
        let w = weight(lane, i, top);
        if w >= least {
            sum += vec4f(1.0, w, 0.0, 0.0);
        }
    }
    return reduce_sum(sum, tid).xy;
}

// The least weight that top-k and top-p, in this order, leave of those of at least `least`: the largest threshold
// whose tokens reach the goal, in how many they are (top-k) or in their sum (top-p). Bits 0 and 1 of `asks` say which
// are asked for. One loop for both, and for what is left before: what a CPU adapter compiles grows with each copy.
fn narrowed(lane: u32, top: f32, least: f32, asks: u32, tid: u32) -> f32 {
    var kept = least;
    for (var by = 0u; by < 2u; by++) {
        if ((asks >> by) & 1u) == 0u {
            continue;
        }
        var goal = f32(lanes[lane].top_k);
        var low = 0u; // as bits of a float >= 0; reaches the goal
        var high = 0x3f800001u; // just above 1; does not
        for (var step = 0u; step < 32u; step++) {
            let middle = select((low + high) / 2u, bitcast<u32>(kept), step == 0u);
            let reached = at_least(lane, top, bitcast<f32>(middle), tid);
            if step == 0u {
                // Top-p is a share of what is left.
                goal = select(goal, lanes[lane].top_p * reached.y, by == 1u);
            } else if reached[by] >= goal {
                low = middle;
            } else {
                high = middle;
            }
        }
        kept = max(kept, bitcast<f32>(low));
    }
    return kept;
}

// A number in 0..1 that depends on seed and step alone: PCG3D (Jarzynski and Olano, 2020).
fn uniform_draw(seed: u32, step: u32) -> f32 {
    var v = vec3u(seed, step, 0x9e3779b9u) * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3u(16u);
    v.x += v.y * v.z;
    return f32(v.x >> 8u) / 16777216.0;
}

// The largest of four logits that this invocation reads side by side, with its token, if larger than `best`
// (logit, token); x is the first token. Bit 0 of `bad` becomes 1 for one that is not finite.
fn best_of_four(lane: u32, x: u32, best: vec2f, bad: ptr<function, u32>) -> vec2f {
    var found = best;
    for (var j = 0u; j < 4u; j++) {
        let i = x + j * WG;
        if i < shape.vocab {
            let raw = logits[lane * shape.vocab + i];
            let l = adjusted(lane, i);
            if not_finite(raw) {
                *bad = 1u;
            } else if l > found.x {
                found = vec2f(l, f32(i)); // exact: there are fewer than 2^24 tokens
            }
        }
    }
    return found;
}

// The token that the lane draws from the weights of at least `least`.
fn drawn(lane: u32, top: f32, least: f32, tid: u32) -> u32 {
    // Each invocation owns a contiguous chunk of the vocabulary.
    let chunk = (shape.vocab + WG - 1u) / WG;
    let first = min(tid * chunk, shape.vocab);
    let last = min(first + chunk, shape.vocab);
    var sum = 0.0;
    for (var i = first; i < last; i++) {
        let w = weight(lane, i, top);
        sum += select(0.0, w, w >= least);
    }
    chunk_sums[tid] = sum;
    if tid == 0u {
        atomicStore(&found, shape.vocab - 1u);
    }
    workgroupBarrier();
    // Running sums.
    for (var apart = 1u; apart < WG; apart *= 2u) {
        let add = select(0.0, chunk_sums[max(tid, apart) - apart], tid >= apart);
        workgroupBarrier();
        chunk_sums[tid] += add;
        workgroupBarrier();
    }
    let before = select(0.0, chunk_sums[max(tid, 1u) - 1u], tid > 0u);
    let draw = uniform_draw(lanes[lane].seed, lanes[lane].step) * chunk_sums[WG - 1u];
    // The first token whose cumulative weight exceeds the draw; rounding can leave none in one
    // chunk, so that all chunks at or past the draw vote and the lowest id wins.
    if before + sum > draw && sum > 0.0 {
        var cumulative = before;
        var token = shape.vocab;
        for (var i = first; i < last; i++) {
            let w = weight(lane, i, top);
            if w >= least {
                cumulative += w;
                token = i;
                if cumulative > draw {
                    break;
                }
            }
        }
        atomicMin(&found, token);
    }
    workgroupBarrier();
    return atomicLoad(&found);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let lane = workgroup.x;
    penalty = lanes[lane].repetition_penalty;
    heat = lanes[lane].temperature;
    // The largest logit, its lowest token, and whether any is not finite.
    var best = vec2f(-3.0e38, f32(shape.vocab - 1u));
    var bad = 0u;
    for (var i = tid; i < shape.vocab; i += 4u * WG) {
        best = best_of_four(lane, i, best, &bad);
    }
    if tid == 0u {
        atomicStore(&found, shape.vocab - 1u);
        atomicStore(&spoiled, 0u);
    }
    let top = reduce_max(best.x, tid);
    if best.x == top {
        atomicMin(&found, u32(best.y));
    }
    if bad != 0u {
        atomicStore(&spoiled, 1u);
    }

    let top_k = lanes[lane].top_k;
    let top_p = lanes[lane].top_p;
    let greedy = heat <= 0.0;
    // The searches run only where the lane asks for them.
    if tid == 0u {
        asked = select(0u, 1u, top_k > 0u && top_k < shape.vocab && !greedy)
            | select(0u, 2u, top_p < 1.0 && !greedy)
            | select(4u, 0u, greedy);
    }
    let asks = workgroupUniformLoad(&asked);
    var token: u32;
    if (asks & 4u) != 0u {
        token = drawn(lane, top, narrowed(lane, top, lanes[lane].min_p, asks, tid), tid);
    } else {
        token = atomicLoad(&found);
    }

    if tid != 0u {
        return;
    }
    let step = lanes[lane].step;
    if (rows.row[lane].w & ROW_DONE) != 0u {
        out[lane] = vec4u(0u, OUT_IDLE, step, 0u);
        return;
    }
    var flags = 0u;
    if ((stops[token / 32u] >> (token % 32u)) & 1u) == 1u {
        flags |= OUT_STOPPED;
    }
    if atomicLoad(&spoiled) == 1u {
        flags |= OUT_NOT_FINITE;
    }
    out[lane] = vec4u(token, flags, step, 0u);
    lanes[lane].step = step + 1u;
    seen[lane * shape.words + token / 32u] |= 1u << (token % 32u);
    let done = select(0u, ROW_DONE, flags != 0u);
    rows.row[lane] = vec4u(token, lane, rows.row[lane].z + 1u, ROW_GENERATED | done);
}
