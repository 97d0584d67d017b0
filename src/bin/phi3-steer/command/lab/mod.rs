//! `phi3-steer lab`

mod find;
pub mod follow;
pub mod measure;
mod overrule;
mod report;
mod run;
mod survival;

use crate::command::Failure;

const EXAMPLES: &str = "Examples:
  phi3-steer lab find --model models/nano --sae models/nano/sae --out found.json
  phi3-steer lab measure --model models/nano --sae models/nano/sae --limit 24 --out result.json
  phi3-steer lab report result.json --out report.html
  phi3-steer help lab measure";

/// The lab: recipes that measure steering, as the page runs them.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Lab,
}

#[derive(clap::Subcommand)]
enum Lab {
    Find(find::Find),
    Card(find::Card),
    Gate(find::Gate),
    /// What steering buys, what it costs, and what else would do the same: the result as JSON.
    Measure(measure::Arguments),
    /// Many ways of steering: values, operators, positions, gate; the result as JSON.
    Sweep(measure::Arguments),
    Quantisation(survival::Arguments),
    /// Any recipe of a file; the result as JSON.
    Run(run::Arguments),
    Overrule(overrule::Arguments),
    /// Results as a report for people, or as a table.
    Report(report::Arguments),
}

pub async fn run(arguments: &Arguments, cpu: bool) -> Result<(), Failure> {
    match &arguments.command {
        Lab::Find(a) => find::find(a, cpu).await,
        Lab::Card(a) => find::card(a, cpu).await,
        Lab::Gate(a) => find::gate(a, cpu).await,
        Lab::Measure(a) => measure::run("measure", a, cpu).await,
        Lab::Sweep(a) => measure::run("sweep", a, cpu).await,
        Lab::Quantisation(a) => survival::run(a, cpu).await,
        Lab::Run(a) => run::run(a, cpu).await,
        Lab::Overrule(a) => overrule::run(a),
        Lab::Report(a) => report::run(a),
    }
}
