//! A model's weights on the GPU, streamed from a checkpoint.

use super::{Config, ModelError, PlainFormats, tensors};
use crate::checkpoint::Checkpoint;
use crate::gpu::{Buffer, Gpu};
use crate::matrix::{Format, Matrix, Table};

/// One block's weights.
pub(super) struct LayerWeights {
    /// `[hidden]`
    pub input_norm: Buffer,
    /// `[(heads + 2 * kv_heads) * head_dim, hidden]`, in runs of whole heads that a file stores alike.
    pub qkv: Vec<Rows>,
    /// `[hidden, heads * head_dim]`
    pub o: Matrix,
    /// `[hidden]`
    pub post_norm: Buffer,
    /// `[2 * inner, hidden]`
    pub gate_up: Matrix,
    /// `[hidden, inner]`
    pub down: Matrix,
}

impl LayerWeights {
    /// The matrices, in the order of their use.
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let attention = self.qkv.iter().map(|own| &own.matrix);
        attention.chain([&self.o, &self.gate_up, &self.down])
    }
}

/// Some whole rows of a fused matrix.
pub(super) struct Rows {
    /// The first of them.
    pub first: usize,
    pub matrix: Matrix,
}

/// All weights.
pub(super) struct Weights {
    /// `[vocab, hidden]`
    pub embed: Table,
    pub layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub norm: Buffer,
    /// `[vocab, hidden]`, unless it is the embedding.
    pub head: Option<Table>,
}

