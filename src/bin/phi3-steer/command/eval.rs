//! `phi3-steer eval`

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use phi3_steer::generate::{Chat, self_test};
use phi3_steer::gpu::Capabilities;
use phi3_steer::lab::{
    Bench, BenchOptions, EvalFile, OperatingRange, Plan, Row, add_directions, markdown,
    operating_range,
};
use phi3_steer::phi3::ModelFiles;
use phi3_steer::sae::{Dictionary, HookPoint};
use phi3_steer::steering::Steering;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Failure;
use super::common::{
    ModelArguments, beside, load_files, model_folder, open_gpu, read_file, wanted,
};
use super::dictionary::sae_folder;
use crate::output::{Existing, Place, Sources, note, print, print_line};

/// Points of the curve up to the report's largest value.
const POINTS: usize = 8;
/// What `--quick` takes of each set, and the points of its curve.
const QUICK_PROMPTS: usize = 16;
const QUICK_POINTS: usize = 2;
/// The largest value of the curve where no report says it.
const MAX_VALUE: f32 = 16.0;

const EXAMPLES: &str = "Examples:
  phi3-steer eval --model models/nano --sae models/nano/sae
  phi3-steer eval --model models/nano --sae models/nano/sae --quick
  phi3-steer eval --model models/nano --sae models/nano/sae --feature 329 --values 0,2,4,8 --controls 8
  phi3-steer eval --model models/nano --sae models/nano/sae --split validation --out models/nano/report.json

Without --feature, --hook and --values these come from report.json beside the model. Controls are measured
at the top of the report's useful range. With --split validation the useful range is computed, and with
--out recorded; a test run never chooses anything. --out records what check-sae says of the dictionary, too.";

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
    /// Seed of the random features and directions.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Prompts that run at once.
    #[arg(long, value_name = "N", default_value_t = 32)]
    lanes: usize,
    /// Prompts of a set at most, evenly spread over it.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Few prompts, values and controls: a look, no measurement.
    #[arg(long)]
    quick: bool,
    /// A report (JSON) to write the figures into; what else it holds is kept.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is needed of `report.json`.
#[derive(Deserialize)]
struct Report {
    hook: HookPoint,
    feature: u32,
    value: ReportValue,
}

#[derive(Deserialize)]
struct ReportValue {
    default: f32,
    useful: [f32; 2],
    max: f32,
}

