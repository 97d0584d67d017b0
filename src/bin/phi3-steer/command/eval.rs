//! `phi3-steer eval`

use std::cell::Cell;
use std::path::{Path, PathBuf};

use phi3_steer::generate::{Chat, self_test};
use phi3_steer::lab::{RECIPE, Recipe, Sets, nano_table};
use phi3_steer::matrix::Format;
use phi3_steer::phi3::Model;
use phi3_steer::sae::HookPoint;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Failure;
use super::common::{ModelArguments, beside, read_file};
use super::lab::follow::{Shared, follow, load};
use super::lab::measure::gate;
use crate::output::{Existing, Place, Sources, print, print_line};

/// Points of the curve up to the report's largest value.
const POINTS: usize = 8;
/// What `--quick` takes of each set, and the points of its curve.
const QUICK_PROMPTS: usize = 16;
const QUICK_POINTS: usize = 2;
/// The largest value of the curve where no report says it.
const MAX_VALUE: f32 = 16.0;

/// What the feature is compared with.
const CONTROLS: [&str; 5] = [
    "ablation",
    "reconstruction",
    "errorDropped",
    "randomFeatures",
    "randomDirections",
];
/// What a report keeps of an arm.
const RECORDED: [&str; 14] = [
    "arm",
    "value",
    "refused",
    "incoherent",
    "odds",
    "jailbreaks",
    "unseen",
    "facts",
    "choice",
    "arithmetic",
    "coherent",
    "perplexity",
    "interval95",
    "prompts",
];

const EXAMPLES: &str = "Examples:
  phi3-steer eval --model models/nano --sae models/nano/sae
  phi3-steer eval --model models/nano --sae models/nano/sae --quick
  phi3-steer eval --model models/nano --sae models/nano/sae --feature 329 --values 0,2,4,8 --controls 8
  phi3-steer eval --model models/nano --sae models/nano/sae --split validation --out models/nano/report.json
  phi3-steer eval --model models/nano --sae models/nano/sae --gate gate.json --out models/nano/report.json

Without --feature, --hook and --values these come from report.json beside the model. Controls are measured
at the top of the report's useful range. With --split validation the useful range is computed, and with
--out recorded; a test run never chooses anything. A gate (lab gate) is recorded with what it does. --out records what check-sae says of the dictionary, too.";

/// What steering a feature buys and costs: a Markdown table on stdout.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The dictionary: its folder or one of its files, in any format, or a folder with such folders.
    #[arg(long, value_name = "DIR")]
    sae: PathBuf,
    /// The prompts; eval.json beside the model if not given.
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// The split of the prompts: test or validation.
    #[arg(long, default_value = "test")]
    split: String,
    /// The feature's hook point, as in layers.3.
    #[arg(long)]
    hook: Option<HookPoint>,
    /// The feature.
    #[arg(long, value_name = "N")]
    feature: Option<u32>,
    /// The clamp's values >= 0, separated by commas.
    #[arg(
        long,
        value_name = "V",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    values: Vec<f32>,
    /// The clamp's values below 0, separated by commas.
    #[arg(long, value_name = "V", value_delimiter = ',', allow_hyphen_values = true,
          default_values_t = [-4.0, -8.0])]
    negative: Vec<f32>,
    /// Random features, and as many random directions, to compare with.
    #[arg(long, value_name = "N", default_value_t = 4)]
    controls: usize,
    /// The value at which controls are measured.
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    control_value: Option<f32>,
    /// A gate (JSON), or a result that has one: each value is measured with and without it.
    #[arg(long, value_name = "FILE")]
    gate: Option<PathBuf>,
    /// Seed of the random features and directions.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Prompts that run at once.
    #[arg(long, value_name = "N", default_value_t = 32)]
    lanes: usize,
    /// Prompts of a set at most, evenly spread over it.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// A file for what is measured, step by step: given again, the work goes on where it ended.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Few prompts, values and controls: a look, no measurement.
    #[arg(long)]
    quick: bool,
    /// A report (JSON) to write the figures into; what else it holds is kept.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is needed of `report.json`.
#[derive(Deserialize)]
pub struct Report {
    pub hook: HookPoint,
    pub feature: u32,
    pub value: ReportValue,
}

#[derive(Deserialize)]
pub struct ReportValue {
    pub default: f32,
    pub useful: [f32; 2],
    pub max: f32,
}

