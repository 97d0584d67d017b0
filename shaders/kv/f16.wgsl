// Key-value twin: a pair of neighbouring elements as two f16 in a u32 (no f16 arithmetic needed).
alias KvPair = u32;

fn kv_pack(v: vec2f) -> KvPair {
    return pack2x16float(clamp(v, vec2f(-65504.0), vec2f(65504.0)));
}

fn kv_unpack(p: KvPair) -> vec2f {
    return unpack2x16float(p);
}
