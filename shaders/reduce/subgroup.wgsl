// Reduction twin: sums and maxima over a workgroup of `WG` invocations through subgroups.
//
// Subgroups may have any size and any mapping to invocations: each subgroup adds up its own part, one
// slot a subgroup takes it (the others stay at the neutral element), every subgroup then combines all
// slots, and invocation 0's result goes to all, so that all receive the same bits. Call in uniform
// control flow. `WG` is a power of two.
override WG: u32 = 64u;

var<workgroup> reduce_slots: array<vec4f, WG>;
var<workgroup> reduce_total: vec4f;

fn reduce_sum(v: vec4f, tid: u32) -> vec4f {
    let part = subgroupAdd(v);
    reduce_slots[tid] = select(vec4f(0.0), part, subgroupMin(tid) == tid);
    workgroupBarrier();
    let size = subgroupAdd(1u);
    var sum = vec4f(0.0);
    for (var i = subgroupExclusiveAdd(1u); i < WG; i += size) {
        sum += reduce_slots[i];
    }
    let total = subgroupAdd(sum);
    if tid == 0u {
        reduce_total = total;
    }
    workgroupBarrier();
    return reduce_total;
}

fn reduce_max(v: f32, tid: u32) -> f32 {
    reduce_slots[tid].x = subgroupMax(v);
    workgroupBarrier();
    let size = subgroupAdd(1u);
    var top = v;
    for (var i = subgroupExclusiveAdd(1u); i < WG; i += size) {
        top = max(top, reduce_slots[i].x);
    }
    let total = subgroupMax(top);
    if tid == 0u {
        reduce_total.x = total;
    }
    workgroupBarrier();
    return reduce_total.x;
}
