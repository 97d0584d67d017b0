//! A model on the GPU: its weights, the room of its lanes, what its passes are bound to. The passes are in `pass.rs`.

use std::rc::Rc;

use super::cache::Cache;
use super::layer::{Activations, Bindings, Kernels, Part, Steps};
use super::rows::{MAX_ROWS, Row, Rows};
use super::weights::{LayerWeights, Weights};
use super::{CacheFormat, Config, ModelError, ModelFiles, Precision};
use crate::checkpoint::{Checkpoint, Folder};
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::matrix::{Format, few_reads};

/// How to load a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelOptions {
    /// Sequences in lockstep, 1 to [`MAX_ROWS`].
    pub lanes: usize,
    /// Positions a lane can hold at most; `None` for what the model was trained for. The device's largest
    /// buffer may hold fewer.
    pub context: Option<usize>,
    /// How weights are stored that the file has in plain numbers; quantised ones are kept as they are.
    pub precision: Precision,
    /// How keys and values are stored.
    pub cache: CacheFormat,
}

impl Default for ModelOptions {
    /// Two lanes, the model's context, weights by size, f16 cache.
    fn default() -> Self {
        Self {
            lanes: 2,
            context: None,
            precision: Precision::default(),
            cache: CacheFormat::F16,
        }
    }
}

/// Positions that the cache holds at first.
const FIRST_CAPACITY: usize = 256;
/// Positions by which the cache grows at least, where there is no memory to double it.
const SMALL_GROWTH: usize = 64;

/// A model on the GPU, with the cache of its lanes.
pub struct Model {
    pub(super) gpu: Rc<Gpu>,
    pub(super) config: Config,
    options: ModelOptions,
    context: usize,
    weights: Rc<Weights>,
    kernels: Kernels,
    activations: Activations,
    cache: Cache,
    pub(super) prefill_rows: Buffer,
    pub(super) prefill_head: Buffer,
    pub(super) decode_rows: Buffer,
    decode_head: Buffer,
    pub(super) prefill: Steps,
    pub(super) decode: Steps,
    /// Whether the rotary table has LongRoPE's long factors.
    long: bool,
}

/// Positions that a lane can hold.
fn context_of(gpu: &Gpu, config: &Config, options: &ModelOptions) -> Result<usize, ModelError> {
    let lanes = options.lanes;
    if lanes == 0 || lanes > MAX_ROWS {
        return Err(ModelError::Config(format!(
            "{lanes} lanes were asked for; 1 to {MAX_ROWS} are possible"
        )));
    }
    // A block's keys are one buffer.
    let fit = gpu.storage_limit() / Cache::buffer_bytes(config, lanes, 1, options.cache);
    let trained = config.max_position_embeddings;
    let possible = match Cache::cells(config, trained) as u64 <= fit {
        true => trained,
        false => trained.min(fit as usize).max(1),
    };
    Ok(options.context.map_or(possible, |c| c.clamp(1, possible)))
}

/// What a phase's steps are bound to, its rows aside.
struct Parts<'a> {
    gpu: &'a Gpu,
    config: &'a Config,
    kernels: &'a Kernels,
    weights: &'a Weights,
    activations: &'a Activations,
    cache: &'a Cache,
}

impl Parts<'_> {
    fn bind(&self, rows: &Buffer, head_rows: &Buffer, many: bool) -> Steps {
        let bindings = Bindings {
            config: self.config,
            weights: self.weights,
            activations: self.activations,
            cache: self.cache,
            rows,
            head_rows,
            many,
        };
        Steps::new(self.gpu, self.kernels, &bindings)
    }
}

impl Model {
    /// Loads the model of `folder`, in whatever form it is there (see [`ModelFiles`]).
    pub async fn load(
        gpu: Rc<Gpu>,
        folder: &Folder,
        options: ModelOptions,
    ) -> Result<Self, ModelError> {
        let files = ModelFiles::open(folder).await?;
        Self::from_checkpoint(gpu, files.config, &files.checkpoint, options).await
    }

