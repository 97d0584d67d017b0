//! Sampling on the GPU.

use serde::{Deserialize, Serialize};

use super::GenerateError;
use crate::gpu::{Access, Buffer, Gpu, GpuError, KernelDescriptor, Step, shaders};
use crate::phi3::{Model, Phase};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Sampling {
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the so many likeliest tokens; 0 for all.
    pub top_k: u32,
    /// Only the likeliest tokens that together reach this probability.
    pub top_p: f32,
    /// Only tokens at least this likely, as a share of the likeliest.
    pub min_p: f32,
    /// What the logits of tokens that were seen are divided by (multiplied, where negative).
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u32,
}

impl Default for Sampling {
    /// The likeliest token, no penalty.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// An error naming the first parameter that makes no sense.
    pub fn check(&self) -> Result<(), GenerateError> {
        let fail = |name, field, value, rule| {
            Err(GenerateError::BadSampling {
                name,
                field,
                value,
                rule,
            })
        };
        if !(0.0..=100.0).contains(&self.temperature) {
            return fail(
                "temperature",
                "temperature",
                self.temperature,
                "0 to 100 is possible",
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail(
                "top-p",
                "topP",
                self.top_p,
                "above 0 and up to 1 is possible",
            );
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return fail("min-p", "minP", self.min_p, "0 to 1 is possible");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0) {
            return fail(
                "repetition penalty",
                "repetitionPenalty",
                self.repetition_penalty,
                "above 0 and up to 100 is possible",
            );
        }
        Ok(())
    }
}

/// The sampler's view of a lane.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LaneState {
    temperature: f32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    top_k: u32,
    seed: u32,
    step: u32,
    unused: u32,
}

/// Invocations of a lane's workgroup where an invocation computes a unit, as on CPU adapters: those compile the zeroing
/// of workgroup memory an element at a time.
const CPU_INVOCATIONS: u32 = 64;
/// Invocations of a lane's workgroup on GPUs of little workgroup memory.
const FEW_INVOCATIONS: u32 = 256;
/// Invocations of a lane's workgroup elsewhere: a vocabulary is long.
const INVOCATIONS: u32 = 1024;

/// Invocations of a lane's workgroup.
fn invocations(gpu: &Gpu) -> u32 {
    let limits = gpu.device().limits();
    let fits = limits.max_compute_invocations_per_workgroup >= INVOCATIONS
        && limits.max_compute_workgroup_size_x >= INVOCATIONS
        && limits.max_compute_workgroup_storage_size >= 32 * INVOCATIONS;
    match fits {
        _ if gpu.capabilities().without_barriers() => CPU_INVOCATIONS,
        true => INVOCATIONS,
        false => FEW_INVOCATIONS,
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SampleShape {
    vocab: u32,
    words: u32,
    unused: [u32; 2],
}

/// What the sampler chose for a lane.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    flags: u32,
    /// Tokens sampled before it.
    pub step: u32,
    unused: u32,
}

impl Sampled {
    /// Whether it is a stop token.
    pub fn stopped(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether a logit was not finite, so that the token means nothing.
    pub fn not_finite(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether the lane had stopped before, so that there is no token.
    pub fn idle(&self) -> bool {
        self.flags & 4 != 0
    }
}

/// The sampler of a model: reads its logits, writes its decode rows.
pub struct Sampler {
    step: Step,
    lanes: Buffer,
    seen: Buffer,
    stops: Buffer,
    out: Buffer,
    lane_count: usize,
    vocab: usize,
}

impl Sampler {
    /// The sampler of `model`.
    pub fn new(model: &Model) -> Result<Self, GpuError> {
        Self::of(
            model.gpu(),
            model.lanes(),
            model.config().vocab_size,
            model.logits(),
            model.rows(Phase::Decode),
        )
    }

    /// A sampler over `logits` `[lanes, vocab]` that advances `rows`.
    pub fn of(
        gpu: &Gpu,
        lane_count: usize,
        vocab: usize,
        logits: &Buffer,
        rows: &Buffer,
    ) -> Result<Self, GpuError> {
        let kernel = gpu.kernel(&KernelDescriptor {
            label: "sample",
            parts: &[shaders::ROWS, gpu.reduction_part(), shaders::SAMPLE],
            constants: &[("WG", f64::from(invocations(gpu)))],
            bindings: &[
                (0, Access::Read),
                (1, Access::Write),
                (2, Access::Write),
                (3, Access::Uniform),
                (4, Access::Write),
                (5, Access::Write),
                (6, Access::Read),
            ],
        });
        let states = lane_count * size_of::<LaneState>();
        let lanes = gpu.storage("sampler lanes", states as u64)?;
        let words = vocab.div_ceil(32);
        let seen = gpu.storage("seen tokens", (lane_count * words * 4) as u64)?;
        let stops = gpu.storage("stop tokens", (words * 4) as u64)?;
        let out = gpu.storage("sampled", (lane_count * size_of::<Sampled>()) as u64)?;
        let shape = SampleShape {
            vocab: vocab as u32,
            words: words as u32,
            unused: [0; 2],
        };
        let shape = gpu.uniform("sample shape", &shape);
        let step = kernel.bind(
            gpu,
            &[
                (0, logits),
                (1, &lanes),
                (2, &seen),
                (3, &shape),
                (4, &out),
                (5, rows),
                (6, &stops),
            ],
        );
        Ok(Self {
            step,
            lanes,
            seen,
            stops,
            out,
            lane_count,
            vocab,
        })
    }

    /// Starts over: the same `sampling` in every lane, any of `stops`, however many, ends a lane, and each
    /// lane has seen its `seen` tokens. Tokens outside of the vocabulary are none.
    pub fn start(&self, gpu: &Gpu, sampling: &Sampling, stops: &[u32], seen: &[&[u32]]) {
        let state = LaneState {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            top_k: sampling.top_k,
            seed: sampling.seed,
            step: 0,
            unused: 0,
        };
        gpu.write(&self.lanes, 0, &vec![state; self.lane_count]);
        gpu.write(&self.stops, 0, &bits(self.vocab, stops));
        let mut all = Vec::with_capacity(self.lane_count * self.vocab.div_ceil(32));
        for lane in 0..self.lane_count {
            all.extend(bits(
                self.vocab,
                seen.get(lane).copied().unwrap_or_default(),
            ));
        }
        gpu.write(&self.seen, 0, &all);
    }

    /// Records the choice of every lane's next token.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.step
            .dispatch(&mut pass, [self.lane_count as u32, 1, 1]);
    }

    /// What was chosen, `[lanes]` of [`Sampled`].
    pub fn out(&self) -> &Buffer {
        &self.out
    }
}

/// A set of tokens, a bit each, `[ceil(vocab / 32)]`.
fn bits(vocab: usize, tokens: &[u32]) -> Vec<u32> {
    let mut bits = vec![0u32; vocab.div_ceil(32)];
    for &token in tokens.iter().filter(|t| (**t as usize) < vocab) {
        bits[token as usize / 32] |= 1 << (token % 32);
    }
    bits
}
