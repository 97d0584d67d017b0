//! Generation: sampling on the GPU, lanes in lockstep, sessions that keep what they have read.

mod chat;
mod error;
mod lane;
mod sampler;

pub use chat::{Chat, ChatRequest, DoneReason, Event, FeatureWish, PromptToken, Stats};
pub use error::GenerateError;
pub use sampler::{Sampled, Sampler, Sampling};
