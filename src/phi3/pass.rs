//! The forward pass: embedding, blocks with their hook points, final norm and head.
//!
//! `h = E[token]`; for each block `h += W_o attention(W_qkv norm(h))`, `h += W_down (silu(g) * u)` with
//! `[g, u] = W_gate_up norm(h)`; at the block's output its hooks, which may edit `h`, and its taps, which copy it;
//! `logits = W_head norm(h)`. What a block is made of is in `layer.rs`.

use super::layer::Part;
use super::model::Model;
use super::rows::{Row, Rows};
use crate::gpu::{Buffer, GpuError};

/// Which of the two sets of rows a pass works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Up to [`MAX_ROWS`](super::MAX_ROWS) tokens of any lanes, written by the host.
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

impl Model {
    /// A phase's rows: a count, then [`Row`]s from byte 16 on.
    pub fn rows(&self, phase: Phase) -> &Buffer {
        match phase {
            Phase::Prefill => &self.prefill_rows,
            Phase::Decode => &self.decode_rows,
        }
    }

    /// Runs up to [`MAX_ROWS`](super::MAX_ROWS) tokens, whose positions [`Model::reserve`] has made room for. The
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

    /// Runs up to [`MAX_ROWS`](super::MAX_ROWS) tokens, whose positions [`Model::reserve`] has made room for, through the blocks up
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
