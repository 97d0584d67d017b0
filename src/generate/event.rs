//! What a chat tells.

use std::rc::Rc;
use std::time::Duration;

use super::Logprobs;
use crate::steering::TokenFeatures;

/// A token of a prompt.
#[derive(Clone, Debug)]
pub struct PromptToken {
    /// The token.
    pub token: u32,
    /// Its features, where they were asked for.
    pub features: Option<Rc<TokenFeatures>>,
}

/// Why a lane's answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneReason {
    /// The model said a stop token, or began a turn that is not its own.
    Stop,
    /// The largest number of tokens was reached.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The context is full, or the GPU has no memory for more of it.
    Context,
}

/// What happens in a chat.
#[derive(Clone, Debug)]
pub enum Event {
    /// A lane's gate has decided about the answer that comes; before its prompt is read.
    Gate {
        /// The lane.
        lane: usize,
        /// The gate's score: a probability, or a feature's activation.
        score: f32,
        /// The gate's threshold.
        threshold: f32,
        /// Whether the lane's interventions hold: the score has reached the threshold.
        steered: bool,
    },
    /// A lane's prompt has been read.
    Prompt {
        /// The lane.
        lane: usize,
        /// Where the last message's turn begins in it; 0 if it is the only one.
        first: usize,
        /// The whole prompt.
        tokens: Vec<PromptToken>,
        /// Its leading tokens that were still in the cache.
        reused: usize,
    },
    /// A lane has said a token; its features are those of the token before it, from which it was
    /// predicted.
    Token {
        /// The lane.
        lane: usize,
        /// The token.
        token: u32,
        /// The text that it completes; empty while a character is incomplete.
        text: String,
        /// The features at the token, where they were asked for; none at the answer's last token, which
        /// the model does not read any more.
        features: Option<Rc<TokenFeatures>>,
        /// How likely it was, where that was asked for.
        logprobs: Option<Logprobs>,
        /// Whether the setting that it was written under edits the tokens of an answer.
        steered: bool,
        /// The lane's setting that it was written under: the one in force when the pass that predicted it
        /// was submitted (see [`Steering::setting`](crate::steering::Steering::setting)).
        setting: u64,
    },
    /// A lane has ended.
    Done {
        /// The lane.
        lane: usize,
        /// Why.
        reason: DoneReason,
        /// The last characters, if the token stream broke off inside one.
        text: String,
        /// Tokens of the answer, the stop token not counted.
        tokens: usize,
    },
}

/// Counts of a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Prompt tokens that were computed, over all lanes.
    pub prefilled: usize,
    /// Prompt tokens that were still in the cache, over all lanes.
    pub reused: usize,
    /// Tokens that were generated, over all lanes, stop tokens included.
    pub generated: usize,
    /// Decode passes submitted.
    pub passes: usize,
    /// Time that reading the prompts took.
    pub prefill: Duration,
    /// Time that generating took.
    pub decode: Duration,
}
