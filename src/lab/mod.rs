//! The lab: what steering buys and what it costs, measured.
//!
//! - A [`Recipe`] says what to do, [`run_recipe`] does it, on a fork of a chat: the same JSON for page and
//!   command;
//! - [`find`] looks for the features that make a model refuse, describes a feature, and fits gates;
//! - a [`Run`] is long work in steps, each written into a [`Journal`], that can be broken off and taken up
//!   again, in [`Turns`](crate::turns::Turns) with others that use the GPU;
//! - [`Sets`] hold the prompts, a [`Judge`] says what is a refusal, [`answers`] what is right;
//! - an [`Arm`] is one way of steering or a [`Control`], its [`Figures`] are [`Share`]s with their Wilson
//!   intervals, beside those of the base on the same prompts (McNemar);
//! - [`Row`]s become a Markdown table or JSON, and [`operating_range`] the useful values.

mod arms;
mod bench;
mod control;
mod csv;
mod error;
mod figures;
pub mod find;
mod gate;
mod judge;
mod measure;
#[cfg(all(test, not(target_arch = "wasm32")))]
mod measure_tests;
mod openings;
mod overrule;
mod paper;
mod plots;
pub mod probe;
mod range;
pub mod readers;
mod recipe;
mod report;
mod run;
mod sets;
pub mod stats;
mod table;
mod verdicts;

pub use arms::{Arm, Plan, Scope, Series, Target, Weighted};
pub use control::{Control, SAFETY_PROMPT};
pub use error::LabError;
pub use figures::{Figures, Share};
pub use gate::GateSpec;
pub use judge::{Judge, JudgeRules, answers, broken, calculates, repeats};
pub use measure::MeasureOptions;
pub use overrule::{ByHand, overrule};
pub use paper::paper;
pub use plots::{Plot, plots};
pub use range::{OperatingRange, operating_range};
pub use recipe::{RECIPE, RESULT, Recipe, SetsWish, Task, identity, run_recipe};
pub use report::{ReportInput, report};
pub use run::{Journal, Progress, Run, Stage, digest};
pub use sets::{EvalFile, Item, Kind, Set, Sets};
pub use table::{Row, TableFormat, nano_table, table};
