// Kernel: edits the residual stream at a hook point by the steering table.
//
// residual [rows, hidden] -> the same, edited. A lane owns SLOTS entries of the table; they are applied
// in order, up to the first empty one, to the rows that they are for:
//
//   clamp          h += (value - f) d      f: the latent's activation, measured once on the unedited h
//   add            h += value d            d: the latent's decoder row in the residual's units
//   scale          h += (value - 1) f d
//   project_out    h -= <h, d> d / <d, d>  of the h that the entries before have left
//   cap            h += (value - p) d/|d|  where p = <h, d>/|d| > value, of the same h
//   amplify        h += (value - 1) p d/|d| with the same p
//   clamp_replace  as clamp, on the dictionary's reconstruction in place of h
//   reconstruct    h := the reconstruction
//
// The first that rebuilds (clamp_replace, reconstruct) and applies to a row puts the reconstruction in place
// of h; the host lists them first, so that all other edits come on top. One workgroup of WG invocations a row;
// an invocation owns the same elements throughout. Grid: (1, rows).
// Entries with ALONG work along a direction that is no latent's: d is in the residual's units, and clamp
// makes its component p, whatever it is, the value.
//
// The host gives the constants OP_… of the operators, whether one measures (needs the activation) or rebuilds,
// and the flags of entries: AT_PROMPT, AT_GENERATED, AT_BOS (applies to such tokens), IF_ACTIVE (applies only
// where the latent is active), ALONG.
struct Entry {
    op: u32,
    flags: u32,
    latent: u32, // or the direction's number, which is the host's own affair
    value: f32,
}

struct SteerShape {
    hidden4: u32, // hidden / 4
    inputs: u32, // k, or latents in all
    slots: u32, // entries a lane
    unused: u32,
}

@group(0) @binding(0) var<storage, read> table: array<Entry>; // [lanes, slots]
@group(0) @binding(1) var<storage, read> directions: array<vec4f>; // [lanes, slots, hidden/4] decoder rows, or directions
// DENSE: [rows, latents] f32 bits, else [rows, k] (latent, f32 bits)
@group(0) @binding(2) var<storage, read> features: array<u32>;
@group(0) @binding(3) var<uniform> shape: SteerShape;
@group(0) @binding(4) var<storage, read> rebuilt: array<vec4f>; // [rows, hidden/4] reconstructions
@group(0) @binding(5) var<uniform> rows: Rows;
@group(0) @binding(6) var<storage, read_write> residual: array<vec4f>; // [rows, hidden/4]
@group(0) @binding(7) var<storage, read> units: array<vec2f>; // [rows] (factor, offset) to the residual

// Whether activations of all latents are at hand, or only a list of those that are active.
override DENSE: bool = false;

// The latent's activation in the row: zero if it is not in the list.
fn activation(row: u32, latent: u32) -> f32 {
    if DENSE {
        return bitcast<f32>(features[row * shape.inputs + latent]);
    }
    for (var i = 0u; i < shape.inputs; i++) {
        let at = 2u * (row * shape.inputs + i);
        if features[at] == latent {
            return bitcast<f32>(features[at + 1u]);
        }
    }
    return 0.0;
}

// The reconstruction in place of h, but for elements of h that are not finite: no dictionary mends them.
fn replaced_by(h: vec4f, y: vec4f) -> vec4f {
    let broken = vec4<bool>(not_finite(h.x), not_finite(h.y), not_finite(h.z), not_finite(h.w));
    return select(y, h, broken);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = workgroup.y;
    // Control flow is uniform: it depends on read-only buffers and the workgroup alone.
    if row >= rows.count {
        return;
    }
    let token = rows.row[row];
    if (token.w & ROW_DONE) != 0u {
        return;
    }
    let role = select(AT_PROMPT, AT_GENERATED, (token.w & ROW_GENERATED) != 0u);
    let bos = select(0u, AT_BOS, (token.w & ROW_BOS) != 0u);
    let base = row * shape.hidden4;
    let unit = units[row].x;
    var replaced = false;
    for (var slot = 0u; slot < shape.slots; slot++) {
        let index = token.y * shape.slots + slot;
        let entry = table[index];
        if entry.op == OP_EMPTY {
            break;
        }
        if (entry.flags & role) == 0u || (entry.flags & bos) != bos {
            continue;
        }
        let direction = index * shape.hidden4;
        let along = (entry.flags & ALONG) != 0u;
        let factor = select(unit, 1.0, along);
        var f = 0.0;
        // Entries without these do not need the encoder, which may not have run.
        if !along && (measures(entry.op) || (entry.flags & IF_ACTIVE) != 0u) {
            f = activation(row, entry.latent);
        }
        if (entry.flags & IF_ACTIVE) != 0u && f == 0.0 {
            continue;
        }
        if rebuilds(entry.op) && !replaced {
            replaced = true;
            for (var i = tid; i < shape.hidden4; i += WG) {
                residual[base + i] = replaced_by(residual[base + i], rebuilt[base + i]);
            }
        }
        var c = 0.0;
        let turns = entry.op == OP_PROJECT_OUT || entry.op == OP_CAP || entry.op == OP_AMPLIFY;
        if turns || (along && entry.op == OP_CLAMP) {
            var part = vec4f(0.0);
            for (var i = tid; i < shape.hidden4; i += WG) {
                let d = directions[direction + i];
                part += vec4f(dot(residual[base + i], d), dot(d, d), 0.0, 0.0);
            }
            let sums = reduce_sum(part, tid);
            // A decoder row of zeros has no direction.
            if sums.y > 0.0 {
                let norm = sqrt(sums.y);
                let component = sums.x / norm;
                var goal = 0.0;
                if entry.op == OP_CLAMP {
                    goal = entry.value;
                } else if entry.op == OP_CAP {
                    goal = min(component, entry.value);
                } else if entry.op == OP_AMPLIFY {
                    goal = entry.value * component;
                }
                c = (goal - component) / norm;
            }
        } else if entry.op == OP_CLAMP || entry.op == OP_CLAMP_REPLACE {
            c = factor * (entry.value - f);
        } else if entry.op == OP_ADD {
            c = factor * entry.value;
        } else if entry.op == OP_SCALE {
            c = factor * ((entry.value - 1.0) * f);
        }
        if entry.op != OP_RECONSTRUCT {
            for (var i = tid; i < shape.hidden4; i += WG) {
                residual[base + i] += c * directions[direction + i];
            }
        }
    }
}
