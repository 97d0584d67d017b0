//! The kernels of the forward pass, and one block's dispatches.

use super::cache::{Cache, CacheFormat};
use super::rows::MAX_ROWS;
use super::weights::{LayerWeights, Weights};
use super::{Config, ModelError};
use crate::gpu::{Access, Gpu, Grid, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{
    Format, Operands, Product, ProductShape, ProductSpec, ProductStep, Prologue, weights_bindings,
    weights_part,
};

/// Splits of a decode step's attention over a long cache.
const SPLITS: u32 = 16;
/// Positions from which a decode step splits its attention.
const SPLIT_FROM: usize = 512;
/// Invocations of an attention workgroup.
const ATTENTION_INVOCATIONS: u32 = 64;

/// The compiled kernels of a model.
pub(super) struct Kernels {
    embed: Kernel,
    qkv: Product,
    attention: Kernel,
    merge: Kernel,
    residual_o: Product,
    swiglu: Product,
    residual_down: Product,
    head: Product,
}

impl Kernels {
    /// Compiles the kernels for `config`.
    pub async fn new(
        gpu: &Gpu,
        config: &Config,
        lanes: usize,
        format: Format,
        cache: CacheFormat,
    ) -> Result<Self, ModelError> {
        let c = config;
        let spec = |label, kernel, prologue, cols, bindings| ProductSpec {
            label,
            kernel,
            parts: &[],
            prologue,
            format,
            cols,
            bindings,
            few_rows: lanes,
        };
        let mut embed_bindings = vec![
            (3, Access::Uniform),
            (5, Access::Uniform),
            (6, Access::Write),
        ];
        embed_bindings.extend_from_slice(weights_bindings(format));
        let adds: &[_] = &[(6, Access::Write)];
        Ok(Self {
            embed: gpu
                .kernel(&KernelDescriptor {
                    label: "embed",
                    parts: &[shaders::ROWS, weights_part(format), shaders::EMBED],
                    constants: &[],
                    bindings: &embed_bindings,
                })
                .await?,
            qkv: Product::new(
                gpu,
                &ProductSpec {
                    parts: &[cache.part()],
                    ..spec(
                        "qkv",
                        shaders::PROJECT_QKV,
                        Prologue::Norm,
                        c.hidden_size,
                        &[
                            (6, Access::Read),
                            (7, Access::Write),
                            (8, Access::Write),
                            (9, Access::Write),
                        ],
                    )
                },
            )
            .await?,
            attention: gpu
                .kernel(&KernelDescriptor {
                    label: "attention",
                    parts: &[
                        shaders::ROWS,
                        gpu.reduction_part(),
                        cache.part(),
                        shaders::ATTENTION,
                    ],
                    constants: &[("WG", ATTENTION_INVOCATIONS as f64)],
                    bindings: &[
                        (0, Access::Read),
                        (1, Access::Read),
                        (2, Access::Read),
                        (3, Access::Uniform),
                        (4, Access::Write),
                        (5, Access::Uniform),
                    ],
                })
                .await?,
            merge: gpu
                .kernel(&KernelDescriptor {
                    label: "attention merge",
                    parts: &[shaders::ROWS, shaders::ATTENTION_MERGE],
                    constants: &[],
                    bindings: &[
                        (0, Access::Read),
                        (3, Access::Uniform),
                        (4, Access::Write),
                        (5, Access::Uniform),
                    ],
                })
                .await?,
            residual_o: Product::new(
                gpu,
                &spec(
                    "attention output",
                    shaders::PROJECT_RESIDUAL,
                    Prologue::None,
                    c.attention_width(),
                    adds,
                ),
            )
            .await?,
            swiglu: Product::new(
                gpu,
                &spec(
                    "gate and up",
                    shaders::PROJECT_SWIGLU,
                    Prologue::Norm,
                    c.hidden_size,
                    adds,
                ),
            )
            .await?,
            residual_down: Product::new(
                gpu,
                &spec(
                    "down",
                    shaders::PROJECT_RESIDUAL,
                    Prologue::None,
                    c.intermediate_size,
                    adds,
                ),
            )
            .await?,
            head: Product::new(
                gpu,
                &spec(
                    "head",
                    shaders::PROJECT_HEAD,
                    Prologue::Norm,
                    c.hidden_size,
                    adds,
                ),
            )
            .await?,
        })
    }
}

/// The activations of a pass.
pub(super) struct Activations {
    /// `[MAX_ROWS, hidden]` f32
    pub residual: wgpu::Buffer,
    /// `[MAX_ROWS, heads, head_dim / 2]` pairs of f32
    q: wgpu::Buffer,
    /// `[lanes, heads, SPLITS, head_dim / 2 + 1]` pairs of f32
    partials: wgpu::Buffer,
    /// `[MAX_ROWS, heads * head_dim]` f32
    attended: wgpu::Buffer,
    /// `[MAX_ROWS, inner]` f32
    mlp: wgpu::Buffer,
    /// `[lanes, vocab]` f32
    pub logits: wgpu::Buffer,
    /// `[positions, rotary_dim / 2]` (cos, sin)
    rotary: wgpu::Buffer,
}

impl Activations {
    /// Buffers for `lanes` lanes of at most `context` positions.
    pub async fn new(
        gpu: &Gpu,
        config: &Config,
        lanes: usize,
        context: usize,
    ) -> Result<Self, ModelError> {
        let c = config;
        let rows = |width: usize| (MAX_ROWS * width * 4) as u64;
        let partial = c.num_attention_heads * SPLITS as usize * (c.head_dim / 2 + 1);
        let table = c.rotary_table(context);
        let rotary = gpu
            .storage("rotary table", size_of_val(&table[..]) as u64)
            .await?;
        gpu.write(&rotary, 0, &table);
        Ok(Self {
            residual: gpu.storage("residual", rows(c.hidden_size)).await?,
            q: gpu.storage("queries", rows(c.attention_width())).await?,
            partials: gpu
                .storage("attention splits", (lanes * partial * 8) as u64)
                .await?,
            attended: gpu.storage("attention", rows(c.attention_width())).await?,
            mlp: gpu.storage("mlp", rows(c.intermediate_size)).await?,
            logits: gpu
                .storage("logits", (lanes * c.vocab_size * 4) as u64)
                .await?,
            rotary,
        })
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct AttentionShape {
    heads: u32,
    kv_heads: u32,
    pairs: u32,
    capacity: u32,
    window: u32,
    splits: u32,
    scale: f32,
    unused: u32,
}

/// One block's dispatches.
struct LayerSteps {
    qkv: ProductStep,
    attention: Step,
    attention_split: Step,
    o: ProductStep,
    swiglu: ProductStep,
    down: ProductStep,
}

/// A pass's dispatches, bound to its rows.
pub(super) struct Steps {
    embed: Step,
    embed_groups: u32,
    layers: Vec<LayerSteps>,
    merge: Step,
    merge_groups: u32,
    heads: u32,
    head: ProductStep,
    may_split: bool,
}

/// What the dispatches of a pass are bound to.
pub(super) struct Bindings<'a> {
    pub config: &'a Config,
    pub weights: &'a Weights,
    pub activations: &'a Activations,
    pub cache: &'a Cache,
    /// The pass's rows.
    pub rows: &'a wgpu::Buffer,
    /// The head's rows.
    pub head_rows: &'a wgpu::Buffer,
    /// Whether the pass may have more rows than lanes.
    pub many: bool,
}

impl Steps {
    /// Binds all kernels.
    pub fn new(gpu: &Gpu, kernels: &Kernels, b: &Bindings<'_>) -> Self {
        let (c, a) = (b.config, b.activations);
        let epsilon = c.rms_norm_eps as f32;
        let embed_shape = gpu.uniform(
            "embedding shape",
            &[
                (c.hidden_size / 4) as u32,
                crate::quant::groups(c.hidden_size) as u32,
                c.vocab_size as u32,
                0,
            ],
        );
        let mut embed = b.weights.embed.buffers();
        embed.extend([(3, &embed_shape), (5, b.rows), (6, &a.residual)]);
        let head = b.weights.head();
        let merge_shape = gpu.uniform(
            "merge shape",
            &[
                c.num_attention_heads as u32,
                (c.head_dim / 2) as u32,
                SPLITS,
                0,
            ],
        );
        Self {
            embed: kernels.embed.bind(gpu, &embed),
            embed_groups: (crate::quant::groups(c.hidden_size) as u32 * 4).div_ceil(64),
            layers: (0..c.num_hidden_layers)
                .map(|i| LayerSteps::new(gpu, kernels, b, i))
                .collect(),
            merge: kernels.merge.bind(
                gpu,
                &[
                    (0, &a.partials),
                    (3, &merge_shape),
                    (4, &a.attended),
                    (5, b.rows),
                ],
            ),
            merge_groups: (c.head_dim as u32 / 2).div_ceil(64),
            heads: c.num_attention_heads as u32,
            head: kernels.head.bind(
                gpu,
                false,
                &Operands {
                    matrix: head,
                    shape: &ProductShape {
                        epsilon,
                        ..ProductShape::of(head)
                    },
                    x: &a.residual,
                    pre: &b.weights.norm,
                    rows: b.head_rows,
                    own: &[(6, &a.logits)],
                },
            ),
            may_split: !b.many,
        }
    }

    /// The token embedding.
    pub fn embed(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        self.embed.dispatch(pass, [self.embed_groups, rows, 1]);
    }

    /// Block `i` for `rows` rows, none of which sees more than `seen` positions.
    pub fn block(&self, pass: &mut wgpu::ComputePass<'_>, i: usize, rows: u32, seen: usize) {
        let layer = &self.layers[i];
        layer.qkv.dispatch(pass, rows);
        if self.may_split && seen >= SPLIT_FROM {
            let grid: Grid = [self.heads, rows, SPLITS];
            layer.attention_split.dispatch(pass, grid);
            self.merge
                .dispatch(pass, [self.merge_groups, self.heads, rows]);
        } else {
            layer.attention.dispatch(pass, [self.heads, rows, 1]);
        }
        layer.o.dispatch(pass, rows);
        layer.swiglu.dispatch(pass, rows);
        layer.down.dispatch(pass, rows);
    }

    /// The head for `rows` of its rows.
    pub fn head(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        self.head.dispatch(pass, rows);
    }
}

impl LayerSteps {
    fn new(gpu: &Gpu, kernels: &Kernels, b: &Bindings<'_>, i: usize) -> Self {
        let (c, a, cache) = (b.config, b.activations, &b.cache.layers[i]);
        let w: &LayerWeights = &b.weights.layers[i];
        let epsilon = c.rms_norm_eps as f32;
        let attention = |splits: u32, out: &wgpu::Buffer| {
            let shape = gpu.uniform(
                "attention shape",
                &AttentionShape {
                    heads: c.num_attention_heads as u32,
                    kv_heads: c.num_key_value_heads as u32,
                    pairs: (c.head_dim / 2) as u32,
                    capacity: b.cache.capacity as u32,
                    window: u32::try_from(c.window()).unwrap_or(u32::MAX),
                    splits,
                    scale: (1.0 / (c.head_dim as f64).sqrt()) as f32,
                    unused: 0,
                },
            );
            kernels.attention.bind(
                gpu,
                &[
                    (0, &a.q),
                    (1, &cache.keys),
                    (2, &cache.values),
                    (3, &shape),
                    (4, out),
                    (5, b.rows),
                ],
            )
        };
        let adds = |product: &Product, matrix, x| {
            product.bind(
                gpu,
                b.many,
                &Operands {
                    matrix,
                    shape: &ProductShape::of(matrix),
                    x,
                    pre: &w.post_norm,
                    rows: b.rows,
                    own: &[(6, &a.residual)],
                },
            )
        };
        Self {
            qkv: kernels.qkv.bind(
                gpu,
                b.many,
                &Operands {
                    matrix: &w.qkv,
                    shape: &ProductShape {
                        heads: c.num_attention_heads as u32,
                        kv_heads: c.num_key_value_heads as u32,
                        head_dim: c.head_dim as u32,
                        rotary_dim: c.rotary_dim as u32,
                        capacity: b.cache.capacity as u32,
                        epsilon,
                        ..ProductShape::of(&w.qkv)
                    },
                    x: &a.residual,
                    pre: &w.input_norm,
                    rows: b.rows,
                    own: &[
                        (6, &a.rotary),
                        (7, &a.q),
                        (8, &cache.keys),
                        (9, &cache.values),
                    ],
                },
            ),
            attention: attention(1, &a.attended),
            attention_split: attention(SPLITS, &a.partials),
            o: adds(&kernels.residual_o, &w.o, &a.attended),
            swiglu: kernels.swiglu.bind(
                gpu,
                b.many,
                &Operands {
                    matrix: &w.gate_up,
                    shape: &ProductShape {
                        units: c.intermediate_size as u32,
                        inner: c.intermediate_size as u32,
                        epsilon,
                        ..ProductShape::of(&w.gate_up)
                    },
                    x: &a.residual,
                    pre: &w.post_norm,
                    rows: b.rows,
                    own: &[(6, &a.mlp)],
                },
            ),
            down: adds(&kernels.residual_down, &w.down, &a.mlp),
        }
    }
}
