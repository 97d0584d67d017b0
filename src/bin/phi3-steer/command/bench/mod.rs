//! `phi3-steer bench`

mod floor;
mod parts;
mod passes;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use phi3_steer::gpu::{Gpu, GpuError};
use phi3_steer::phi3::{Model, ModelFiles};
use phi3_steer::sae::{Dictionary, Wanted};
use phi3_steer::tokens::ChatTokenizer;
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

/// The figures: each as a line that is printed at once, and all as values in the end.
#[derive(Default)]
struct Report {
    values: Vec<Value>,
}

impl Report {
    fn add(&mut self, line: &str, value: Value) -> Result<(), Failure> {
        self.values.push(value);
        print_line(line)
    }
}

/// What is measured.
struct Subject {
    gpu: Rc<Gpu>,
    tokenizer: Rc<ChatTokenizer>,
    /// One lane, whose weights the others share.
    model: Model,
    dictionary: Option<PathBuf>,
}

impl Subject {
    async fn dictionaries(&self) -> Result<Vec<Dictionary>, Failure> {
        let Some(path) = &self.dictionary else {
            return Ok(Vec::new());
        };
        let wanted = Wanted {
            width: Some(self.model.config().hidden_size),
            layers: Some(self.model.config().num_hidden_layers),
            ..Wanted::default()
        };
        Ok(vec![
            Dictionary::find(&self.gpu, &sae_folder(path)?, wanted).await?,
        ])
    }
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
    let opened = started.elapsed();
    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let model = load_files(&gpu, files, arguments.model.quant, 1).await?;
    gpu.finish().await?;
    let loaded = started.elapsed() - opened;
    let subject = Subject {
        tokenizer: load_tokenizer(&arguments.model.model).await?,
        dictionary: arguments.sae.clone(),
        model,
        gpu,
    };
    let mut report = Report::default();
    head(&subject, &mut report, opened, loaded)?;
    let rate = floor::measure(&subject.gpu, &mut report).await?;
    parts::measure(&subject, arguments, rate, &mut report).await?;
    passes::measure(&subject, arguments, &mut report).await?;
    if let (Some(path), Some(mut out)) = (&arguments.json, out) {
        out.add(format!("{:#}\n", Value::Array(report.values)).as_bytes())?;
        out.finish()?;
        note(&format!("the figures are in {}", path.display()));
    }
    Ok(())
}

fn head(
    subject: &Subject,
    report: &mut Report,
    opened: Duration,
    loaded: Duration,
) -> Result<(), Failure> {
    let c = subject.gpu.capabilities();
    let m = subject.model.config();
    let formats: Vec<&str> = subject.model.formats().iter().map(|f| f.name()).collect();
    let bytes = subject.model.decode_bytes(1);
    report.add(
        &format!(
            "{} ({}), {:?} and {:?} products{}, {:?} reductions; {} blocks, width {}, vocabulary {}, {}; {:.1} MB a \
             pass. Device {:.2} s, model {:.2} s.",
            c.name,
            c.backend,
            c.few_rows,
            c.many_rows,
            if c.half_products { " in f16" } else { "" },
            c.reduction,
            m.num_hidden_layers,
            m.hidden_size,
            m.vocab_size,
            formats.join(", "),
            bytes as f64 / 1e6,
            opened.as_secs_f64(),
            loaded.as_secs_f64(),
        ),
        json!({
            "adapter": c.name, "backend": c.backend, "fewRows": format!("{:?}", c.few_rows),
            "manyRows": format!("{:?}", c.many_rows), "halfProducts": c.half_products,
            "reduction": format!("{:?}", c.reduction), "blocks": m.num_hidden_layers, "width": m.hidden_size,
            "vocabulary": m.vocab_size, "formats": formats, "bytesAPass": bytes,
            "openSeconds": opened.as_secs_f64(), "loadSeconds": loaded.as_secs_f64(),
        }),
    )
}

/// Seconds that one call of `record` takes the GPU, by the wall clock: so many are recorded into a submission that it
/// takes a while, and what an empty submission takes goes off.
async fn seconds_of(
    gpu: &Gpu,
    record: &dyn Fn(&mut wgpu::ComputePass<'_>),
) -> Result<f64, GpuError> {
    submitted(gpu, 1, record).await?; // compiled, and its memory touched
    let mut times = 1;
    loop {
        let taken = submitted(gpu, times, record).await?;
        if taken > 0.02 || times >= 512 {
            break;
        }
        times *= 2;
    }
    let mut taken = Vec::new();
    for _ in 0..5 {
        let with = submitted(gpu, times, record).await?;
        let without = submitted(gpu, 0, record).await?;
        taken.push((with - without).max(0.0) / f64::from(times));
    }
    Ok(median(&mut taken))
}

/// Seconds from recording `times` calls of `record` to their end.
async fn submitted(
    gpu: &Gpu,
    times: u32,
    record: &dyn Fn(&mut wgpu::ComputePass<'_>),
) -> Result<f64, GpuError> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    (0..times).for_each(|_| record(&mut pass));
    drop(pass);
    let commands = encoder.finish();
    let started = Instant::now();
    gpu.queue().submit([commands]);
    gpu.finish().await?;
    Ok(started.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Says on stderr what is left out.
fn left_out(what: &str) {
    note(&format!("left out: {what}"));
}
