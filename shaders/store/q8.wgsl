// Storing twin: 8 bits in groups of 32 with an f16 scale, value = scale * i8.
@group(0) @binding(1) var<storage, read_write> words: array<vec4u>; // [rows, groups, 2]
@group(0) @binding(2) var<storage, read_write> side: array<u32>; // [rows, ceil(groups / 2)] two f16

// The least f16 that is no less than v, as bits: the largest weight of a group must not be cut off.
fn scale_bits(v: f32) -> u32 {
    let bits = pack2x16float(vec2f(v, 0.0));
    return bits + select(0u, 1u, unpack2x16float(bits).x < v);
}

fn bytes(v: vec4f) -> u32 {
    let n = bitcast<vec4u>(vec4i(clamp(round(v), vec4f(-127.0), vec4f(127.0)))) & vec4u(255u);
    return n.x | (n.y << 8u) | (n.z << 16u) | (n.w << 24u);
}

// Stores one group of a matrix row and returns its scale.
fn store_group(row: u32, group: u32) -> u32 {
    if group >= shape.groups {
        return 0u;
    }
    var largest = vec4f(0.0);
    for (var i = 0u; i < 8u; i++) {
        largest = max(largest, abs(four_at(group * 32u + 4u * i)));
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    let bits = scale_bits(most / 127.0);
    let scale = unpack2x16float(bits).x;
    let inverse = select(0.0, 1.0 / scale, scale > 0.0);
    for (var half = 0u; half < 2u; half++) {
        let at = group * 32u + 16u * half;
        words[(row * shape.groups + group) * 2u + half] = vec4u(
            bytes(four_at(at) * inverse),
            bytes(four_at(at + 4u) * inverse),
            bytes(four_at(at + 8u) * inverse),
            bytes(four_at(at + 12u) * inverse),
        );
    }
    return bits;
}

// Stores columns 64 pair .. 64 pair + 64 of a matrix row.
fn store_pair(row: u32, pair: u32) {
    let even = store_group(row, 2u * pair);
    let odd = store_group(row, 2u * pair + 1u);
    side[row * ((shape.groups + 1u) / 2u) + pair] = even | (odd << 16u);
}