    /// Loads the weights of `checkpoint`. Returns when all is written and on its way to the GPU; whether it
    /// had the memory, [`Gpu::settle`] says, or the first result that is read.
    pub async fn from_checkpoint(
        gpu: Rc<Gpu>,
        config: Config,
        checkpoint: &Checkpoint,
        options: ModelOptions,
    ) -> Result<Self, ModelError> {
        let context = context_of(&gpu, &config, &options)?;
        let most = gpu.storage_limit();
        let plain = options.precision.formats(&config);
        let weights = Weights::zeros(&gpu, &config, checkpoint, plain, most)?;
        gpu.settle().await?;
        // Compiled while the weights are on their way.
        let kernels = Kernels::new(&gpu, &config, options.lanes, &weights, options.cache);
        weights.fill(&gpu, checkpoint, plain).await?;
        Self::of(gpu, config, options, context, Rc::new(weights), kernels)
    }

    /// A second model of the same weights, which stay on the GPU once, with `lanes` lanes (1 to
    /// [`MAX_ROWS`]) of its own: what it reads and says leaves this one as it is, and dropping it frees
    /// what it took. It holds as long sequences, where a cache for so many lanes can.
    pub async fn fork(&self, lanes: usize) -> Result<Self, ModelError> {
        let gpu = self.gpu.clone();
        let config = self.config.clone();
        let options = ModelOptions {
            lanes,
            context: Some(self.context),
            ..self.options
        };
        let context = context_of(&gpu, &config, &options)?;
        let kernels = Kernels::new(&gpu, &config, lanes, &self.weights, options.cache);
        let fork = Self::of(gpu, config, options, context, self.weights.clone(), kernels)?;
        fork.gpu.settle().await?;
        Ok(fork)
    }

    /// A model of `weights` with lanes that hold nothing yet.
    fn of(
        gpu: Rc<Gpu>,
        config: Config,
        options: ModelOptions,
        context: usize,
        weights: Rc<Weights>,
        kernels: Kernels,
    ) -> Result<Self, ModelError> {
        let lanes = options.lanes;
        let activations = Activations::new(&gpu, &config, lanes, context)?;
        let first = FIRST_CAPACITY.min(context);
        let cache = Cache::new(&gpu, &config, lanes, first, options.cache)?;
        let rows = |what| {
            let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::STORAGE;
            gpu.buffer(what, size_of::<Rows>() as u64, usage)
        };
        let (prefill_rows, prefill_head) = (rows("rows")?, rows("head rows")?);
        let (decode_rows, decode_head) = (rows("rows")?, rows("head rows")?);
        let each_lane: Vec<Row> = (0..lanes as u32)
            .map(|lane| Row {
                token: lane,
                lane,
                ..Row::default()
            })
            .collect();
        gpu.write(&decode_head, 0, &[Rows::new(&each_lane)]);
        let parts = Parts {
            gpu: &gpu,
            config: &config,
            kernels: &kernels,
            weights: &weights,
            activations: &activations,
            cache: &cache,
        };
        let prefill = parts.bind(&prefill_rows, &prefill_head, true);
        let decode = parts.bind(&decode_rows, &decode_head, false);
        Ok(Self {
            gpu,
            config,
            options,
            context,
            weights,
            kernels,
            activations,
            cache,
            prefill_rows,
            prefill_head,
            decode_rows,
            decode_head,
            prefill,
            decode,
            long: false,
        })
    }

    /// The GPU that holds the model.
    pub fn gpu(&self) -> &Rc<Gpu> {
        &self.gpu
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sequences in lockstep.
    pub fn lanes(&self) -> usize {
        self.options.lanes
    }

    /// Positions that a lane can hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How the matrices are stored, each format once.
    pub fn formats(&self) -> Vec<Format> {
        self.weights.all_formats()
    }

    /// Bytes of weights, which forks share, and cache on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.weights.gpu_bytes() + self.cache.gpu_bytes()
    }

    /// Bytes of weights and cache that a decode pass reads from GPU memory, caches of the GPU aside,
    /// when each lane sees `seen` positions: weights once for the lanes that share a read.
    pub fn decode_bytes(&self, seen: usize) -> u64 {
        let gathered = match self.config.tie_word_embeddings {
            true => 0,
            false => self.weights.embed.gpu_bytes(),
        };
        let weights = self.weights.gpu_bytes() - gathered;
        weights * few_reads(&self.gpu, self.lanes())
            + self.cache.bytes_of(seen.min(self.config.window()))
    }

