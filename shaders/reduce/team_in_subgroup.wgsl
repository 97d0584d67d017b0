// Reduction twin: sums over the teams of TEAM neighbouring invocations of a workgroup, each within one subgroup, of
// which the n-th invocation is the workgroup's SUBGROUP * i + n-th.
//
// Call by the whole workgroup in uniform control flow; all invocations of a team receive the same bits.
fn team_sum(v: vec4f, tid: u32) -> vec4f {
    var sum = v;
    for (var apart = 1u; apart < TEAM; apart *= 2u) {
        sum += subgroupShuffleXor(sum, apart);
    }
    return sum;
}
