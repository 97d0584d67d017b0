//! Training dictionaries of the residual stream on the GPU.
//!
//! [`Data`] is the text, some of it written by the model itself; [`Harvest`] reads a block's output over it into
//! a [`Ring`]; a [`Trainer`] takes steps on rows drawn from it; [`Training`] does both in turn and can be stopped
//! and gone on with; [`Made`] is the dictionary that came of it, [`Measured`] what it is worth, and a [`Card`] tells
//! all of it. The dictionary is `f = topk(relu(W_enc (x - b_dec) + b_enc))`, `x ~ f W_dec + b_dec`, with decoder
//! rows of norm 1.

mod archive;
mod bound;
mod card;
mod control;
mod data;
mod error;
mod harvest;
mod kernels;
mod lists;
mod loss;
mod measured;
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

pub use archive::zip;
pub use card::{Card, Times};
pub use control::Control;
pub use data::{Data, KeepWritten, Reading, Sources, Written};
pub use error::TrainError;
pub use harvest::Harvest;
pub use loss::InLoop;
pub use measured::{Files, Made, Measured};
pub use ring::Ring;
pub use save::{State, Trained};
pub use settings::{Selection, Settings};
pub use step::{Step, Trainer};
pub use training::{Progress, Training};
pub use weights::{Scale, Weights};
pub use written::{Ask, Writing, write_replies};
