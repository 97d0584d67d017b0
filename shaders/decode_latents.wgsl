// Kernel: a sparse autoencoder's reconstruction from the list of active latents,
// b_dec + sum of activation * decoder row, in the residual's units.
//
// features [rows, k] (latent, f32 bits) -> out [rows, hidden]. A dictionary's decoder may lie in several
// matrices; one dispatch adds the latents of one of them, in the order of the list; the first begins with
// b_dec, the last undoes the normalisation. One invocation computes 4 elements.
// Grid: (ceil(hidden/4 / 64), rows).
@group(0) @binding(0) var<storage, read> features: array<vec2u>; // [rows, k]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y;
    if id.x >= shape.hidden4 || row >= rows.count {
        return;
    }
    var sum = begin(row, id.x);
    for (var i = 0u; i < shape.inputs; i++) {
        let feature = features[row * shape.inputs + i];
        // Latents before `first` wrap around; empty slots are past any matrix's end.
        let local = feature.x - shape.first;
        if local < shape.count {
            sum += bitcast<f32>(feature.y) * decoder_at(local, id.x);
        }
    }
    end(row, id.x, sum);
}
