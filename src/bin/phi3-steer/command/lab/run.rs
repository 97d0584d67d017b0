//! `phi3-steer lab run`

use std::path::PathBuf;

use phi3_steer::lab::Recipe;

use super::follow::{Shared, finish, follow, load, place, sets};
use crate::command::Failure;
use crate::command::common::read_file;

const EXAMPLES: &str = "Examples:
  phi3-steer lab run recipe.json --model models/nano --sae models/nano/sae --out result.json

docs/lab.md describes recipes and results. The page saves both.";

/// Any recipe of a file; the result as JSON.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The recipe (JSON), or a result, whose recipe is followed again.
    #[arg(value_name = "FILE")]
    recipe: PathBuf,
    /// The prompts' file, where the recipe's are one's own.
    #[arg(long, value_name = "FILE")]
    sets: Option<PathBuf>,
    #[command(flatten)]
    shared: Shared,
}

pub async fn run(arguments: &Arguments, cpu: bool) -> Result<(), Failure> {
    let shown = arguments.recipe.display();
    let mut json: serde_json::Value = serde_json::from_slice(&read_file(&arguments.recipe)?)
        .map_err(|e| format!("{shown} is not JSON: {e}"))?;
    if json.get("recipe").is_some() {
        json = json["recipe"].take();
    }
    let recipe = Recipe::read(&json).map_err(|e| format!("{shown}: {e}"))?;
    let shared = &arguments.shared;
    let (prompts, path) = match (&arguments.sets, &recipe.sets.name[..]) {
        (Some(path), _) => sets(&path.to_string_lossy(), &shared.model.model)?,
        (None, name @ ("nano" | "real")) => sets(name, &shared.model.model)?,
        (None, _) => {
            return Err(format!("{shown} is about prompts of one's own: give --sets FILE").into());
        }
    };
    let mut read = vec![arguments.recipe.as_path()];
    read.extend(path.as_deref());
    let out = place(shared, &read)?;
    let mut chat = load(shared, &recipe, cpu).await?;
    let result = follow(&mut chat, shared, &recipe, &prompts).await?;
    finish(out, &result)
}
