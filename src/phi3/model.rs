//! The model: embedding, blocks with their hook points, head.

use std::rc::Rc;

use super::cache::Cache;
use super::layer::{Activations, Bindings, Kernels, Part, Steps};
use super::rows::{MAX_ROWS, Row, Rows};
use super::weights::Weights;
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

/// Which of the two sets of rows a pass works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Up to [`MAX_ROWS`] tokens of any lanes, written by the host.
    Prefill,
    /// One token a lane, written by the sampler.
    Decode,
}

/// Work on the residual stream at the output of a block.
pub trait BlockHook {
    /// The block whose output the hook sees.
    fn layer(&self) -> usize;
    /// Records the hook's dispatches on the first `rows` rows of the pass.
    fn record(&self, pass: &mut wgpu::ComputePass<'_>, phase: Phase, rows: u32);
}

/// A copy of the residual stream at the output of a block.
pub struct Tap<'a> {
    /// The block.
    pub layer: usize,
    /// Where the rows go, `[rows, hidden]` f32.
    pub buffer: &'a Buffer,
    /// The byte to start at.
    pub offset: u64,
}

/// What a pass of given tokens begins with.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// The tokens' embeddings.
    Tokens,
    /// The residual stream at the output of a block, before its hooks: what the blocks up to it make of the
    /// tokens is known.
    After {
        /// The block.
        layer: usize,
        /// `[rows, hidden]`
        residual: &'a [f32],
    },
}

impl Start<'_> {
    /// The first block that is computed.
    fn block(&self) -> usize {
        match self {
            Self::Tokens => 0,
            Self::After { layer, .. } => layer + 1,
        }
    }
}

/// Positions that the cache holds at first.
const FIRST_CAPACITY: usize = 256;
/// Positions by which the cache grows at least, where there is no memory to double it.
const SMALL_GROWTH: usize = 64;

/// A model on the GPU, with the cache of its lanes.
pub struct Model {
    gpu: Rc<Gpu>,
    config: Config,
    options: ModelOptions,
    context: usize,
    weights: Rc<Weights>,
    kernels: Kernels,
    activations: Activations,
    cache: Cache,
    prefill_rows: Buffer,
    prefill_head: Buffer,
    decode_rows: Buffer,
    decode_head: Buffer,
    prefill: Steps,
    decode: Steps,
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
    let possible = config.max_position_embeddings.min(fit as usize).max(1);
    Ok(options.context.map_or(possible, |c| c.clamp(1, possible)))
}

/// A pass through blocks.
struct Blocks {
    phase: Phase,
    /// The first block; from any but block 0 on, the residual stream is there already.
    first: usize,
    /// The block that it ends before.
    end: usize,
    rows: u32,
    /// Positions that a lane sees at most (decode).
    seen: usize,
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

    /// The residual stream, `[MAX_ROWS, hidden]` f32.
    pub fn residual(&self) -> &Buffer {
        &self.activations.residual
    }

    /// The lanes' logits, `[lanes, vocab]` f32.
    pub fn logits(&self) -> &Buffer {
        &self.activations.logits
    }

