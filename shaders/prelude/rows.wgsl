// The rows of activations that a pass works on, the same for prefill and decode. A row is one token
// of one lane; at most 256 rows a pass.
//
// row.x: token id, or for the head the activation row to read
// row.y: lane
// row.z: position of the token in its lane
// row.w: flags
const ROW_GENERATED: u32 = 1u; // part of an assistant's reply
const ROW_BOS: u32 = 2u; // the beginning-of-sequence token
const ROW_DONE: u32 = 4u; // the lane has stopped; what the row computes is ignored

struct Rows {
    count: u32,
    row: array<vec4<u32>, 256>,
}
