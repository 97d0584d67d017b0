//! `phi3-steer lab measure` and `phi3-steer lab sweep`

use std::path::{Path, PathBuf};

use phi3_steer::lab::{RECIPE, Recipe};
use phi3_steer::sae::HookPoint;
use serde_json::{Value, json};

use super::follow::{Shared, finish, follow, load, place, sets};
use crate::command::Failure;
use crate::command::common::read_file;
use crate::command::eval::read_report;

const EXAMPLES: &str = "Examples:
  phi3-steer lab measure --model models/nano --sae models/nano/sae --limit 24 --out result.json
  phi3-steer lab measure --model models/nano --sae models/nano/sae --feature 329 --values 4,8 --caps 14,32,80,160 --journal journal.jsonl --out result.json
  phi3-steer lab sweep --model models/nano --sae models/nano/sae --operators clamp,add --positions all,generated --values 4,8 --out result.json

Without --hook, --feature and --values these come from report.json beside the model. docs/lab.md describes
the result.";

/// What steering buys, what it costs, and what else would do the same: the result as JSON.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// The prompts: nano (eval.json beside the model), real (those for chat models), or a file.
    #[arg(long, value_name = "WHICH", default_value = "nano")]
    sets: String,
    /// The split of the prompts; test if there is one.
    #[arg(long)]
    split: Option<String>,
    /// Prompts of a set at most, evenly spread over it.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only these sets, by name.
    #[arg(long, value_name = "SET", value_delimiter = ',')]
    only: Vec<String>,
    /// The hook point, as in layers.3.
    #[arg(long)]
    hook: Option<HookPoint>,
    /// A feature, or several that are steered together, each with what a strength of 1 is of it:
    /// 17:2.1+240:0.8. May be repeated: each is measured.
    #[arg(long, value_name = "N[:MAX][+…]")]
    feature: Vec<String>,
    /// Strengths, separated by commas.
    #[arg(
        long,
        value_name = "V",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    values: Vec<f32>,
    /// Strengths below 0.
    #[arg(
        long,
        value_name = "V",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    negatives: Vec<f32>,
    /// Operators, separated by commas.
    #[arg(
        long,
        value_name = "OP",
        value_delimiter = ',',
        default_value = "clamp"
    )]
    operators: Vec<String>,
    /// Tokens that are steered: all, prompt, generated.
    #[arg(
        long,
        value_name = "WHERE",
        value_delimiter = ',',
        default_value = "all"
    )]
    positions: Vec<String>,
    /// Measure each way of steering also where the feature is active only.
    #[arg(long)]
    if_active: bool,
    /// Controls by name, or none; all if not given (sweep: none).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    controls: Option<Vec<String>>,
    /// The strength at which controls are measured; the last of --values if not given.
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    at: Option<f32>,
    /// Random features, and as many random directions.
    #[arg(long, value_name = "N", default_value_t = 2)]
    repeats: usize,
    /// A gate (JSON), or a result that has one: each way of steering is measured with and without it.
    #[arg(long, value_name = "FILE")]
    gate: Option<PathBuf>,
    /// Tokens of a reply at most; what the prompts' file says if not given.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Other such numbers, at which the replies are judged too.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    caps: Vec<usize>,
    /// What says which replies are refusals (JSON, as www/judge.json); the prompts' own judge if not given.
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    /// Seed of the random features and directions.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// "17:2.1+240:0.8"
fn target(text: &str) -> Result<Value, Failure> {
    let fail = || format!("--feature {text}: features are wanted, as in 329 or 17:2.1+240:0.8");
    let mut features = Vec::new();
    for one in text.split('+') {
        let (feature, max) = one.split_once(':').unwrap_or((one, "1"));
        let feature: u32 = feature.trim().parse().map_err(|_| fail())?;
        let max: f32 = max.trim().parse().map_err(|_| fail())?;
        features.push(json!({"feature": feature, "max": max}));
    }
    Ok(json!({"features": features}))
}

/// The JSON in a file.
fn json_of(path: &Path) -> Result<Value, Failure> {
    let json = serde_json::from_slice(&read_file(path)?);
    Ok(json.map_err(|e| format!("{} is not JSON: {e}", path.display()))?)
}

/// The gate in a file: one, or that of a result.
pub fn gate(path: &Path) -> Result<Value, Failure> {
    let json = json_of(path)?;
    let gate = json.get("gate").unwrap_or(&json);
    // Of what a result tells of its gate, what makes it one.
    let made = ["hook", "threshold", "feature", "weights", "bias"];
    let kept = made
        .iter()
        .filter_map(|name| Some((name.to_string(), gate.get(name)?.clone())));
    Ok(Value::Object(kept.collect()))
}

impl Arguments {
    /// The recipe.
    fn recipe(&self, task: &str) -> Result<Recipe, Failure> {
        let model = &self.shared.model.model;
        let report = read_report(model)?;
        let missing = |what: &str| {
            format!(
                "{} has no report.json that names the {what}: give --{what}",
                model.display()
            )
        };
        let mut steer = self
            .feature
            .iter()
            .map(|text| target(text))
            .collect::<Result<Vec<_>, _>>()?;
        let (mut values, mut hook) = (self.values.clone(), self.hook);
        if let Some(report) = &report {
            if steer.is_empty() {
                steer.push(json!({"features": [{"feature": report.feature}]}));
            }
            if values.is_empty() {
                let [low, high] = report.value.useful;
                values = vec![low, report.value.default, high];
                values.sort_by(f32::total_cmp);
                values.dedup();
            }
            hook = hook.or(Some(report.hook));
        }
        if steer.is_empty() {
            return Err(missing("feature").into());
        }
        if values.is_empty() {
            return Err(missing("values").into());
        }
        let mut recipe = json!({
            "schema": RECIPE,
            "task": task,
            "seed": self.seed,
            "sets": {
                "name": match &self.sets[..] { name @ ("nano" | "real") => name, _ => "own" },
                "split": self.split,
                "limit": self.limit,
                "only": self.only,
            },
            "steer": steer,
            "values": values,
            "negatives": self.negatives,
            "operators": self.operators,
            "positions": self.positions,
            "onlyIfActive": if self.if_active { vec![false, true] } else { vec![false] },
            "repeats": self.repeats,
            "caps": self.caps,
        });
        if let Some(hook) = hook {
            recipe["hook"] = json!(hook);
        }
        if let Some(controls) = &self.controls {
            let named = controls.iter().filter(|c| *c != "none");
            recipe["controls"] = json!(named.collect::<Vec<_>>());
        }
        if let Some(path) = &self.gate {
            recipe["gate"] = gate(path)?;
        }
        if let Some(path) = &self.judge {
            recipe["judge"] = json_of(path)?;
        }
        if let Some(at) = self.at {
            recipe["at"] = json!(at);
        }
        if let Some(tokens) = self.tokens {
            recipe["tokens"] = json!(tokens);
        }
        Ok(Recipe::read(&recipe)?)
    }
}

pub async fn run(task: &str, arguments: &Arguments, cpu: bool) -> Result<(), Failure> {
    let recipe = arguments.recipe(task)?;
    let shared = &arguments.shared;
    let (prompts, path) = sets(&arguments.sets, &shared.model.model)?;
    let read: Vec<&Path> = path.as_deref().into_iter().collect();
    let out = place(shared, &read)?;
    let mut chat = load(shared, &recipe, cpu).await?;
    let result = follow(&mut chat, shared, &recipe, &prompts).await?;
    finish(out, &result)
}
