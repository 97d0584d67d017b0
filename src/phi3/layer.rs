//! The kernels of the forward pass, and one block's dispatches.

use super::attention::{AttentionGrid, attention_kernel};
use super::cache::{Cache, CacheFormat};
use super::rows::MAX_ROWS;
use super::weights::{LayerWeights, Weights};
use super::{Config, ModelError};
use crate::gpu::{Access, Buffer, Gpu, Kernel, KernelDescriptor, Step, shaders};
use crate::matrix::{
    Operands, Product, ProductShape, ProductStep, Prologue, weights_bindings, weights_part,
};

/// Splits of a decode step's attention over a long cache.
const SPLITS: u32 = 16;
/// Positions from which a decode step splits its attention.
const SPLIT_FROM: usize = 192;

/// The kernels of a model.
pub(super) struct Kernels {
    embed: Kernel,
    qkv: Product,
    attention: Kernel,
    merge: Kernel,
    /// Adds to the residual stream: the attention's output, the MLP's.
    residual: Product,
    swiglu: Product,
    head: Product,
}

impl Kernels {
    /// Starts to compile all that the passes of a model with `weights` need, which need not be read yet.
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        lanes: usize,
        weights: &Weights,
        cache: CacheFormat,
    ) -> Self {
        let product = |label, kernel, prologue| Product {
            label,
            kernel,
            parts: Vec::new(),
            prologue,
            bindings: &[(6, Access::Write)],
            few_rows: lanes,
            half: true,
        };
        let norm = Prologue::Norm;
        let embedding = weights.embed.format();
        let mut embed_bindings = vec![
            (3, Access::Uniform),
            (5, Access::Uniform),
            (6, Access::Write),
        ];
        embed_bindings.extend_from_slice(weights_bindings(embedding));
        let kernels = Self {
            embed: gpu.kernel(&KernelDescriptor {
                label: "embed",
                parts: &[shaders::ROWS, weights_part(embedding), shaders::EMBED],
                constants: &[],
                bindings: &embed_bindings,
            }),
            // With those of every product (x, the norm, a matrix's two planes) these are the 8 storage
            // buffers of a stage that WebGPU promises: there is no room for another.
            qkv: Product {
                parts: vec![cache.part()],
                bindings: &[
                    (6, Access::Read),
                    (7, Access::Write),
                    (8, Access::Write),
                    (9, Access::Write),
                ],
                ..product("qkv", shaders::PROJECT_QKV, norm)
            },
            attention: attention_kernel(gpu, cache, config.head_dim),
            merge: gpu.kernel(&KernelDescriptor {
                label: "attention merge",
                parts: &[shaders::ROWS, shaders::ATTENTION_MERGE],
                constants: &[],
                bindings: &[
                    (0, Access::Read),
                    (3, Access::Uniform),
                    (4, Access::Write),
                    (5, Access::Uniform),
                ],
            }),
            residual: product("residual", shaders::PROJECT_RESIDUAL, Prologue::None),
            swiglu: product("gate and up", shaders::PROJECT_SWIGLU, norm),
            head: product("head", shaders::PROJECT_HEAD, norm),
        };
        for many in [true, false] {
            for layer in &weights.layers {
                let qkv = layer.qkv.iter().map(|own| (&kernels.qkv, &own.matrix));
                let others = [
                    (&kernels.residual, &layer.o),
                    (&kernels.swiglu, &layer.gate_up),
                    (&kernels.residual, &layer.down),
                ];
                // A unit is a pair of rows in every product.
                for (product, matrix) in qkv.chain(others) {
                    let size = [matrix.rows().div_ceil(2), matrix.cols()];
                    product.compile(gpu, matrix.format(), size, many);
                }
            }
        }
        for (_, part) in weights.head().parts() {
            let size = [part.rows().div_ceil(2), part.cols()];
            kernels.head.compile(gpu, part.format(), size, false);
        }
        kernels
    }
}

/// The activations of a pass.
pub(super) struct Activations {
    /// `[MAX_ROWS, hidden]` f32
    pub residual: Buffer,
    /// `[MAX_ROWS, heads, head_dim / 2]` pairs of f32
    q: Buffer,
    /// `[lanes, heads, SPLITS, head_dim / 2 + 1]` pairs of f32
    partials: Buffer,
    /// `[MAX_ROWS, heads * head_dim]` f32
    attended: Buffer,
    /// `[MAX_ROWS, inner]` f32
    mlp: Buffer,
    /// `[lanes, vocab]` f32
    pub logits: Buffer,
    /// `[context, rotary_dim / 2]` (cos, sin)
    rotary: Buffer,
}