/// The report beside the model, if there is one.
pub fn read_report(model: &Path) -> Result<Option<Report>, Failure> {
    let path = beside(model, "report.json");
    if !path.exists() {
        return Ok(None);
    }
    let report = serde_json::from_slice(&read_file(&path)?)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Some(report))
}

impl Arguments {
    /// The points of the curve.
    fn curve(&self, report: Option<&Report>) -> Result<Vec<f32>, Failure> {
        let mut values = self.values.clone();
        if values.is_empty() {
            let points = if self.quick { QUICK_POINTS } else { POINTS };
            let max = report.map_or(MAX_VALUE, |r| r.value.max);
            values.extend((1..=points).map(|i| max * i as f32 / points as f32));
            if let Some(report) = report.filter(|_| !self.quick) {
                values.extend([report.value.default]);
                values.extend(report.value.useful);
            }
        }
        if let Some(value) = values.iter().find(|v| !(v.is_finite() && **v >= 0.0)) {
            return Err(format!("--values {value}: finite values from 0 on are needed").into());
        }
        if let Some(value) = self.negative.iter().find(|v| !(v.is_finite() && **v < 0.0)) {
            return Err(format!("--negative {value}: finite values below 0 are needed").into());
        }
        values.sort_by(f32::total_cmp);
        values.dedup();
        Ok(values)
    }

    /// The recipe that this command is.
    fn recipe(&self) -> Result<Recipe, Failure> {
        let report = read_report(&self.model.model)?;
        let report = report.as_ref();
        let missing = |what: &str| {
            format!(
                "{} has no report.json that names the {what}: give --{what}",
                self.model.model.display()
            )
        };
        let values = self.curve(report)?;
        let top = report.map_or(values.last().copied(), |r| Some(r.value.useful[1]));
        let at = self.control_value.or(top).unwrap_or(MAX_VALUE);
        if !at.is_finite() {
            return Err(format!("--control-value {at}: a finite value is needed").into());
        }
        let hook = self.hook.or(report.map(|r| r.hook));
        let feature = self.feature.or(report.map(|r| r.feature));
        let hook = hook.ok_or_else(|| missing("hook"))?;
        let feature = feature.ok_or_else(|| missing("feature"))?;
        let mut recipe = json!({
            "schema": RECIPE,
            "task": "measure",
            "hook": hook,
            "seed": self.seed,
            "sets": {
                "name": if self.eval.is_some() { "own" } else { "nano" },
                "split": self.split,
                "limit": self.limit.or(self.quick.then_some(QUICK_PROMPTS)),
            },
            "steer": [{"features": [{"feature": feature}]}],
            "values": values,
            "negatives": self.negative,
            "at": at,
            "repeats": if self.quick { self.controls.min(1) } else { self.controls },
            "controls": CONTROLS,
        });
        if let Some(path) = &self.gate {
            recipe["gate"] = gate(path)?;
        }
        Ok(Recipe::read(&recipe)?)
    }
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let recipe = arguments.recipe()?;
    let path = match &arguments.eval {
        Some(path) => path.clone(),
        None => beside(&arguments.model.model, "eval.json"),
    };
    let sets = Sets::new(&recipe.sets.name, &read_file(&path)?)?;
    // Before anything is loaded: an unknown split ends here.
    sets.file.sets(&arguments.split, recipe.sets.limit)?;
    let read = [arguments.model.model.as_path(), &arguments.sae, &path];
    let into = arguments.out.as_deref().map(|out| {
        let place = Place::find(out, Existing::Replaced, Sources::new(&read))?;
        Ok::<_, Failure>((place, read_object(out)?))
    });
    let into = into.transpose()?;

    let shared = Shared {
        model: arguments.model.clone(),
        sae: arguments.sae.clone(),
        lanes: arguments.lanes,
        journal: arguments.journal.clone(),
        out: None,
    };
    let mut chat = load(&shared, &recipe, cpu_adapter).await?;
    // The page looks it up.
    let fit = match into {
        Some(_) => Some(fit(&mut chat).await?),
        None => None,
    };
    let result = follow(&mut chat, &shared, &recipe, &sets).await?;
    let validation = arguments.split == "validation";
    let range = Some(&result["range"][0]).filter(|range| validation && range.is_object());
    if let Some((place, mut object)) = into {
        record(&mut object, arguments, &result, range);
        let engine = engine_json(chat.model(), arguments);
        object.insert("engine".into(), engine);
        object.extend(fit.map(|fit| ("fit".into(), fit)));
        let text = serde_json::to_string_pretty(&object)? + "\n";
        place.write(text.as_bytes())?;
    }
    print(&nano_table(&result)?)?;
    match range {
        Some(range) => {
            let of = |name: &str| range[name].as_f64().unwrap_or(f64::NAN);
            let (low, high, best) = (of("low"), of("high"), of("best"));
            print_line(&format!("\nUseful from {low} to {high}, best at {best}."))?;
        }
        None if validation => print_line("\nNo value is useful.")?,
        None => {}
    }
    Ok(())
}

