//! `phi3-steer lab overrule`

use std::path::{Path, PathBuf};

use phi3_steer::lab::{ByHand, overrule};
use serde_json::Value;

use super::follow::finish;
use crate::command::Failure;
use crate::command::common::read_file;
use crate::output::{Existing, Output, Sources};

const EXAMPLES: &str = "Examples:
  phi3-steer lab overrule result.json --verdict \"clamp 8/direct/3=answered\" --out read.json
  phi3-steer lab overrule result.json --verdicts mine.json --out read.json

A verdict is ARM/PROMPT=declined, =answered, or =judge, which gives the judge's own back; ARM and PROMPT are
what the result calls them. A file holds a list of {\"arm\": …, \"item\": …, \"refused\": true, false or null}.";

/// Verdicts by hand in place of the judge's in a result, with everything that follows from them counted anew.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A result of lab measure or lab sweep (JSON).
    #[arg(value_name = "FILE")]
    result: PathBuf,
    /// A verdict; may be repeated.
    #[arg(long = "verdict", value_name = "ARM/PROMPT=WHAT", value_parser = verdict)]
    one: Vec<ByHand>,
    /// A file of verdicts (JSON).
    #[arg(long, value_name = "FILE", required_unless_present = "one")]
    verdicts: Option<PathBuf>,
    /// Where the result goes; standard output if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn verdict(text: &str) -> Result<ByHand, String> {
    let parts = text
        .rsplit_once('=')
        .and_then(|(reply, what)| Some((reply.split_once('/')?, what)));
    let ((arm, item), what) = parts.ok_or("it is written ARM/PROMPT=WHAT")?;
    let refused = match what {
        "declined" => Some(true),
        "answered" => Some(false),
        "judge" => None,
        _ => return Err(format!("{what} is none of declined, answered and judge")),
    };
    Ok(ByHand {
        arm: arm.into(),
        item: item.into(),
        refused,
    })
}

fn json(path: &Path) -> Result<Value, Failure> {
    let parsed = serde_json::from_slice(&read_file(path)?);
    Ok(parsed.map_err(|e| format!("{} is not JSON: {e}", path.display()))?)
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut read = vec![arguments.result.as_path()];
    read.extend(arguments.verdicts.as_deref());
    let out = arguments.out.as_deref();
    let out = out.map(|out| Output::create(out, Existing::Replaced, Sources::new(&read)));
    let out = out.transpose()?;
    let mut verdicts = Vec::new();
    if let Some(path) = &arguments.verdicts {
        let own: Result<Vec<ByHand>, _> = serde_json::from_value(json(path)?);
        verdicts = own.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    verdicts.extend(arguments.one.iter().cloned());
    finish(out, &overrule(&json(&arguments.result)?, &verdicts)?)
}
