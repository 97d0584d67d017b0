// Reduction twin: sums and maxima over a workgroup of `WG` invocations through workgroup memory.
//
// Every function must be called by the whole workgroup in uniform control flow; all invocations
// receive the same bits. `WG` is a power of two.
override WG: u32 = 64u;

var<workgroup> reduce_slots: array<vec4f, WG>;

fn reduce_sum(v: vec4f, tid: u32) -> vec4f {
    reduce_slots[tid] = v;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if tid < half {
            reduce_slots[tid] += reduce_slots[tid + half];
        }
        workgroupBarrier();
    }
    let total = reduce_slots[0];
    workgroupBarrier();
    return total;
}

fn reduce_max(v: f32, tid: u32) -> f32 {
    reduce_slots[tid].x = v;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if tid < half {
            reduce_slots[tid].x = max(reduce_slots[tid].x, reduce_slots[tid + half].x);
        }
        workgroupBarrier();
    }
    let top = reduce_slots[0].x;
    workgroupBarrier();
    return top;
}
