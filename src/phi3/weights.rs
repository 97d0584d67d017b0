//! A model's weights on the GPU, streamed from a checkpoint.

use super::{Config, ModelError};
use crate::checkpoint::{BLOCK_BYTES, Checkpoint};
use crate::gpu::Gpu;
use crate::matrix::{Format, Matrix};

/// Bytes written to the queue before the GPU is given the time to take them.
const UPLOAD_BYTES: u64 = 64 << 20;

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
    pub embed: Matrix,
    pub layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub norm: wgpu::Buffer,
    /// `[vocab, hidden]`, unless it is the embedding.
    pub head: Option<Matrix>,
}

/// Uploads tensors, letting the GPU keep up.
pub(crate) struct Uploader<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    waiting: u64,
}

impl<'a> Uploader<'a> {
    /// Uploads from `checkpoint`.
    pub fn new(gpu: &'a Gpu, checkpoint: &'a Checkpoint) -> Self {
        Self {
            gpu,
            checkpoint,
            waiting: 0,
        }
    }

    /// The matrix `name` of shape `[rows, cols]`.
    pub async fn matrix(
        &mut self,
        name: &str,
        [rows, cols]: [usize; 2],
        format: Format,
    ) -> Result<Matrix, ModelError> {
        let mut reader = self.checkpoint.reader(name, &[rows, cols], BLOCK_BYTES)?;
        let matrix = Matrix::zeros(self.gpu, name, [rows, cols], format).await?;
        while let Some((first, values)) = reader.next().await? {
            matrix.write_rows(self.gpu, first, values);
            self.waiting += size_of_val(values) as u64;
            if self.waiting > UPLOAD_BYTES {
                self.flush().await?;
            }
        }
        Ok(matrix)
    }

    /// The vector `name` of `len` elements.
    pub async fn vector(&mut self, name: &str, len: usize) -> Result<wgpu::Buffer, ModelError> {
        let values = self.checkpoint.vector(name, len).await?;
        let buffer = self.gpu.storage(name, len as u64 * 4).await?;
        self.gpu.write(&buffer, 0, &values);
        Ok(buffer)
    }

    /// Waits until the GPU has taken what was written.
    pub async fn flush(&mut self) -> Result<(), ModelError> {
        self.waiting = 0;
        Ok(self.gpu.finish().await?)
    }
}

impl Weights {
    /// Streams all weights to the GPU.
    pub async fn load(
        gpu: &Gpu,
        config: &Config,
        checkpoint: &Checkpoint,
        format: Format,
    ) -> Result<Self, ModelError> {
        let c = config;
        let d = c.hidden_size;
        let mut up = Uploader::new(gpu, checkpoint);
        let embed = up
            .matrix("model.embed_tokens.weight", [c.vocab_size, d], format)
            .await?;
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |n: &str| format!("model.layers.{i}.{n}.weight");
            layers.push(LayerWeights {
                input_norm: up.vector(&name("input_layernorm"), d).await?,
                qkv: up
                    .matrix(&name("self_attn.qkv_proj"), [c.qkv_rows(), d], format)
                    .await?,
                o: up
                    .matrix(&name("self_attn.o_proj"), [d, c.attention_width()], format)
                    .await?,
                post_norm: up.vector(&name("post_attention_layernorm"), d).await?,
                gate_up: up
                    .matrix(
                        &name("mlp.gate_up_proj"),
                        [2 * c.intermediate_size, d],
                        format,
                    )
                    .await?,
                down: up
                    .matrix(&name("mlp.down_proj"), [d, c.intermediate_size], format)
                    .await?,
            });
        }
        let norm = up.vector("model.norm.weight", d).await?;
        let head = if c.tie_word_embeddings {
            None
        } else {
            Some(
                up.matrix("lm_head.weight", [c.vocab_size, d], format)
                    .await?,
            )
        };
        up.flush().await?;
        Ok(Self {
            embed,
            layers,
            norm,
            head,
        })
    }

    /// The head's matrix.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embed)
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
            + self.head.as_ref().map_or(0, Matrix::gpu_bytes)
    }
}
