// Kernel: GroupMax activation, of each group of latents the largest pre-activation; those of the others zero, in
// place. The lowest latent counts among equals.
//
// acts [rows, latents] f32, the latents of a group side by side. One invocation a group.
// Grid: (ceil(groups / 64), rows).
struct GroupShape {
    latents: u32,
    groups: u32, // divides latents
    unused0: u32,
    unused1: u32,
}

@group(0) @binding(0) var<storage, read_write> acts: array<f32>; // [rows, latents]
@group(0) @binding(3) var<uniform> shape: GroupShape;
@group(0) @binding(5) var<uniform> rows: Rows;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= shape.groups || id.y >= rows.count {
        return;
    }
    let size = shape.latents / shape.groups;
    let first = id.y * shape.latents + id.x * size;
    var best = first;
    for (var i = first + 1u; i < first + size; i++) {
        if acts[i] > acts[best] {
            best = i;
        }
    }
    let largest = acts[best];
    for (var i = first; i < first + size; i++) {
        acts[i] = select(0.0, largest, i == best);
    }
}
