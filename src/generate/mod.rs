//! Generation: sampling on the GPU, lanes in lockstep, sessions that keep what they have read.

mod chat;
mod error;
mod lane;
mod sampler;
mod self_test;
mod trace;

pub use chat::{Chat, ChatRequest, DoneReason, Event, FeatureWish, PromptToken, Stats};
pub use error::GenerateError;
pub use sampler::{Sampled, Sampler, Sampling};
pub use self_test::self_test;
pub use trace::{TraceRequest, Traced, bare_prompt, trace};