/// What check-sae says of the dictionary.
async fn fit(chat: &mut Chat) -> Result<Value, Failure> {
    let tokenizer = chat.tokenizer().clone();
    let (model, steering) = chat.model_and_steering();
    let point = steering.points().first().copied();
    let hook = point.and_then(|point| steering.hook(point));
    let hook = hook.ok_or("no dictionary is loaded")?;
    let never = Cell::new(false);
    let test = self_test(model, hook.dictionary(), &tokenizer, None, &never).await?;
    Ok(serde_json::to_value(&test)?)
}

/// The object in a JSON file, empty if there is no file.
pub fn read_object(path: &Path) -> Result<Map<String, Value>, Failure> {
    if !path.exists() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&read_file(path)?)
        .map_err(|e| format!("{} is no JSON object: {e}", path.display()).into())
}

/// Puts the figures into a report: those of the test split where the page looks for them (`base`, the
/// curve as `table`, and the other `arms`), those of another under the split's name with `_q4`. A
/// validation run that finds a useful range makes it the report's.
fn record(
    object: &mut Map<String, Value>,
    arguments: &Arguments,
    result: &Value,
    range: Option<&Value>,
) {
    let arms = result["arms"].as_array().map_or(&[][..], |arms| &arms[..]);
    let row = |arm: &Value| -> Value {
        let all = arm.as_object().into_iter().flatten();
        let kept = all.filter(|(name, _)| RECORDED.contains(&&name[..]));
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Map<_, _>>()
            .into()
    };
    let of = |on_curve: bool, gated: bool| -> Vec<Value> {
        let rows = arms.iter().skip(1);
        let rows = rows
            .filter(|arm| arm["series"].is_number() == on_curve && (arm["gated"] == true) == gated);
        rows.map(row).collect()
    };
    let mut figures = Map::new();
    if let Some(base) = arms.first() {
        figures.insert("base".into(), row(base));
    }
    figures.insert("table".into(), json!(of(true, false)));
    figures.insert("arms".into(), json!(of(false, false)));
    object.insert("hook".into(), result["hook"].clone());
    let feature = &result["recipe"]["steer"][0]["features"][0]["feature"];
    object.insert("feature".into(), feature.clone());
    let gate = result["recipe"].get("gate").filter(|gate| gate.is_object());
    if arguments.split == "test" {
        object.extend(figures);
        object.insert("split".into(), json!("test"));
        if let Some(gate) = gate {
            object.insert("gate".into(), gate.clone());
            // The strengths that are useful behind the gate are found on validation, and stay.
            let mut gated = gated_of(object);
            gated["table"] = json!(of(true, true));
            object.insert("gated".into(), gated);
        }
    } else {
        if gate.is_some() {
            figures.insert("gated".into(), json!(of(true, true)));
        }
        object.insert(format!("{}_q4", arguments.split), Value::Object(figures));
    }
    if let Some(range) = range {
        let values = result["recipe"]["values"].as_array();
        let max = values.and_then(|v| v.last()).unwrap_or(&range["high"]);
        let value = |range: &Value| json!({"default": range["best"], "useful": [range["low"], range["high"]], "max": max});
        object.insert("value".into(), value(range));
        let behind = &result["range"][1];
        if gate.is_some() && behind.is_object() {
            let mut gated = gated_of(object);
            gated["value"] = value(behind);
            object.insert("gated".into(), gated);
        }
    }
}

/// What a report says of steering behind a gate.
fn gated_of(report: &Map<String, Value>) -> Value {
    let known = report.get("gated").filter(|gated| gated.is_object());
    known.cloned().unwrap_or(json!({}))
}

fn engine_json(model: &Model, arguments: &Arguments) -> Value {
    let capabilities = model.gpu().capabilities();
    let formats: Vec<&str> = model.formats().into_iter().map(Format::name).collect();
    json!({
        "adapter": capabilities.name,
        "backend": capabilities.backend,
        "quant": formats.join(", "),
        "decoding": "greedy",
        "seed": arguments.seed,
    })
}
