//! Generation: sampling on the GPU, lanes in lockstep, sessions that keep what they have read.

mod ahead;
mod chat;
mod decode;
mod error;
mod event;
mod gate;
mod lane;
mod logprobs;
mod prefill;
mod said;
mod sampler;
mod self_test;
mod trace;

pub use chat::{Chat, ChatRequest, FeatureWish};
pub use error::GenerateError;
pub use event::{DoneReason, Event, PromptToken, Stats};
pub use logprobs::{Logprobs, MOST_ALTERNATIVES};
pub use sampler::{Sampled, Sampler, Sampling};
pub use self_test::self_test;
pub use trace::{Known, TraceRequest, Traced, bare_prompt, trace, trace_after};
