//! `phi3-steer lab report`

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use phi3_steer::lab::{ReportInput, TableFormat, report, table};
use serde_json::Value;

use crate::command::Failure;
use crate::command::common::read_file;
use crate::output::{Existing, Output, Sources, print};

const EXAMPLES: &str = "Examples:
  phi3-steer lab report result.json --title \"Feature 329\" --notes notes.txt --out report.html
  phi3-steer lab report result.json --format markdown
  phi3-steer lab report result.json --format csv --out result.csv

The HTML file has plots, tables, recipes and notes in it and needs nothing else.";

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One file with plots, tables, recipes and notes.
    Html,
    /// The table for people.
    Markdown,
    /// The table for programs: a line an arm and group.
    Csv,
}

/// Results as a report for people, or as a table.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Results of the lab (JSON).
    #[arg(required = true, value_name = "FILE")]
    results: Vec<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
    /// The report's title.
    #[arg(long, value_name = "TEXT", default_value = "")]
    title: String,
    /// Notes: plain text, paragraphs parted by empty lines.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// Where it goes; standard output if not given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let read: Vec<&Path> = arguments.results.iter().map(PathBuf::as_path).collect();
    let out = arguments.out.as_deref();
    let out = out.map(|out| Output::create(out, Existing::Replaced, Sources::new(&read)));
    let out = out.transpose()?;
    let mut results = Vec::with_capacity(read.len());
    for path in &read {
        let json: Result<Value, _> = serde_json::from_slice(&read_file(path)?);
        results.push(json.map_err(|e| format!("{} is not JSON: {e}", path.display()))?);
    }
    let tables = |format| -> Result<String, Failure> {
        let all = results.iter().map(|result| table(result, format));
        Ok(all.collect::<Result<Vec<_>, _>>()?.join("\n"))
    };
    let text = match arguments.format {
        Format::Markdown => tables(TableFormat::Markdown)?,
        Format::Csv => tables(TableFormat::Csv)?,
        Format::Html => {
            let notes = match &arguments.notes {
                Some(path) => String::from_utf8(read_file(path)?)
                    .map_err(|e| format!("{} is not text: {e}", path.display()))?,
                None => String::new(),
            };
            report(&ReportInput {
                title: arguments.title.clone(),
                notes,
                results: results.clone(),
                settings: Value::Null,
            })?
        }
    };
    match out {
        None => print(&text),
        Some(mut out) => {
            out.add(text.as_bytes())?;
            out.finish()
        }
    }
}
