//! Training dictionaries of the residual stream on the GPU.
//!
//! [`Harvest`] reads a block's output over given tokens into a [`Ring`]; a [`Trainer`] takes steps on rows
//! drawn from it; [`Training`] does both in turn and can be stopped and gone on with. The dictionary is
//! `f = topk(relu(W_enc (x - b_dec) + b_enc))`, `x ~ f W_dec + b_dec`, with decoder rows of norm 1.

mod bound;
mod error;
mod harvest;
mod kernels;
mod lists;
mod loss;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod reference;
mod ring;
mod save;
mod settings;
mod step;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests;
mod training;
mod weights;
mod written;

pub use error::TrainError;
pub use harvest::{Harvest, residuals};
pub use loss::InLoop;
pub use ring::Ring;
pub use save::{State, Trained};
pub use settings::Settings;
pub use step::{Step, Trainer};
pub use training::{Progress, Training};
pub use weights::{Scale, Weights};
pub use written::{Ask, Writing, write_replies};