/// The report beside the model, if there is one.
fn read_report(model: &Path) -> Result<Option<Report>, Failure> {
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

    /// What to measure, but for the controls.
    fn plan(&self, report: Option<&Report>) -> Result<Plan, Failure> {
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
        Ok(Plan {
            hook: self
                .hook
                .or(report.map(|r| r.hook))
                .ok_or_else(|| missing("hook"))?,
            feature: self
                .feature
                .or(report.map(|r| r.feature))
                .ok_or_else(|| missing("feature"))?,
            values,
            negatives: self.negative.clone(),
            at,
            others: Vec::new(),
            directions: Vec::new(),
        })
    }
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let report = read_report(&arguments.model.model)?;
    let mut plan = arguments.plan(report.as_ref())?;
    let path = match &arguments.eval {
        Some(path) => path.clone(),
        None => beside(&arguments.model.model, "eval.json"),
    };
    let file = EvalFile::from_json(&read_file(&path)?)?;
    let controls = if arguments.quick {
        arguments.controls.min(1)
    } else {
        arguments.controls
    };
    let options = BenchOptions {
        split: &arguments.split,
        limit: arguments.limit.or(arguments.quick.then_some(QUICK_PROMPTS)),
    };
    // Before anything is loaded: an unknown split ends here.
    file.sets(options.split, options.limit)?;
    let read = [arguments.model.model.as_path(), &arguments.sae, &path];
    let into = arguments.out.as_deref().map(|out| {
        let place = Place::find(out, Existing::Replaced, Sources::new(&read))?;
        Ok::<_, Failure>((place, read_object(out)?))
    });
    let into = into.transpose()?;

    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let tokenizer = Rc::new(files.tokenizer().await?);
    let gpu = open_gpu(cpu_adapter).await?;
    let mut model = load_files(&gpu, files, arguments.model.quant, arguments.lanes).await?;
    let folder = sae_folder(&arguments.sae)?;
    let hook = Some(plan.hook);
    let mut dictionary = Dictionary::find(&gpu, &folder, wanted(&model, hook)).await?;
    // Of the dictionary as it ships, without the random directions; the page looks it up.
    let fit = match &into {
        Some(_) => {
            let never = Cell::new(false);
            let test = self_test(&mut model, &dictionary, &tokenizer, None, &never).await?;
            Some(serde_json::to_value(&test)?)
        }
        None => None,
    };
    let (feature, seed) = (plan.feature, arguments.seed);
    let made = add_directions(&gpu, &mut dictionary, feature, controls, seed).await?;
    plan.directions = made.collect();
    let steering = Steering::new(&model, vec![dictionary]).await?;
    let chat = Chat::new(model, tokenizer, steering).await?;
    let mut bench = Bench::new(chat, &file, &options)?;
    plan.others = bench
        .live_features(plan.hook, plan.feature, controls, arguments.seed)
        .await?;

    let started = Instant::now();
    let mut rows = Vec::new();
    let arms = plan.arms();
    for (i, arm) in arms.iter().enumerate() {
        let figures = bench.measure(arm).await?;
        rows.push(Row {
            arm: arm.clone(),
            figures,
        });
        let seconds = started.elapsed().as_secs_f64();
        note(&format!(
            "{} of {}: {} ({seconds:.0} s)",
            i + 1,
            arms.len(),
            arm.name
        ));
        // After each arm, so that a run that is broken off leaves what it has measured.
        if let Some((place, object)) = &into {
            let range = (i + 1 == arms.len() && arguments.split == "validation")
                .then(|| range_of(&rows))
                .flatten();
            let mut object = object.clone();
            record(&mut object, arguments, &plan, &rows, range);
            let engine = engine_json(gpu.capabilities(), arguments);
            object.insert("engine".into(), engine);
            object.extend(fit.clone().map(|fit| ("fit".into(), fit)));
            let text = serde_json::to_string_pretty(&object)? + "\n";
            place.write(text.as_bytes())?;
        }
    }
    print(&markdown(&rows))?;
    if arguments.split == "validation" {
        match range_of(&rows) {
            Some(OperatingRange { low, high, best }) => {
                print_line(&format!("\nUseful from {low} to {high}, best at {best}."))?;
            }
            None => print_line("\nNo value is useful.")?,
        }
    }
    Ok(())
}

fn range_of(rows: &[Row]) -> Option<OperatingRange> {
    let base = &rows.first()?.figures;
    let curve: Vec<_> = rows
        .iter()
        .filter(|r| r.arm.on_curve)
        .filter_map(|r| Some((r.arm.value?, &r.figures)))
        .collect();
    operating_range(base, &curve)
}

/// The object in a JSON file, empty if there is no file.
fn read_object(path: &Path) -> Result<Map<String, Value>, Failure> {
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
    plan: &Plan,
    rows: &[Row],
    range: Option<OperatingRange>,
) {
    let of = |on_curve: bool| -> Vec<Value> {
        let rows = rows.iter().skip(1).filter(|r| r.arm.on_curve == on_curve);
        rows.map(Row::json).collect()
    };
    let mut figures = Map::new();
    if let Some(base) = rows.first() {
        figures.insert("base".into(), base.json());
    }
    figures.insert("table".into(), json!(of(true)));
    figures.insert("arms".into(), json!(of(false)));
    object.insert("hook".into(), json!(plan.hook));
    object.insert("feature".into(), json!(plan.feature));
    if arguments.split == "test" {
        object.extend(figures);
        object.insert("split".into(), json!("test"));
    } else {
        object.insert(format!("{}_q4", arguments.split), Value::Object(figures));
    }
    if let Some(OperatingRange { low, high, best }) = range {
        let max = plan.values.last().copied().unwrap_or(high);
        object.insert(
            "value".into(),
            json!({"default": best, "useful": [low, high], "max": max}),
        );
    }
}

fn engine_json(capabilities: &Capabilities, arguments: &Arguments) -> Value {
    json!({
        "adapter": capabilities.name,
        "backend": capabilities.backend,
        "quant": format!("{:?}", arguments.model.quant).to_lowercase(),
        "decoding": "greedy",
        "seed": arguments.seed,
    })
}
