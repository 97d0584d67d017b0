// Two f16 in a u32, the low half first. naga has no bitcast between the two; drivers see through this one.
fn half_pair(bits: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float(bits));
}
