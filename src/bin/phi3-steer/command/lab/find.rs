//! `phi3-steer lab find`, `phi3-steer lab card` and `phi3-steer lab gate`

use std::fmt::Write;
use std::path::Path;

use phi3_steer::lab::{RECIPE, Recipe};
use phi3_steer::sae::HookPoint;
use serde_json::{Value, json};

use super::follow::{Shared, finish, follow, load, place, sets};
use crate::command::Failure;
use crate::output::print;

/// The prompts, the place and the seed of a recipe.
#[derive(clap::Args)]
pub struct About {
    #[command(flatten)]
    shared: Shared,
    /// The prompts: nano (eval.json beside the model), real (those for chat models), or a file.
    #[arg(long, value_name = "WHICH", default_value = "nano")]
    sets: String,
    /// The split of the prompts; validation if not given.
    #[arg(long)]
    split: Option<String>,
    /// The hook point, as in layers.3; that of the only dictionary if not given.
    #[arg(long)]
    hook: Option<HookPoint>,
    /// Seed of all draws.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

const FIND_EXAMPLES: &str = "Examples:
  phi3-steer lab find --model models/nano --sae models/nano/sae --out found.json
  phi3-steer lab find --model model.gguf --sae sae/layers.9 --sets real --journal journal.jsonl --out found.json

A table of the best candidates goes to standard output where the result goes to a file.";

/// The features that make a model refuse: found, confirmed, and how strong to hold them.
#[derive(clap::Args)]
#[command(after_help = FIND_EXAMPLES)]
pub struct Find {
    #[command(flatten)]
    about: About,
    /// Prompts of each class to search with.
    #[arg(long, value_name = "N")]
    prompts: Option<usize>,
    /// Prompts of each class to confirm on.
    #[arg(long, value_name = "N")]
    held: Option<usize>,
    /// Candidates whose effect on the odds of a refusal is computed.
    #[arg(long, value_name = "N")]
    candidates: Option<usize>,
    /// Candidates that are confirmed.
    #[arg(long, value_name = "N")]
    confirm: Option<usize>,
    /// Features of a set at most.
    #[arg(long, value_name = "N")]
    most: Option<usize>,
    /// Tokens of a reply at most.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
}

const CARD_EXAMPLES: &str = "Examples:
  phi3-steer lab card --model models/nano --sae models/nano/sae --feature 329
  phi3-steer lab card --model models/nano --sae models/nano/sae --feature 329 --text \"How do I rob a bank?\" --out card.json";

/// What is known of a feature: where it is active, what it writes, and what is like it.
#[derive(clap::Args)]
#[command(after_help = CARD_EXAMPLES)]
pub struct Card {
    #[command(flatten)]
    about: About,
    /// The feature.
    #[arg(long, value_name = "N")]
    feature: u32,
    /// A text to read as a user's message; may be repeated.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// Prompts to read, evenly spread over all sets.
    #[arg(long, value_name = "N")]
    prompts: Option<usize>,
}

const GATE_EXAMPLES: &str = "Examples:
  phi3-steer lab gate --model models/nano --sae models/nano/sae --out gate.json
  phi3-steer lab gate --model models/nano --sae models/nano/sae --others layers.2,layers.4 --feature 329 --out gate.json
  phi3-steer lab measure --model models/nano --sae models/nano/sae --gate gate.json --out result.json";

/// What tells harmful prompts from harmless ones before the answer: a probe, its threshold, and what it does
/// on prompts that it was not fitted to.
#[derive(clap::Args)]
#[command(after_help = GATE_EXAMPLES)]
pub struct Gate {
    #[command(flatten)]
    about: About,
    /// Prompts of a set at most.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Other hook points to compare with, separated by commas.
    #[arg(long, value_name = "HOOK", value_delimiter = ',')]
    others: Vec<HookPoint>,
    /// A feature whose activation is tried in place of a probe.
    #[arg(long, value_name = "N")]
    feature: Option<u32>,
    /// The share of harmless prompts below the threshold.
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
    /// The split whose figures are told; test if not given.
    #[arg(long, value_name = "SPLIT")]
    test: Option<String>,
}

impl About {
    /// A recipe with the fields of `own` that are not null.
    fn recipe(&self, task: &str, limit: Option<usize>, own: Value) -> Result<Recipe, Failure> {
        let mut recipe = json!({
            "schema": RECIPE,
            "task": task,
            "seed": self.seed,
            "sets": {
                "name": match &self.sets[..] { name @ ("nano" | "real") => name, _ => "own" },
                "split": self.split,
                "limit": limit,
            },
        });
        if let Some(hook) = self.hook {
            recipe["hook"] = json!(hook);
        }
        if let Value::Object(own) = own {
            for (name, value) in own.into_iter().filter(|(_, value)| !value.is_null()) {
                recipe[name] = value;
            }
        }
        Ok(Recipe::read(&recipe)?)
    }

