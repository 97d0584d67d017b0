//! `phi3-steer lab quantisation`

use std::fmt::Write;
use std::path::{Path, PathBuf};

use phi3_steer::generate::Chat;
use phi3_steer::lab::find::{FindOptions, Source, observe, survival};
use phi3_steer::lab::{RESULT, Run, digest};
use phi3_steer::quant::Format;
use phi3_steer::sae::HookPoint;
use serde_json::{Value, json};

use super::follow::{Shared, finish, journalled, load_at, name_of, place, sets};
use crate::command::Failure;
use crate::command::common::Quant;
use crate::command::eval::{read_object, read_report};
use crate::output::{Existing, Place, Sources, print};

const EXAMPLES: &str = "Examples:
  phi3-steer lab quantisation --model models/nano --sae models/nano/sae
  phi3-steer lab quantisation --model model-Q4_K_M.gguf --against model-f16.gguf --sae sae/layers.9 --sets real --feature 17 --out result.json

Both forms read the same texts: the requests with the unquantised model's replies. Refusals are of each form's
own replies.";

/// Whether the dictionary reads the quantised model as it reads the unquantised one.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// The unquantised model; the same files without quantisation if not given.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// A feature that is steered; may be repeated. That of report.json beside the model if not given.
    #[arg(long, value_name = "N")]
    feature: Vec<u32>,
    /// The prompts: nano (eval.json beside the model), real (those for chat models), or a file.
    #[arg(long, value_name = "WHICH", default_value = "nano")]
    sets: String,
    /// The split of the prompts; validation if not given.
    #[arg(long)]
    split: Option<String>,
    /// The hook point, as in layers.3; that of the only dictionary if not given.
    #[arg(long)]
    hook: Option<HookPoint>,
    /// Harmful requests, and as many jailbreaks, at most; of harmless ones twice as many.
    #[arg(long, value_name = "N", default_value_t = 32)]
    prompts: usize,
    /// A report (JSON) to write the figures into, for the page; what else it holds is kept.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// What a report keeps of the result.
const RECORDED: [&str; 6] = [
    "tokens",
    "plain",
    "quantised",
    "steered",
    "correlation",
    "formats",
];

pub async fn run(arguments: &Arguments, cpu: bool) -> Result<(), Failure> {
    let shared = &arguments.shared;
    let model = &shared.model.model;
    let (prompts, path) = sets(&arguments.sets, model)?;
    let mut read: Vec<&Path> = path.as_deref().into_iter().collect();
    read.extend(arguments.against.as_deref());
    let out = place(shared, &read)?;
    let into = arguments.record.as_deref().map(|record| {
        let place = Place::find(record, Existing::Replaced, Sources::new(&read))?;
        Ok::<_, Failure>((place, read_object(record)?))
    });
    let into = into.transpose()?;
    let report = read_report(model)?;
    let mut features = arguments.feature.clone();
    if features.is_empty() {
        features.extend(report.as_ref().map(|r| r.feature));
    }
    let hook = arguments.hook.or(report.map(|r| r.hook));
    let options = FindOptions {
        prompts: arguments.prompts,
        ..FindOptions::default()
    };
    options.check()?;
    let from = Source {
        file: &prompts.file,
        split: arguments.split.as_deref(),
        limit: None,
    };
    let about = json!({
        "task": "quantisation",
        "model": name_of(model),
        "quant": format!("{:?}", shared.model.quant),
        "against": arguments.against,
        "hook": hook,
        "split": from.split,
        "prompts": arguments.prompts,
        "sets": prompts.digest,
        "lanes": shared.lanes,
    });
    let result = journalled(shared, &digest(about.to_string().as_bytes()), async |run: &mut Run<'_>| {
        // One after the other: both at once may not fit.
        let plain = arguments.against.as_ref().unwrap_or(model);
        let mut chat = load_at(plain, Quant::None, &shared.sae, shared.lanes, hook, cpu).await?;
        let forms = chat.model().formats();
        if forms.iter().any(|format| *format != Format::F32) {
            let names: Vec<&str> = forms.iter().map(|f| f.name()).collect();
            return Err(Failure::from(format!(
                "{} holds weights stored as {}: give --against with the model's unquantised file",
                plain.display(),
                names.join(", ")
            )));
        }
        let point = point(&chat, hook)?;
        let unquantised =
            observe(&mut chat, point, &from, &options, None, "plain", run).await?;
        drop(chat);
        let mut chat = load_at(
            model,
            shared.model.quant,
            &shared.sae,
            shared.lanes,
            hook,
            cpu,
        )
        .await?;
        let texts = Some(&unquantised);
        let quantised =
            observe(&mut chat, point, &from, &options, texts, "quantised", run).await?;
        let mut told = survival(&unquantised, &quantised, &features);
        let names: Vec<&str> = chat.model().formats().iter().map(|f| f.name()).collect();
        told["formats"] = json!(names);
        told["hook"] = json!(point);
        Ok(told)
    })
    .await;
    let mut result = result?;
    result["schema"] = json!(RESULT);
    result["task"] = json!("quantisation");
    result["model"] = json!({"name": name_of(model)});
    result["sets"] = json!({"name": prompts.name, "sha256": prompts.digest});
    if let Some((place, mut object)) = into {
        let kept = RECORDED.map(|name| (name.to_string(), result[name].clone()));
        object.insert("quantisation".into(), kept.into_iter().collect());
        place.write((serde_json::to_string_pretty(&object)? + "\n").as_bytes())?;
    }
    if shared.out.is_some() {
        print(&words(&result))?;
    }
    finish(out, &result)
}

/// Where the dictionary is.
fn point(chat: &Chat, hook: Option<HookPoint>) -> Result<HookPoint, Failure> {
    let point = hook.or(chat.steering().points().first().copied());
    Ok(point.ok_or("no dictionary is loaded")?)
}

/// The result as a Markdown table and a sentence for each feature.
fn words(result: &Value) -> String {
    let mut out = String::from(
        "| form | FVU | L0 | direct refused | jailbreaks refused | harmless refused |\n|---|---|---|---|---|---|\n",
    );
    for (name, form) in [
        ("unquantised", &result["plain"]),
        ("quantised", &result["quantised"]),
    ] {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let refused = |class: &str| number(&form["refused"][class]["percent"]);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {name} | {:.3} | {:.1} | {:.0} | {:.0} | {:.0} |",
            number(&form["fvu"]),
            number(&form["l0"]),
            refused("direct"),
            refused("jailbreaks"),
            refused("harmless"),
        );
    }
    let all = &result["correlation"];
    let quantile = |i: usize| all["quantiles"][i].as_f64().unwrap_or(f64::NAN);
    let _ = writeln!(
        out,
        "\nOver {} tokens, {} latents: correlation {:.3} for half of them, {:.3} for the lowest twentieth; {} \
         below {}.",
        result["tokens"],
        all["latents"],
        quantile(2),
        quantile(0),
        all["below"],
        all["bound"],
    );
    for one in result["steered"].as_array().map_or(&[][..], Vec::as_slice) {
        let kept = match one["survives"] == true {
            true => "it is what it was",
            false => {
                "it is no longer what it was: what was found on the unquantised model need not hold"
            }
        };
        let _ = writeln!(
            out,
            "Feature {}: correlation {:.3} over {} tokens with it active; {kept}.",
            one["feature"],
            one["correlation"].as_f64().unwrap_or(f64::NAN),
            one["active"],
        );
    }
    out
}
