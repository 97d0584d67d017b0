// Reduction twin: sums over the teams of TEAM neighbouring invocations of a workgroup, each of several subgroups of
// SUBGROUP, of which the n-th invocation is the workgroup's SUBGROUP * i + n-th.
//
// Call by the whole workgroup in uniform control flow; all invocations of a team receive the same bits.
override SUBGROUP: u32 = 8u;

var<workgroup> team_slots: array<vec4f, WG>;

fn team_sum(v: vec4f, tid: u32) -> vec4f {
    var sum = v;
    for (var apart = 1u; apart < SUBGROUP; apart *= 2u) {
        sum += subgroupShuffleXor(sum, apart);
    }
    team_slots[tid] = sum;
    workgroupBarrier();
    var total = vec4f(0.0);
    let first = tid - tid % TEAM;
    for (var i = 0u; i < TEAM; i += SUBGROUP) {
        total += team_slots[first + i];
    }
    workgroupBarrier();
    return total;
}