/// Positions of the rotary table that are computed at a time.
const ROTARY_BLOCK: usize = 4096;

impl Activations {
    /// Buffers for `lanes` lanes of at most `context` positions.
    pub fn new(
        gpu: &Gpu,
        config: &Config,
        lanes: usize,
        context: usize,
    ) -> Result<Self, ModelError> {
        let c = config;
        let rows = |width: usize| (MAX_ROWS * width * 4) as u64;
        let partial = c.num_attention_heads * SPLITS as usize * (c.head_dim / 2 + 1);
        let table = (context * c.rotary_dim * 4) as u64;
        let activations = Self {
            residual: gpu.storage("residual", rows(c.hidden_size))?,
            q: gpu.storage("queries", rows(c.attention_width()))?,
            partials: gpu.storage("attention splits", (lanes * partial * 8) as u64)?,
            attended: gpu.storage("attention", rows(c.attention_width()))?,
            mlp: gpu.storage("mlp", rows(c.intermediate_size))?,
            logits: gpu.storage("logits", (lanes * c.vocab_size * 4) as u64)?,
            rotary: gpu.storage("rotary table", table)?,
        };
        activations.turn(gpu, config, context, false);
        Ok(activations)
    }

    /// Writes the rotary table of `context` positions, with LongRoPE's long factors or the short ones.
    pub fn turn(&self, gpu: &Gpu, config: &Config, context: usize, long: bool) {
        for first in (0..context).step_by(ROTARY_BLOCK) {
            let positions = first..context.min(first + ROTARY_BLOCK);
            let table = config.rotary_table(positions, long);
            let at = (first * config.rotary_dim * 4) as u64;
            gpu.write(&self.rotary, at, &table);
        }
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
    /// One a run of rows that are stored alike.
    qkv: Vec<ProductStep>,
    attention: Step,
    attention_split: Step,
    o: ProductStep,
    swiglu: ProductStep,
    down: ProductStep,
}

/// A pass's dispatches, bound to its rows.
pub(super) struct Steps {
    /// One a part of the table.
    embed: Vec<Step>,
    embed_groups: u32,
    layers: Vec<LayerSteps>,
    merge: Step,
    merge_groups: u32,
    attention: AttentionGrid,
    /// One a part of the table.
    head: Vec<ProductStep>,
    may_split: bool,
}

/// The parts of a pass, each of all blocks: for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The token embedding.
    Embed,
    /// The fused attention projection, with norm, rotary embedding and cache append.
    Qkv,
    /// Attention, its splits' combination included.
    Attention,
    /// The attention's output projection.
    Output,
    /// The MLP's gate and up projection, with norm and SwiGLU.
    GateUp,
    /// The MLP's down projection.
    Down,
    /// The head, with the final norm.
    Head,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Part; 7] = [
        Part::Embed,
        Part::Qkv,
        Part::Attention,
        Part::Output,
        Part::GateUp,
        Part::Down,
        Part::Head,
    ];
}

/// What the dispatches of a pass are bound to.
pub(super) struct Bindings<'a> {
    pub config: &'a Config,
    pub weights: &'a Weights,
    pub activations: &'a Activations,
    pub cache: &'a Cache,
    /// The pass's rows.
    pub rows: &'a Buffer,
    /// The head's rows.
    pub head_rows: &'a Buffer,
    /// Whether the pass may have more rows than lanes.
    pub many: bool,
}

