// Reduction twin: sums over the teams of TEAM neighbouring invocations of a workgroup, through workgroup memory.
//
// Call by the whole workgroup in uniform control flow; all invocations of a team receive the same bits.
var<workgroup> team_slots: array<vec4f, WG>;

fn team_sum(v: vec4f, tid: u32) -> vec4f {
    team_slots[tid] = v;
    workgroupBarrier();
    for (var half = TEAM / 2u; half > 0u; half /= 2u) {
        if tid % TEAM < half {
            team_slots[tid] += team_slots[tid + half];
        }
        workgroupBarrier();
    }
    let total = team_slots[tid - tid % TEAM];
    workgroupBarrier();
    return total;
}
