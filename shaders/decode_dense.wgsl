// Kernel: a sparse autoencoder's reconstruction from all activations,
// b_dec + sum of activation * decoder row, in the residual's units.
//
// acts [rows, latents] -> out [rows, hidden]. A dictionary's decoder may lie in several matrices; one
// dispatch adds the latents of one of them, in order; the first begins with b_dec, the last undoes the
// normalisation. A workgroup marks the active ones of 2048 latents at a time, then adds those. One
// invocation computes 4 elements. Grid: (ceil(hidden/4 / 64), rows).
@group(0) @binding(0) var<storage, read> acts: array<f32>; // [rows, latents]

const CHUNK: u32 = 2048u;

// One bit a latent of the chunk.
var<workgroup> active_bits: array<atomic<u32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = workgroup.y;
    // Uniform over the workgroup.
    if row >= rows.count {
        return;
    }
    let column = workgroup.x * 64u + tid;
    let inside = column < shape.hidden4;
    let base = row * shape.inputs + shape.first;
    var sum = vec4f(0.0);
    if inside {
        sum = begin(row, column);
    }
    for (var chunk = 0u; chunk < shape.count; chunk += CHUNK) {
        atomicStore(&active_bits[tid], 0u);
        workgroupBarrier();
        for (var i = 0u; i < CHUNK / 64u; i++) {
            let bit = i * 64u + tid;
            let latent = chunk + bit;
            if latent < shape.count && acts[base + latent] != 0.0 {
                atomicOr(&active_bits[bit / 32u], 1u << (bit % 32u));
            }
        }
        workgroupBarrier();
        if inside {
            for (var word = 0u; word < 64u; word++) {
                var bits = atomicLoad(&active_bits[word]);
                while bits != 0u {
                    let latent = chunk + word * 32u + firstTrailingBit(bits);
                    bits &= bits - 1u;
                    sum += acts[base + latent] * decoder_at(latent, column);
                }
            }
        }
        workgroupBarrier();
    }
    if inside {
        end(row, column, sum);
    }
}