    /// Bytes of weights and cache that one part of a decode pass reads in all blocks, as [`Model::decode_bytes`].
    pub fn part_bytes(&self, part: Part, seen: usize) -> u64 {
        let w = &self.weights;
        let rows = self.lanes() as u64;
        let of = |own: fn(&LayerWeights) -> u64| w.layers.iter().map(own).sum::<u64>();
        let weights = match part {
            Part::Embed => {
                return w.embed.gpu_bytes() / self.config.vocab_size as u64 * rows;
            }
            Part::Attention => return self.cache.bytes_of(seen.min(self.config.window())),
            Part::Qkv => of(|l| l.qkv.iter().map(|run| run.matrix.gpu_bytes()).sum()),
            Part::Output => of(|l| l.o.gpu_bytes()),
            Part::GateUp => of(|l| l.gate_up.gpu_bytes()),
            Part::Down => of(|l| l.down.gpu_bytes()),
            Part::Head => w.head().gpu_bytes(),
        };
        weights * few_reads(&self.gpu, self.lanes())
    }

    /// The residual stream, `[MAX_ROWS, hidden]` f32.
    pub fn residual(&self) -> &Buffer {
        &self.activations.residual
    }

    /// The lanes' logits, `[lanes, vocab]` f32.
    pub fn logits(&self) -> &Buffer {
        &self.activations.logits
    }

    /// Whether a lane that was written up to position `written` still holds what the position `next` reads. It does,
    /// but in a conversation longer than the window, whose past makes room for what is new.
    pub fn can_go_on(&self, written: usize, next: usize) -> bool {
        let cells = Cache::cells(&self.config, self.context);
        let first = (next + 1).saturating_sub(self.config.window());
        // What is under way is within a pass of what is known to be written.
        cells == self.context || written + MAX_ROWS <= first + cells
    }

    /// Makes room for `positions` positions in every lane, and for as many again where there is memory. On
    /// an error nothing has changed.
    pub async fn reserve(&mut self, positions: usize) -> Result<(), ModelError> {
        if positions > self.context {
            return Err(ModelError::ContextFull {
                tokens: positions,
                context: self.context,
            });
        }
        let most = Cache::cells(&self.config, self.context);
        let cells = positions.min(most);
        if cells <= self.cache.capacity {
            return Ok(());
        }
        let doubled = cells.max(2 * self.cache.capacity);
        for capacity in [doubled, cells.next_multiple_of(SMALL_GROWTH)] {
            match self.grow(capacity.min(most)).await {
                Err(GpuError::OutOfMemory { .. }) => {}
                grown => return Ok(grown?),
            }
        }
        Err(ModelError::CacheFull {
            tokens: positions,
            held: self.cache.capacity,
        })
    }

    /// Makes the cache hold `capacity` positions; on an error nothing has changed.
    async fn grow(&mut self, capacity: usize) -> Result<(), GpuError> {
        self.cache.grow(&self.gpu, capacity).await?;
        let parts = Parts {
            gpu: &self.gpu,
            config: &self.config,
            kernels: &self.kernels,
            weights: &self.weights,
            activations: &self.activations,
            cache: &self.cache,
        };
        let prefill = parts.bind(&self.prefill_rows, &self.prefill_head, true);
        let decode = parts.bind(&self.decode_rows, &self.decode_head, false);
        (self.prefill, self.decode) = (prefill, decode);
        Ok(())
    }

    /// Chooses the rotary factors for sequences of up to `positions` positions, in all lanes: models with
    /// LongRoPE turn long ones otherwise. True if they have changed, so that what the cache holds is void.
    pub fn reach(&mut self, positions: usize) -> bool {
        if !self.must_turn(positions) {
            return false;
        }
        self.long = !self.long;
        self.activations
            .turn(&self.gpu, &self.config, self.context, self.long);
        true
    }

    /// Whether [`Model::reach`] would change the rotary factors.
    pub fn must_turn(&self, positions: usize) -> bool {
        self.config.is_long(positions.min(self.context)) != self.long
    }
}
