// Key-value twin: a pair of neighbouring elements as two f16 in a u32 (no f16 arithmetic needed).
//
// What f16 cannot hold becomes infinite and what is no number stays none, so that both reach the check of
// the logits: a cache that rounds them to the largest f16 would change what the model says without a word.
alias KvPair = u32;

const KV_OVERFLOW: u32 = 0x477ff000u; // 65520, the least magnitude that rounds to infinity

fn kv_pack(v: vec2f) -> KvPair {
    let bits = bitcast<vec2u>(v);
    let magnitude = bits & vec2u(0x7fffffffu);
    let nan = magnitude > vec2u(0x7f800000u);
    let beyond = ((bits >> vec2u(16u)) & vec2u(0x8000u)) | select(vec2u(0x7c00u), vec2u(0x7e00u), nan);
    let packed = pack2x16float(clamp(v, vec2f(-65504.0), vec2f(65504.0)));
    let halves = vec2u(packed & 0xffffu, packed >> 16u);
    let stored = select(halves, beyond, magnitude >= vec2u(KV_OVERFLOW));
    return stored.x | (stored.y << 16u);
}

fn kv_unpack(p: KvPair) -> vec2f {
    return unpack2x16float(p);
}
