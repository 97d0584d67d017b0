//! What can go wrong while a dictionary is trained.

use crate::generate::GenerateError;
use crate::gpu::GpuError;
use crate::tokens::TokenError;

/// An error of training a dictionary.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting makes no sense.
    #[error("{name} cannot be {value}: {rule}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it was given.
        value: String,
        /// What is possible.
        rule: String,
    },
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The model could not be run.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Text could not be turned into tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The ring or the state on the disk cannot be used.
    #[error("{place} {what}")]
    Disk {
        /// The file.
        place: String,
        /// What happened, and what to do.
        what: String,
    },
    /// The text is too short to hold some of it out.
    #[error(
        "the text is too short: two sequences are needed, one to train on and one to measure the fit on"
    )]
    TooShort,
    /// No reply is asked for.
    #[error("there is nothing to reply with: ask for a reply, or give beginnings of replies")]
    NoOpening,
    /// Replies of an earlier run are to other prompts.
    #[error(
        "the replies that were kept are to other prompts: begin again in another folder, or remove them"
    )]
    OtherPrompts,
    /// There are too few rows to train on.
    #[error(
        "the text gives {rows} vectors, fewer than the {needed} of one step: give more text, or lower the rows of a step"
    )]
    TooFewRows {
        /// Rows there are.
        rows: u64,
        /// Rows needed.
        needed: usize,
    },
    /// The loss is no number any more.
    #[error("the loss was no number at step {step}: lower the rate")]
    Diverged {
        /// The step.
        step: usize,
    },
    /// The run was stopped.
    #[error("stopped at step {step}; the same command goes on from there")]
    Stopped {
        /// The step that would have come next.
        step: usize,
    },
}