/// A tensor of the model on the GPU.
enum Target<'a> {
    /// `[len]`
    Vector(&'a Buffer),
    /// `[rows, cols]`
    Matrix(&'a Matrix),
    /// `[rows, cols]`
    Runs(&'a [Rows]),
    /// `[rows, cols]`
    Table(&'a Table),
}

/// Makes the GPU's side of tensors that a checkpoint holds.
struct Maker<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    /// What tensors are quantised to that the file has in plain numbers.
    plain: PlainFormats,
    /// Bytes of a buffer at most.
    most: u64,
}

impl Maker<'_> {
    /// How the matrix `name` of shape `[rows, cols]`, which is in the checkpoint, is stored.
    fn format(&self, name: &str, shape: [usize; 2]) -> Result<Format, ModelError> {
        let plain = self.plain.of(name);
        Ok(self.checkpoint.planes(name, shape, plain)?.format())
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, ModelError> {
        let format = self.format(name, shape)?;
        Ok(Matrix::zeros(self.gpu, name, shape, format)?)
    }

    /// A fused matrix, each run of rows as it is stored.
    fn runs(&self, name: &str, shape: [usize; 2]) -> Result<Vec<Rows>, ModelError> {
        let plain = self.plain.of(name);
        let formats = self.checkpoint.formats(name, shape, plain)?;
        let runs = formats.into_iter().map(|(rows, format)| {
            let matrix = Matrix::zeros(self.gpu, name, [rows.len(), shape[1]], format)?;
            let first = rows.start;
            Ok(Rows { first, matrix })
        });
        runs.collect()
    }

    /// A matrix in as many parts as it takes.
    fn table(&self, name: &str, shape: [usize; 2]) -> Result<Table, ModelError> {
        let format = self.format(name, shape)?;
        Ok(Table::zeros(self.gpu, name, shape, format, self.most)?)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Buffer, ModelError> {
        self.checkpoint.reader(name, &[len], 0)?;
        Ok(self.gpu.storage(name, len as u64 * 4)?)
    }
}

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
pub(super) const HEAD: &str = "lm_head.weight";

/// The name of one of a block's tensors.
fn in_block(block: usize, name: &str) -> String {
    format!("model.layers.{block}.{name}.weight")
}

impl Weights {
    /// Finds all tensors and makes the buffers for them, of at most `most` bytes each; [`Weights::fill`]
    /// reads them. What the file has in plain numbers becomes what `plain` says; what it has quantised is
    /// kept as it is.
    pub fn zeros(
        gpu: &Gpu,
        config: &Config,
        checkpoint: &Checkpoint,
        plain: PlainFormats,
        most: u64,
    ) -> Result<Self, ModelError> {
        tensors::check(checkpoint, config)?;
        let maker = Maker {
            gpu,
            checkpoint,
            plain,
            most,
        };
        Self::made_by(&maker, config)
    }

    /// The buffers of all weights.
    fn made_by(maker: &Maker<'_>, c: &Config) -> Result<Self, ModelError> {
        let (d, inner) = (c.hidden_size, c.intermediate_size);
        let ends = [c.vocab_size, d];
        let embed = maker.table(EMBEDDING, ends)?;
        let mut layers = Vec::with_capacity(c.num_hidden_layers);
        for i in 0..c.num_hidden_layers {
            let name = |n: &str| in_block(i, n);
            let (qkv, o) = ([c.qkv_rows(), d], [d, c.attention_width()]);
            layers.push(LayerWeights {
                input_norm: maker.vector(&name("input_layernorm"), d)?,
                qkv: maker.runs(&name("self_attn.qkv_proj"), qkv)?,
                o: maker.matrix(&name("self_attn.o_proj"), o)?,
                post_norm: maker.vector(&name("post_attention_layernorm"), d)?,
                gate_up: maker.matrix(&name("mlp.gate_up_proj"), [2 * inner, d])?,
                down: maker.matrix(&name("mlp.down_proj"), [d, inner])?,
            });
        }
        let norm = maker.vector(NORM, d)?;
        let head = match c.tie_word_embeddings {
            true => None,
            false => Some(maker.table(HEAD, ends)?),
        };
        Ok(Self {
            embed,
            layers,
            norm,
            head,
        })
    }

    /// The tensors by their names.
    fn targets(&self) -> Vec<(String, Target<'_>)> {
        let mut all = vec![
            (EMBEDDING.to_string(), Target::Table(&self.embed)),
            (NORM.into(), Target::Vector(&self.norm)),
        ];
        all.extend(self.head.iter().map(|h| (HEAD.into(), Target::Table(h))));
        for (i, l) in self.layers.iter().enumerate() {
            let own = [
                ("input_layernorm", Target::Vector(&l.input_norm)),
                ("self_attn.qkv_proj", Target::Runs(&l.qkv)),
                ("self_attn.o_proj", Target::Matrix(&l.o)),
                ("post_attention_layernorm", Target::Vector(&l.post_norm)),
                ("mlp.gate_up_proj", Target::Matrix(&l.gate_up)),
                ("mlp.down_proj", Target::Matrix(&l.down)),
            ];
            all.extend(own.map(|(name, target)| (in_block(i, name), target)));
        }
        all
    }

    /// Streams all weights to the GPU, each file from front to back; returns when all is written.
    pub async fn fill(
        &self,
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        plain: PlainFormats,
    ) -> Result<(), ModelError> {
        let targets = self.targets();
        let mut runs: Vec<_> = targets
            .iter()
            .flat_map(|(name, target)| {
                let runs = checkpoint.runs(name).into_iter();
                runs.map(move |run| (run, name, target))
            })
            .collect();
        runs.sort_by_key(|(run, ..)| (run.file, run.start));
        for (run, name, target) in runs {
            let shape = match target {
                Target::Vector(buffer) => {
                    let values = checkpoint
                        .vector(name, (buffer.size() / 4) as usize)
                        .await?;
                    gpu.write(buffer, 0, &values);
                    continue;
                }
                Target::Matrix(matrix) => [matrix.rows(), matrix.cols()],
                Target::Table(table) => [table.rows(), table.cols()],
                Target::Runs(runs) => {
                    let rows = runs.iter().map(|own| own.matrix.rows()).sum();
                    [rows, runs.first().map_or(0, |own| own.matrix.cols())]
                }
            };
            // The matrix that the run's rows belong to, and its first row.
            let of = match target {
                Target::Runs(runs) => runs.iter().rfind(|own| own.first <= run.rows.start),
                _ => None,
            };
            let within = of.map_or(0..shape[0], |own| own.first..own.first + own.matrix.rows());
            let reader = checkpoint.planes_of(name, shape, within, plain.of(name))?;
            let mut reader = reader.only(run.rows);
            while let Some((first, planes)) = reader.next().await? {
                match (target, of) {
                    (Target::Matrix(matrix), _) => matrix.write_planes(gpu, first, planes),
                    (Target::Table(table), _) => table.write_planes(gpu, first, planes),
                    (_, Some(own)) => own.matrix.write_planes(gpu, first - own.first, planes),
                    (Target::Runs(_) | Target::Vector(_), None) => {}
                }
                gpu.pace().await?;
            }
        }
        Ok(())
    }

    /// The head's matrix.
    pub fn head(&self) -> &Table {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// The formats of all matrices, each once, from the embedding to the head.
    pub fn all_formats(&self) -> Vec<Format> {
        let layers = self.layers.iter();
        let matrices = layers.flat_map(LayerWeights::matrices);
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
            l.matrices().map(Matrix::gpu_bytes).sum::<u64>()
                + l.input_norm.size()
                + l.post_norm.size()
        });
        layers.sum::<u64>()
            + self.embed.gpu_bytes()
            + self.norm.size()
            + self.head.as_ref().map_or(0, Table::gpu_bytes)
    }
}
