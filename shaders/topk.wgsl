// Kernel: TopK activation, the k largest of a row's pre-activations after ReLU.
//
// pre [rows, latents] f32 bits -> out [rows, k] (latent, f32 bits), largest first and the lowest latent
// first among equals; only values > 0 count, and unused slots hold (0xffffffff, 0).
//
// Exact: a radix selection finds the k-th largest value, eight bits of its float at a time (the bits of
// positive floats sort as the floats do). Where more latents share that value than have room, three
// more passes over their indices keep the lowest. It stops as soon as a bin fits whole. One workgroup a
// row; what is chosen is then ranked, so that the order does not depend on the invocations'. NaN counts
// as not positive. k is at most 256, latents at most 2^24. Grid: (1, rows).
struct TopkShape {
    latents: u32,
    k: u32,
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<storage, read> pre: array<u32>; // [rows, latents]
@group(0) @binding(1) var<storage, read_write> out: array<vec2u>; // [rows, k]
// [latents] what the latents are called, where RENAMED; any storage buffer otherwise
@group(0) @binding(2) var<storage, read> names: array<u32>;
@group(0) @binding(3) var<uniform> shape: TopkShape;
@group(0) @binding(5) var<uniform> rows: Rows;

// Whether only some latents of a dictionary are there, under other numbers.
override RENAMED: bool = false;
// At least k. Workgroup memory is zeroed in code on CPU adapters, which compile it an element at a time.
override ROOM: u32 = 256u;

const LANES: u32 = 256u;
const EMPTY: u32 = 0xffffffffu;
const LAST_INDEX: u32 = 0xffffffu;

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> sixteens: array<u32, 16>;
// (least value, least reversed index among latents of that value, room left, 1 when found)
var<workgroup> cut: vec4u;
var<workgroup> taken: atomic<u32>;
var<workgroup> chosen: array<vec2u, ROOM>;

// Whether these are the bits of a float > 0 (infinity included).
fn positive(bits: u32) -> bool {
    return bits - 1u < 0x7f800000u;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = workgroup.y;
    // Uniform over the workgroup.
    if row >= rows.count {
        return;
    }
    let base = row * shape.latents;
    if tid == 0u {
        atomicStore(&taken, 0u);
    }
    var found = vec4u(0u, 0u, shape.k, 0u);
    for (var digit = 0u; digit < 7u; digit++) {
        if found.w == 1u {
            break;
        }
        atomicStore(&bins[tid], 0u);
        workgroupBarrier();
        // Passes 0 to 3 look at the value, 4 to 6 at the index, reversed so that low ones are large.
        let by_value = digit < 4u;
        let shift = select(16u - 8u * (digit - 4u), 24u - 8u * digit, by_value);
        let mask = ~(((1u << shift) << 8u) - 1u);
        if by_value {
            for (var i = tid; i < shape.latents; i += LANES) {
                let bits = pre[base + i];
                // The first pass has no digit to agree with: its mask is ~(0 - 1) = 0.
                if positive(bits) && (bits & mask) == found.x {
                    atomicAdd(&bins[(bits >> shift) & 255u], 1u);
                }
            }
        } else {
            for (var i = tid; i < shape.latents; i += LANES) {
                let reversed = LAST_INDEX - i;
                if pre[base + i] == found.x && (reversed & mask) == found.y {
                    atomicAdd(&bins[(reversed >> shift) & 255u], 1u);
                }
            }
        }
        workgroupBarrier();
        if tid < 16u {
            var sum = 0u;
            for (var i = 0u; i < 16u; i++) {
                sum += atomicLoad(&bins[tid * 16u + i]);
            }
            sixteens[tid] = sum;
        }
        workgroupBarrier();
        if tid == 0u {
            var room = found.z;
            var bin = 256u; // one past the bin that holds the last one taken
            for (var i = 0u; i < 16u && bin > 0u; i++) {
                if sixteens[bin / 16u - 1u] >= room {
                    break;
                }
                room -= sixteens[bin / 16u - 1u];
                bin -= 16u;
            }
            if bin == 0u {
                // Fewer than k are positive: take them all. Only the first pass gets here.
                cut = vec4u(1u, 0u, 0u, 1u);
            } else {
                var count = atomicLoad(&bins[bin - 1u]);
                for (var i = 0u; i < 16u && count < room; i++) {
                    room -= count;
                    bin -= 1u;
                    count = atomicLoad(&bins[bin - 1u]);
                }
                let bits = (bin - 1u) << shift;
                cut = vec4u(
                    found.x | select(0u, bits, by_value),
                    found.y | select(bits, 0u, by_value),
                    room,
                    select(0u, 1u, count == room),
                );
            }
        }
        found = workgroupUniformLoad(&cut);
    }

    for (var i = tid; i < shape.latents; i += LANES) {
        let bits = pre[base + i];
        let kept = bits > found.x || (bits == found.x && LAST_INDEX - i >= found.y);
        if positive(bits) && kept {
            // Exactly k at most are kept.
            chosen[atomicAdd(&taken, 1u)] = vec2u(i, bits);
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&taken);
    if tid < count {
        let mine = chosen[tid];
        var rank = 0u;
        for (var i = 0u; i < count; i++) {
            let other = chosen[i];
            rank += select(0u, 1u, other.y > mine.y || (other.y == mine.y && other.x < mine.x));
        }
        if RENAMED {
            out[row * shape.k + rank] = vec2u(names[mine.x], mine.y);
        } else {
            out[row * shape.k + rank] = mine;
        }
    } else if tid < shape.k {
        out[row * shape.k + tid] = vec2u(EMPTY, 0u);
    }
}
