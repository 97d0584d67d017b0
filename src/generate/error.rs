//! What can go wrong with a chat.

use crate::gpu::GpuError;
use crate::phi3::ModelError;
use crate::sae::SaeError;
use crate::steering::SteeringError;
use crate::tokens::TokenError;

/// An error of a chat.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer failed.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The dictionary failed.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// The steering was refused.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// It was stopped.
    #[error("this was stopped before its end")]
    Cancelled,
    /// There is nothing to answer.
    #[error("lane {lane} has nothing to answer: write a message first")]
    EmptyPrompt {
        /// The lane.
        lane: usize,
    },
    /// More conversations than lanes.
    #[error("{asked} conversations were given, but the model was loaded with {lanes} lanes")]
    TooManyLanes {
        /// Conversations given.
        asked: usize,
        /// Lanes there are.
        lanes: usize,
    },
    /// The tokenizer knows tokens that the model does not.
    #[error(
        "token {token} is outside of the model's vocabulary of {vocab}: the tokenizer belongs to another model"
    )]
    ForeignToken {
        /// The token.
        token: u32,
        /// The model's vocabulary.
        vocab: usize,
    },
    /// What is known of the prompts' residual stream is not of these prompts.
    #[error(
        "{values} values were given as the residual stream of lane {lane}: its tokens have {expected}"
    )]
    OtherResidual {
        /// The lane.
        lane: usize,
        /// Values given.
        values: usize,
        /// Values that its tokens have.
        expected: usize,
    },
    /// The output of a block that is not computed.
    #[error("block {layer} has no output to show: only blocks after block {known} are computed")]
    NotComputed {
        /// The block asked for.
        layer: usize,
        /// The block whose output is known.
        known: usize,
    },
    /// A sampling parameter makes no sense.
    #[error("{name} is {value}: {rule}")]
    BadSampling {
        /// The parameter, in words.
        name: &'static str,
        /// The parameter, as [`Sampling`](super::Sampling) is written in JSON.
        field: &'static str,
        /// Its value.
        value: f32,
        /// What it must be.
        rule: &'static str,
    },
    /// The model's logits are not numbers.
    #[error(
        "the model's output in lane {lane} is not finite at token {step}: the weights or the steering strength are out of range"
    )]
    NotFinite {
        /// The lane.
        lane: usize,
        /// Tokens generated before.
        step: usize,
    },
}
