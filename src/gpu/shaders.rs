//! The WGSL texts in `shaders/`.

macro_rules! shaders {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = include_str!(concat!("../../shaders/", $file));)*
    };
}

shaders! {
    /// Capability prelude with `shader-f16`.
    PRELUDE_F16 = "prelude/f16.wgsl";
    /// Pairs of f16 in a u32, natively.
    PRELUDE_HALF_NATIVE = "prelude/half_native.wgsl";
    /// Pairs of f16 in a u32, in browsers.
    PRELUDE_HALF_WEB = "prelude/half_web.wgsl";
    /// Capability prelude without.
    PRELUDE_F32 = "prelude/f32.wgsl";
    /// Numbers that are none.
    FINITE = "prelude/finite.wgsl";
    /// The rows of a pass.
    ROWS = "prelude/rows.wgsl";
    /// Reductions through subgroups.
    REDUCE_SUBGROUP = "reduce/subgroup.wgsl";
    /// Reductions through workgroup memory.
    REDUCE_SHARED = "reduce/shared.wgsl";
    /// Sums over teams, through workgroup memory.
    REDUCE_TEAM_SHARED = "reduce/team_shared.wgsl";
    /// Sums over teams within a subgroup.
    REDUCE_TEAM_IN_SUBGROUP = "reduce/team_in_subgroup.wgsl";
    /// Sums over teams of several subgroups.
    REDUCE_TEAM_SUBGROUP = "reduce/team_subgroup.wgsl";
    /// 4-bit weights.
    WEIGHTS_Q4 = "weights/q4.wgsl";
    /// 4-bit weights with a minimum.
    WEIGHTS_Q4M = "weights/q4m.wgsl";
    /// 5-bit weights.
    WEIGHTS_Q5 = "weights/q5.wgsl";
    /// 6-bit weights.
    WEIGHTS_Q6 = "weights/q6.wgsl";
    /// 8-bit weights.
    WEIGHTS_Q8 = "weights/q8.wgsl";
    /// f32 weights.
    WEIGHTS_F32 = "weights/f32.wgsl";
    /// f16 key-value cache.
    KV_F16 = "kv/f16.wgsl";
    /// f32 key-value cache.
    KV_F32 = "kv/f32.wgsl";
    /// Input and shape of matrix products.
    MATMUL_INPUT = "matmul/input.wgsl";
    /// Running sums of the GEMV skeleton of an invocation a unit.
    MATMUL_ACCUMULATE = "matmul/accumulate.wgsl";
    /// Running sums of the GEMV skeleton of a team a unit.
    MATMUL_SUMS = "matmul/sums.wgsl";
    /// Arithmetic twin, f32.
    DOTS_F32 = "dots/f32.wgsl";
    /// Arithmetic twin, f16 for 4-bit weights.
    DOTS_F16 = "dots/f16.wgsl";
    /// GEMV, an invocation a unit.
    MATMUL_THREAD = "matmul/thread.wgsl";
    /// GEMV, a team of invocations a unit.
    MATMUL_SPLIT = "matmul/split.wgsl";
    /// GEMM in tiles.
    MATMUL_TILE = "matmul/tile.wgsl";
    /// GEMM on matrix units.
    MATMUL_MATRICES = "matmul/matrices.wgsl";
    /// GEMM, an invocation two units of eight rows.
    MATMUL_BLOCK = "matmul/block.wgsl";
    /// The eight matrix rows of an invocation on CPU adapters.
    MATMUL_EIGHT = "matmul/eight.wgsl";
    /// Eight matrix rows an invocation, whose activations a subgroup loads together.
    MATMUL_BROADCAST = "matmul/broadcast.wgsl";
    /// Attention projection.
    PROJECT_QKV = "project_qkv.wgsl";
    /// Projection onto the residual stream.
    PROJECT_RESIDUAL = "project_residual.wgsl";
    /// MLP up.
    PROJECT_SWIGLU = "project_swiglu.wgsl";
    /// Language-model head.
    PROJECT_HEAD = "project_head.wgsl";
    /// Dictionary encoder.
    PROJECT_LATENTS = "project_latents.wgsl";
    /// Token embedding.
    EMBED = "embed.wgsl";
    /// Attention, what its kernels share.
    ATTENTION_SHAPE = "attention_shape.wgsl";
    /// Attention.
    ATTENTION = "attention.wgsl";
    /// Attention, an invocation a head of a row.
    ATTENTION_THREAD = "attention_thread.wgsl";
    /// Attention, reads of 16 bytes.
    ATTENTION_WIDE = "attention_wide.wgsl";
    /// Attention, combination of splits.
    ATTENTION_MERGE = "attention_merge.wgsl";
    /// Normalisation of a dictionary's input.
    NORMALIZE_VECTORS = "normalize_vectors.wgsl";
    /// GroupMax activation.
    GROUP_MAX = "group_max.wgsl";
    /// TopK activation.
    TOPK = "topk.wgsl";
    /// Rows of a dictionary decoder.
    DECODER_ROW = "decoder/row.wgsl";
    /// Where the sums of a reconstruction begin and end.
    DECODER_SUM = "decoder/sum.wgsl";
    /// Reconstruction from a list of latents.
    DECODE_LATENTS = "decode_latents.wgsl";
    /// Reconstruction from all latents.
    DECODE_DENSE = "decode_dense.wgsl";
    /// One row of a dictionary decoder.
    FETCH_DIRECTION = "fetch_direction.wgsl";
    /// A block of a dictionary's matrix into its planes.
    STORE_WEIGHTS = "store_weights.wgsl";
    /// Storing twin, f32.
    STORE_F32 = "store/f32.wgsl";
    /// Storing twin, 8-bit weights.
    STORE_Q8 = "store/q8.wgsl";
    /// Edits of the residual stream.
    STEER = "steer.wgsl";
    /// Sampling.
    SAMPLE = "sample.wgsl";
    /// Training: pre-activations.
    TRAIN_ENCODE = "train/encode.wgsl";
    /// Training: pre-activations of dead latents.
    TRAIN_KEEP_DEAD = "train/keep_dead.wgsl";
    /// Training: what active latents leave of a target.
    TRAIN_RESIDUAL = "train/residual.wgsl";
    /// Training: sums of squares of rows.
    TRAIN_SQUARES = "train/squares.wgsl";
    /// Training: gradient by activations.
    TRAIN_SLOT_GRADIENT = "train/slot_gradient.wgsl";
    /// Training: gradient by encoder and decoder.
    TRAIN_WEIGHT_GRADIENT = "train/weight_gradient.wgsl";
    /// Training: gradient by `b_dec`.
    TRAIN_OFFSET_GRADIENT = "train/offset_gradient.wgsl";
    /// Training: a gradient without its part along unit rows.
    TRAIN_TANGENT = "train/tangent.wgsl";
    /// Training: rows of norm 1.
    TRAIN_UNIT_ROWS = "train/unit_rows.wgsl";
    /// Training: Adam.
    TRAIN_ADAM = "train/adam.wgsl";
}
