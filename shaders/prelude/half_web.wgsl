// Two f16 in a u32, the low half first.
fn half_pair(bits: u32) -> vec2<f16> {
    return bitcast<vec2<f16>>(bits);
}