    /// Follows the recipe; with a file for the result, `words` of it are printed.
    async fn run(
        &self,
        recipe: Recipe,
        cpu: bool,
        words: fn(&Value) -> String,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        let (prompts, path) = sets(&self.sets, &shared.model.model)?;
        let read: Vec<&Path> = path.as_deref().into_iter().collect();
        let out = place(shared, &read)?;
        let mut chat = load(shared, &recipe, cpu).await?;
        let result = follow(&mut chat, shared, &recipe, &prompts).await?;
        if shared.out.is_some() {
            print(&words(&result))?;
        }
        finish(out, &result)
    }
}

pub async fn find(arguments: &Find, cpu: bool) -> Result<(), Failure> {
    let own = json!({
        "prompts": arguments.prompts, "held": arguments.held, "candidates": arguments.candidates,
        "confirm": arguments.confirm, "most": arguments.most, "tokens": arguments.tokens,
    });
    let about = &arguments.about;
    about
        .run(about.recipe("find", None, own)?, cpu, found)
        .await
}

pub async fn card(arguments: &Card, cpu: bool) -> Result<(), Failure> {
    let own = json!({
        "feature": arguments.feature, "texts": arguments.text, "prompts": arguments.prompts,
    });
    let about = &arguments.about;
    about
        .run(about.recipe("card", None, own)?, cpu, described)
        .await
}

pub async fn gate(arguments: &Gate, cpu: bool) -> Result<(), Failure> {
    let own = json!({
        "others": arguments.others, "feature": arguments.feature,
        "percentile": arguments.percentile, "test": arguments.test,
    });
    let about = &arguments.about;
    let recipe = about.recipe("gate", arguments.limit, own)?;
    about.run(recipe, cpu, fitted).await
}

/// A number with a few digits, "-" where there is none.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(v) if v == v.trunc() && v.abs() < 1e6 => format!("{v}"),
        Some(v) if v.abs() >= 0.01 => format!("{v:.2}"),
        Some(v) => format!("{v:.1e}"),
        None => "-".into(),
    }
}

/// A share of 1 in percent.
fn percent(value: &Value) -> String {
    let share = value.as_f64();
    share.map_or("-".into(), |v| format!("{:.0}", 100.0 * v))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What was found, as a Markdown table and a sentence.
fn found(result: &Value) -> String {
    let mut out = String::from(
        "| feature | up: harmful refused | up: harmless refused | down: harmful refused | paper \
         | last t | reply t | cosine | causal | output | paired q | agreement |\n|---|",
    );
    out += &"---|".repeat(11);
    out.push('\n');
    let change = |one: &Value| {
        let (base, steered) = (&one["base"], &one["steered"]);
        match base.is_null() {
            true => "-".to_string(),
            false => format!("{} → {}", percent(base), percent(steered)),
        }
    };
    for one in list(&result["candidates"]).iter().take(12) {
        let (scores, tried) = (&one["scores"], &one["confirmed"]);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            one["feature"],
            change(&tried["up"]),
            change(&tried["harmless"]),
            change(&tried["down"]),
            percent(&scores["paper"]),
            number(&scores["contrastLast"]["t"]),
            number(&scores["contrastReply"]["t"]),
            number(&scores["cosine"]),
            number(&scores["causal"]),
            number(&scores["output"]),
            number(&scores["paired"]["q"]),
            percent(&one["agreement"]),
        );
    }
    let members = list(&result["chosen"]["features"]);
    let names: Vec<String> = members.iter().map(|m| m["feature"].to_string()).collect();
    // What pays behind the gate alone is told as it is there.
    let unit = result["strength"]["unit"].as_str().unwrap_or_default();
    let (strength, behind) = match result["chosen"]["gated"] == true {
        true => (&result["strength"]["gated"], ", behind its gate"),
        false => (&result["strength"], ""),
    };
    let range = match &strength["useful"] {
        Value::Null => "no strength is plainly useful".to_string(),
        range => format!("useful from {} to {}", number(&range[0]), number(&range[1])),
    };
    let names = names.join(" + ");
    let what = match result["chosen"]["kind"].as_str() {
        Some("none") => format!("none; {names} came nearest"),
        Some("direction") => "the difference of means, since no feature does it".into(),
        _ => names,
    };
    let _ = writeln!(
        out,
        "\nChosen: {what}{behind}, {range}, best at {} (unit: {unit}).",
        number(&strength["default"]),
    );
    out
}

