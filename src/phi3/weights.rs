//! A model's weights on the GPU, streamed from a checkpoint.

use super::{Config, ModelError};
use crate::checkpoint::Checkpoint;
use crate::gpu::{Gpu, Pace};
use crate::matrix::{Format, Matrix, Table};

/// One block's weights.
pub(super) struct LayerWeights {
    /// `[hidden]`
    pub input_norm: wgpu::Buffer,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`
    pub qkv: Matrix,
    /// `[hidden, heads * head_dim]`
    pub o: Matrix,
    /// `[hidden]`
    pub post_norm: wgpu::Buffer,
    /// `[2 * inner, hidden]`
    pub gate_up: Matrix,
    /// `[hidden, inner]`
    pub down: Matrix,
}

/// All weights.
pub(super) struct Weights {
    /// `[vocab, hidden]`
    pub embed: Table,
    pub layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub norm: wgpu::Buffer,
    /// `[vocab, hidden]`, unless it is the embedding.
    pub head: Option<Table>,
}

/// Uploads tensors, letting the GPU keep up.
struct Uploader<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    pace: Pace<'a>,
    /// What tensors are quantised to that the file has in plain numbers.
    format: Format,
    /// Bytes of a buffer at most.
    most: u64,
}

impl Uploader<'_> {
    /// The matrix `name` of shape `[rows, cols]`.
    async fn matrix(&mut self, name: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, ModelError> {
        let mut reader = self.checkpoint.planes(name, [rows, cols], self.format)?;
        let matrix = Matrix::zeros(self.gpu, name, [rows, cols], reader.format()).await?;
        while let Some((first, planes)) = reader.next().await? {
            matrix.write_planes(self.gpu, first, planes);
            self.pace.wrote(planes.bytes()).await?;
        }
        Ok(matrix)
    }

    /// The matrix `name` of shape `[rows, cols]`, in as many parts as it takes.
    async fn table(&mut self, name: &str, [rows, cols]: [usize; 2]) -> Result<Table, ModelError> {
        let mut reader = self.checkpoint.planes(name, [rows, cols], self.format)?;
        let format = reader.format();
        let table = Table::zeros(self.gpu, name, [rows, cols], format, self.most).await?;
        while let Some((first, planes)) = reader.next().await? {
            table.write_planes(self.gpu, first, planes);
            self.pace.wrote(planes.bytes()).await?;
        }
        Ok(table)
    }

    /// The vector `name` of `len` elements.
    async fn vector(&mut self, name: &str, len: usize) -> Result<wgpu::Buffer, ModelError> {
        let values = self.checkpoint.vector(name, len).await?;
        let buffer = self.gpu.storage(name, len as u64 * 4).await?;
        self.gpu.write(&buffer, 0, &values);
        Ok(buffer)
    }
}

impl Weights {
    /// Streams all weights to the GPU, in buffers of at most `most` bytes. What the file has in plain
    /// numbers is quantised to `format`; what it has quantised is kept as it is.
    pub async fn load(
        gpu: &Gpu,
        config: &Config,
        checkpoint: &Checkpoint,
        format: Format,
        most: u64,
    ) -> Result<Self, ModelError> {
        let c = config;
        let (d, inner) = (c.hidden_size, c.intermediate_size);
        let mut up = Uploader {
            gpu,
            checkpoint,
            pace: Pace::new(gpu),
            format,
            most,
        };
        let embed = up
            .table("model.embed_tokens.weight", [c.vocab_size, d])
            .await?;
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |n: &str| format!("model.layers.{i}.{n}.weight");
            layers.push(LayerWeights {
                input_norm: up.vector(&name("input_layernorm"), d).await?,
                qkv: up
                    .matrix(&name("self_attn.qkv_proj"), [c.qkv_rows(), d])
                    .await?,
                o: up
                    .matrix(&name("self_attn.o_proj"), [d, c.attention_width()])
                    .await?,
                post_norm: up.vector(&name("post_attention_layernorm"), d).await?,
                gate_up: up.matrix(&name("mlp.gate_up_proj"), [2 * inner, d]).await?,
                down: up.matrix(&name("mlp.down_proj"), [d, inner]).await?,
            });
        }
        let norm = up.vector("model.norm.weight", d).await?;
        let head = match c.tie_word_embeddings {
            true => None,
            false => Some(up.table("lm_head.weight", [c.vocab_size, d]).await?),
        };
        up.pace.finish().await?;
        Ok(Self {
            embed,
            layers,
            norm,
            head,
        })
    }

    /// The head's matrix.
    pub fn head(&self) -> &Table {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// The formats of one kind of matrix over all blocks.
    pub fn formats(&self, of: impl Fn(&LayerWeights) -> &Matrix) -> Vec<Format> {
        self.layers.iter().map(|l| of(l).format()).collect()
    }

    /// The formats of all matrices, each once, from the embedding to the head.
    pub fn all_formats(&self) -> Vec<Format> {
        let layers = self.layers.iter();
        let matrices = layers.flat_map(|l| [&l.qkv, &l.o, &l.gate_up, &l.down]);
        let all = [self.embed.format()].into_iter();
        let all = all.chain(matrices.map(Matrix::format));
        let mut formats = Vec::new();
        for format in all.chain([self.head().format()]) {
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        formats
    }

    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(|l| {
            let matrices = [&l.qkv, &l.o, &l.gate_up, &l.down];
            matrices.iter().map(|m| m.gpu_bytes()).sum::<u64>()
                + l.input_norm.size()
                + l.post_norm.size()
        });
        layers.sum::<u64>()
            + self.embed.gpu_bytes()
            + self.norm.size()
            + self.head.as_ref().map_or(0, Table::gpu_bytes)
    }
}
