// Key-value twin: a pair of neighbouring elements in full precision.
alias KvPair = vec2f;

fn kv_pack(v: vec2f) -> KvPair {
    return v;
}

fn kv_unpack(p: KvPair) -> vec2f {
    return p;
}