    /// A phase's rows: a count, then [`Row`]s from byte 16 on.
    pub fn rows(&self, phase: Phase) -> &Buffer {
        match phase {
            Phase::Prefill => &self.prefill_rows,
            Phase::Decode => &self.decode_rows,
        }
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
        if positions <= self.cache.capacity {
            return Ok(());
        }
        let doubled = positions.max(2 * self.cache.capacity);
        for capacity in [doubled, positions.next_multiple_of(SMALL_GROWTH)] {
            match self.grow(capacity.min(self.context)).await {
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

    /// Runs up to [`MAX_ROWS`] tokens, whose positions [`Model::reserve`] has made room for. The
    /// logits of each row in `heads` (row, lane) go to its lane.
    pub fn prefill(
        &self,
        rows: &[Row],
        heads: &[(usize, usize)],
        hooks: &[&dyn BlockHook],
        taps: &[Tap<'_>],
    ) {
        let all = self.config.num_hidden_layers;
        self.prefill_blocks(Start::Tokens, all, rows, heads, hooks, taps);
    }

    /// As [`Model::prefill`], from `start` on and no further than the first `blocks` blocks: enough for taps in
    /// them. The cache of the other blocks stays as it is.
    pub fn prefill_blocks(
        &self,
        start: Start<'_>,
        blocks: usize,
        rows: &[Row],
        heads: &[(usize, usize)],
        hooks: &[&dyn BlockHook],
        taps: &[Tap<'_>],
    ) {
        self.gpu.write(&self.prefill_rows, 0, &[Rows::new(rows)]);
        if let Start::After { residual, .. } = start {
            self.gpu.write(self.residual(), 0, residual);
        }
        self.set_prefill_heads(heads);
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let run = Blocks {
            phase: Phase::Prefill,
            first: start.block(),
            end: blocks,
            rows: rows.len() as u32,
            seen: 0,
        };
        self.blocks(&mut encoder, &run, hooks, taps);
        if !heads.is_empty() {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            self.prefill.head(&mut pass, heads.len() as u32);
        }
        self.gpu.queue().submit([encoder.finish()]);
    }

    /// Runs up to [`MAX_ROWS`] tokens, whose positions [`Model::reserve`] has made room for, through the blocks up
    /// to `last`, whose output [`Model::residual`] is then. What the cache holds of later blocks at these
    /// positions is void.
    pub fn prefill_to(&self, last: usize, rows: &[Row], hooks: &[&dyn BlockHook]) {
        self.prefill_blocks(Start::Tokens, last + 1, rows, &[], hooks, &[]);
    }

    /// Makes the prefill's head read each row of `heads` (row, lane) for its lane.
    fn set_prefill_heads(&self, heads: &[(usize, usize)]) {
        let rows: Vec<Row> = heads
            .iter()
            .map(|&(row, lane)| Row {
                token: row as u32,
                lane: lane as u32,
                ..Row::default()
            })
            .collect();
        self.gpu.write(&self.prefill_head, 0, &[Rows::new(&rows)]);
    }

    /// The logits of up to `lanes` rows of the last prefill pass, row `first + i` to lane `i`.
    pub fn head_of(&self, first: usize, count: usize) {
        let heads: Vec<(usize, usize)> = (0..count).map(|i| (first + i, i)).collect();
        self.set_prefill_heads(&heads);
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.prefill.head(&mut pass, count as u32);
        drop(pass);
        self.gpu.queue().submit([encoder.finish()]);
    }

    /// The logits of vectors `[n, hidden]` as the last block's output, `[n, vocab]`: the final norm, weight
    /// and all, then the head (the logit lens). The last pass's residual stream is overwritten.
    pub async fn lens(&self, vectors: &[f32]) -> Result<Vec<f32>, GpuError> {
        let (hidden, vocab) = (self.config.hidden_size, self.config.vocab_size);
        let mut logits = Vec::with_capacity(vectors.len() / hidden * vocab);
        for some in vectors.chunks(self.lanes() * hidden) {
            let count = some.len() / hidden;
            self.gpu.write(self.residual(), 0, &some[..count * hidden]);
            self.head_of(0, count);
            let own: Vec<f32> = self.gpu.read_vec(self.logits(), 0, count * vocab).await?;
            logits.extend(own);
        }
        Ok(logits)
    }

    /// Sets the decode rows, one a lane.
    pub fn set_decode_rows(&self, rows: &[Row]) {
        self.gpu.write(&self.decode_rows, 0, &[Rows::new(rows)]);
    }

    /// Records one token of every lane, from the decode rows to the logits; no lane sees more than
    /// `seen` positions.
    pub fn decode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        seen: usize,
        hooks: &[&dyn BlockHook],
    ) {
        let lanes = self.lanes() as u32;
        let run = Blocks {
            phase: Phase::Decode,
            first: 0,
            end: self.config.num_hidden_layers,
            rows: lanes,
            seen,
        };
        self.blocks(encoder, &run, hooks, &[]);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.decode.head(&mut pass, lanes);
    }

    /// Records one part of a decode pass, of all blocks, as if each lane saw `seen` positions: for measurements.
    pub fn decode_part(&self, pass: &mut wgpu::ComputePass<'_>, part: Part, seen: usize) {
        self.decode.part(pass, part, self.lanes() as u32, seen);
    }

    /// Embedding and blocks, with the hooks at the blocks' outputs.
    fn blocks(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        run: &Blocks,
        hooks: &[&dyn BlockHook],
        taps: &[Tap<'_>],
    ) {
        let &Blocks {
            phase, rows, seen, ..
        } = run;
        let steps = match phase {
            Phase::Prefill => &self.prefill,
            Phase::Decode => &self.decode,
        };
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let first = run.first;
        match first.checked_sub(1) {
            None => steps.embed(&mut pass, rows),
            Some(known) => {
                for hook in hooks.iter().filter(|h| h.layer() == known) {
                    hook.record(&mut pass, phase, rows);
                }
            }
        }
        for layer in first..run.end.min(self.config.num_hidden_layers) {
            steps.block(&mut pass, layer, rows, seen);
            for hook in hooks.iter().filter(|h| h.layer() == layer) {
                hook.record(&mut pass, phase, rows);
            }
            for tap in taps.iter().filter(|t| t.layer == layer) {
                drop(pass);
                let bytes = rows as u64 * self.config.hidden_size as u64 * 4;
                encoder.copy_buffer_to_buffer(self.residual(), 0, tap.buffer, tap.offset, bytes);
                pass = encoder.begin_compute_pass(&Default::default());
            }
        }
    }
}
