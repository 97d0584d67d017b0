// Numbers that are none. By their bits: a compiler may take it that there are no such values, and maxima,
// clamps and comparisons give one of their other arguments.

// Whether v is infinite or no number.
fn not_finite(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u;
}

// No number, given v that is not finite: whatever follows it reaches the check of the logits.
fn no_number(v: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(v) | 0x7fc00000u);
}