impl Steps {
    /// Binds all kernels.
    pub fn new(gpu: &Gpu, kernels: &Kernels, b: &Bindings<'_>) -> Self {
        let (c, a) = (b.config, b.activations);
        let epsilon = c.rms_norm_eps as f32;
        let groups = crate::quant::groups(c.hidden_size) as u32;
        let embed = b.weights.embed.parts().map(|(first, part)| {
            let (hidden4, count) = ((c.hidden_size / 4) as u32, part.rows() as u32);
            let shape = gpu.uniform("embedding shape", &[hidden4, groups, first as u32, count]);
            let mut buffers = part.buffers();
            buffers.extend([(3, &shape), (5, b.rows), (6, &a.residual)]);
            kernels.embed.bind(gpu, &buffers)
        });
        let head = b.weights.head().parts().map(|(first, part)| {
            let shape = ProductShape {
                inner: c.vocab_size as u32,
                first: first as u32,
                epsilon,
                ..ProductShape::of(part)
            };
            let operands = Operands {
                matrix: part,
                shape: &shape,
                x: &a.residual,
                pre: &b.weights.norm,
                rows: b.head_rows,
                own: &[(6, &a.logits)],
            };
            kernels.head.bind(gpu, false, &operands)
        });
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
            embed: embed.collect(),
            embed_groups: (groups * 4).div_ceil(64),
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
            attention: AttentionGrid::new(gpu, c.num_attention_heads as u32),
            head: head.collect(),
            may_split: !b.many,
        }
    }

    /// The token embedding.
    pub fn embed(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for part in &self.embed {
            part.dispatch(pass, [self.embed_groups, rows, 1]);
        }
    }

    /// Block `i` for `rows` rows, none of which sees more than `seen` positions.
    pub fn block(&self, pass: &mut wgpu::ComputePass<'_>, i: usize, rows: u32, seen: usize) {
        self.layers[i].qkv(pass, rows);
        self.attention(pass, i, rows, seen);
        self.layers[i].o.dispatch(pass, rows);
        self.layers[i].swiglu.dispatch(pass, rows);
        self.layers[i].down.dispatch(pass, rows);
    }

    /// Block `i`'s attention.
    fn attention(&self, pass: &mut wgpu::ComputePass<'_>, i: usize, rows: u32, seen: usize) {
        if self.may_split && seen >= SPLIT_FROM {
            let heads = self.attention.heads;
            self.layers[i]
                .attention_split
                .dispatch(pass, self.attention.of(rows, SPLITS));
            self.merge.dispatch(pass, [self.merge_groups, heads, rows]);
        } else {
            self.layers[i]
                .attention
                .dispatch(pass, self.attention.of(rows, 1));
        }
    }

    /// One part of a pass, of all blocks.
    pub fn part(&self, pass: &mut wgpu::ComputePass<'_>, part: Part, rows: u32, seen: usize) {
        match part {
            Part::Embed => self.embed(pass, rows),
            Part::Qkv => self.layers.iter().for_each(|l| l.qkv(pass, rows)),
            Part::Attention => {
                (0..self.layers.len()).for_each(|i| self.attention(pass, i, rows, seen));
            }
            Part::Output => self.layers.iter().for_each(|l| l.o.dispatch(pass, rows)),
            Part::GateUp => {
                let blocks = self.layers.iter();
                blocks.for_each(|l| l.swiglu.dispatch(pass, rows));
            }
            Part::Down => self.layers.iter().for_each(|l| l.down.dispatch(pass, rows)),
            Part::Head => self.head(pass, rows),
        }
    }

    /// The head for `rows` of its rows.
    pub fn head(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for part in &self.head {
            part.dispatch(pass, rows);
        }
    }
}

impl LayerSteps {
    fn qkv(&self, pass: &mut wgpu::ComputePass<'_>, rows: u32) {
        for part in &self.qkv {
            part.dispatch(pass, rows);
        }
    }

    fn new(gpu: &Gpu, kernels: &Kernels, b: &Bindings<'_>, i: usize) -> Self {
        let (c, a, cache) = (b.config, b.activations, &b.cache.layers[i]);
        let w: &LayerWeights = &b.weights.layers[i];
        let epsilon = c.rms_norm_eps as f32;
        let attention = |splits: u32, out: &Buffer| {
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
        let adds = |matrix, x| {
            kernels.residual.bind(
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
        let qkv = w.qkv.iter().map(|run| {
            let shape = ProductShape {
                heads: c.num_attention_heads as u32,
                kv_heads: c.num_key_value_heads as u32,
                head_dim: c.head_dim as u32,
                rotary_dim: c.rotary_dim as u32,
                capacity: b.cache.capacity as u32,
                epsilon,
                first: run.first as u32,
                ..ProductShape::of(&run.matrix)
            };
            let operands = Operands {
                matrix: &run.matrix,
                shape: &shape,
                x: &a.residual,
                pre: &w.input_norm,
                rows: b.rows,
                own: &[
                    (6, &a.rotary),
                    (7, &a.q),
                    (8, &cache.keys),
                    (9, &cache.values),
                ],
            };
            kernels.qkv.bind(gpu, b.many, &operands)
        });
        Self {
            qkv: qkv.collect(),
            attention: attention(1, &a.attended),
            attention_split: attention(SPLITS, &a.partials),
            o: adds(&w.o, &a.attended),
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
            down: adds(&w.down, &a.mlp),
        }
    }
}