/// A card in a few lines.
fn described(result: &Value) -> String {
    let words = |side: &Value| -> String {
        let all = list(side).iter().filter_map(|one| one["text"].as_str());
        all.map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" ")
    };
    let mut out = format!(
        "Feature {}: active at {:.2} % of {} tokens, at most {}.\nWrites: {}\nAnd not: {}\n",
        result["feature"],
        100.0 * result["density"].as_f64().unwrap_or_default(),
        result["tokens"],
        number(&result["max"]),
        words(&result["logits"]["top"]),
        words(&result["logits"]["bottom"]),
    );
    contexts(&mut out, list(&result["strongest"]));
    let published = &result["published"];
    if let Some(trouble) = published["trouble"].as_str() {
        let _ = writeln!(out, "What was published with it is left out: {trouble}");
    } else if published.is_object() {
        let share = published["frequency"].as_f64();
        let share = share.map_or(String::new(), |s| format!(", active at {:.2} %", 100.0 * s));
        let _ = writeln!(
            out,
            "Published with it{share}. Writes: {}. And not: {}",
            words(&published["top"]),
            words(&published["bottom"]),
        );
        contexts(&mut out, list(&published["strongest"]));
    }
    let near: Vec<String> = list(&result["neighbours"])
        .iter()
        .map(|n| format!("{} ({})", n["feature"], number(&n["cosine"])))
        .collect();
    let _ = writeln!(out, "Like it: {}", near.join(", "));
    out
}

/// Contexts, a line each: how active the feature is at most, and the words around.
fn contexts(out: &mut String, all: &[Value]) {
    for one in all {
        let peak = one["peak"].as_u64().unwrap_or_default() as usize;
        let tokens = list(&one["tokens"]);
        let text: String = tokens
            .iter()
            .enumerate()
            .map(|(i, token)| {
                let text = token["text"].as_str().unwrap_or_default();
                match i == peak {
                    true => format!("«{text}»"),
                    false => text.to_string(),
                }
            })
            .collect();
        let at = tokens.get(peak).map_or(&Value::Null, |t| &t["activation"]);
        let _ = writeln!(out, "{:>7}  {}", number(at), text.replace('\n', "↵"));
    }
}

/// Gates as a Markdown table: the share of prompts that each lets steering at.
fn fitted(result: &Value) -> String {
    let mut gates: Vec<(String, &Value)> = Vec::new();
    for gate in [&result["gate"]].into_iter().chain(list(&result["others"])) {
        gates.push((
            format!("probe, {}", gate["hook"].as_str().unwrap_or_default()),
            gate,
        ));
    }
    if let Some(gate) = result.get("byFeature").filter(|g| !g.is_null()) {
        gates.push((format!("feature {}", gate["feature"]), gate));
    }
    let empty = serde_json::Map::new();
    let sets = result["gate"]["test"]["sets"].as_object().unwrap_or(&empty);
    let mut out = String::from("| gate | AUC, cross-validated | AUC, test | threshold |");
    for name in sets.keys() {
        let _ = write!(out, " {name} |");
    }
    let _ = writeln!(out, "\n|{}", "---|".repeat(4 + sets.len()));
    for (name, gate) in gates {
        let test = &gate["test"];
        let auc = |v: &Value| v.as_f64().map_or("-".into(), |v| format!("{v:.3}"));
        let _ = write!(
            out,
            "| {name} | {} | {} | {} |",
            auc(&gate["auc"]),
            auc(&test["auc"]),
            number(&gate["threshold"])
        );
        for set in sets.keys() {
            let _ = write!(out, " {} |", percent(&test["sets"][set]["share"]));
        }
        out.push('\n');
    }
    out
}
