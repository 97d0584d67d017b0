//! `phi3-steer bench`

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use phi3_steer::bench::{Figure, Plan, measure};
use phi3_steer::generate::Chat;
use phi3_steer::phi3::ModelFiles;
use phi3_steer::sae::{Dictionary, Wanted};
use phi3_steer::steering::Steering;
use serde_json::{Value, json};

use super::Failure;
use super::common::{ModelArguments, load_files, load_tokenizer, model_folder, open_gpu};
use super::dictionary::sae_folder;
use crate::output::{Existing, Output, Sources, note, print_line};

const EXAMPLES: &str = "Examples:
  phi3-steer bench --model models/nano --sae models/nano/sae --context 16 --lanes 1,2 --tokens 8 --json bench.json";

/// How fast a model runs here: what a dispatch and a byte cost on this adapter, what each part of a decode pass takes,
/// prefill and decoding in several lanes at several lengths, with steering off, on and with features watched.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A dictionary, for steering.
    #[arg(long, value_name = "PATH")]
    sae: Option<PathBuf>,
    /// Positions that a lane holds before it decodes.
    #[arg(long, value_delimiter = ',', default_value = "16,512,2000")]
    context: Vec<usize>,
    /// Lanes.
    #[arg(long, value_delimiter = ',', default_value = "1,2,8")]
    lanes: Vec<usize>,
    /// Tokens that a lane decodes.
    #[arg(long, default_value_t = 48)]
    tokens: usize,
    /// Seconds that a figure may take at most; longer contexts and more lanes are then left out.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
    /// A file that the figures are also written to, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let read = [arguments.model.model.as_path()];
    let out = match &arguments.json {
        Some(path) => Some(Output::create(
            path,
            Existing::Replaced,
            Sources::new(&read),
        )?),
        None => None,
    };
    let started = Instant::now();
    let gpu = open_gpu(cpu_adapter).await?;
    let opened = started.elapsed().as_secs_f64();
    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let model = load_files(&gpu, files, arguments.model.quant, 1).await?;
    gpu.finish().await?;
    let loaded = started.elapsed().as_secs_f64() - opened;
    let mut dictionaries = Vec::new();
    if let Some(path) = &arguments.sae {
        let wanted = Wanted {
            width: Some(model.config().hidden_size),
            layers: Some(model.config().num_hidden_layers),
            ..Wanted::default()
        };
        dictionaries.push(Dictionary::find(&gpu, &sae_folder(path)?, wanted).await?);
    }
    let steering = Steering::new(&model, dictionaries).await?;
    let tokenizer = load_tokenizer(&arguments.model.model).await?;
    let chat = Chat::new(model, tokenizer, steering).await?;
    print_line(&format!("Device {opened:.2} s, model {loaded:.2} s."))?;
    let mut values = vec![json!({"openSeconds": opened, "loadSeconds": loaded})];
    let plan = Plan {
        lanes: arguments.lanes.clone(),
        context: arguments.context.clone(),
        tokens: arguments.tokens,
        patience: arguments.patience,
    };
    // The first line that could not be written.
    let mut told = Ok(());
    let mut tell = |figure: Figure| {
        if let Figure::LeftOut { .. } = figure {
            note(&figure.to_string());
        } else if told.is_ok() {
            told = print_line(&figure.to_string());
        }
        values.push(json!(figure));
    };
    measure(&chat, &plan, &Rc::new(Cell::new(false)), &mut tell).await?;
    told?;
    if let (Some(path), Some(mut out)) = (&arguments.json, out) {
        out.add(format!("{:#}\n", Value::Array(values)).as_bytes())?;
        out.finish()?;
        note(&format!("the figures are in {}", path.display()));
    }
    Ok(())
}
