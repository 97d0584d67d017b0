//! The lab: what steering buys and what it costs, measured.
//!
//! - [`EvalFile`] holds the prompts, [`Judge`] says what is a refusal, [`answers`] what is right;
//! - a [`Run`] is long work in steps, each written into a [`Journal`], that can be broken off and taken up
//!   again, in [`Turns`] with others that use the GPU;
//! - an [`Arm`] is one way of steering: the clamp at several values, and what it is compared with;
//! - [`Bench`] measures an arm: a [`Figures`] with [`Share`]s and their Wilson intervals;
//! - [`Row`]s become a Markdown table or JSON, and [`operating_range`] the useful values.

mod arms;
mod bench;
mod directions;
mod error;
mod figures;
mod judge;
pub mod probe;
mod random;
mod range;
mod run;
mod sets;
pub mod stats;
mod table;
mod turns;

pub use arms::{Arm, Plan, Scope};
pub use bench::{Bench, BenchOptions};
pub use directions::add_directions;
pub use error::LabError;
pub use figures::{Figures, Share};
pub use judge::{Judge, answers, repeats};
pub use range::{OperatingRange, operating_range};
pub use run::{Journal, Progress, Run, Stage, digest};
pub use sets::{EvalFile, Item, Kind, Set};
pub use table::{Row, markdown};
pub use turns::{Turn, Turns};
