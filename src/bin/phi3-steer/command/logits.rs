//! `phi3-steer logits`

use std::cell::Cell;
use std::path::PathBuf;

use clap::ArgGroup;
use phi3_steer::generate::{TraceRequest, Traced, bare_prompt, trace};
use phi3_steer::phi3::{MAX_ROWS, ModelFiles};
use phi3_steer::tokens::Prompt;
use serde_json::Value;

use super::Failure;
use super::common::{
    ModelArguments, Tensor, load_files, model_folder, open_gpu, read_stdin, write_safetensors,
};
use super::conversations::read_prompts;
use super::steer::{SteerArguments, load_steering};
use crate::output::{Existing, Output, Sources};

/// Prompts, and rows of logits, that are computed together.
const LANES: usize = 4;

const EXAMPLES: &str = "Examples:
  phi3-steer logits --model models/nano --ids 1,2,3 --out logits.safetensors
  phi3-steer logits --model models/nano --quant none --ids 1,2,3 --residual 3 --out f32.safetensors
  phi3-steer logits --model models/nano --ids 1,2,3 --residual 3 \\
      --sae models/nano/sae --steer layers.3:329:clamp:8 --out steered.safetensors
  echo -n \"Hello\" | phi3-steer tokenize --model models/nano \\
      | phi3-steer logits --model models/nano --ids - --out logits.safetensors
  phi3-steer logits --model models/nano --prompts prompts.txt --residual 3 --out many.safetensors
A file of prompts is as for `generate`; the chat template is put around each, up to where the answer begins.";

/// Tokens to logits and residual streams, a safetensors file: `logits` f32 [tokens, vocab], and for
/// each --residual L `residual.L` f32 [tokens, hidden], the output of block L after steering. The tokens of
/// several prompts follow each other; `lengths` u32 [prompts] says how many each has.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("read").args(["ids", "prompts"]).required(true))]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The tokens, as in 1,2,3 or [1,2,3], of several prompts one a line; - for stdin.
    #[arg(long, value_name = "IDS", allow_hyphen_values = true)]
    ids: Option<String>,
    /// Conversations, one a line; - for stdin.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// A block whose output is written, counted from 0; may be repeated.
    #[arg(long, value_name = "L")]
    residual: Vec<usize>,
    #[command(flatten)]
    steer: SteerArguments,
    /// The file to write; - for stdout.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let mut read = vec![arguments.model.model.as_path()];
    read.extend(arguments.steer.sae.as_deref());
    read.extend(arguments.prompts.as_deref());
    let out = Output::create(&arguments.out, Existing::Replaced, Sources::new(&read))?;
    let config: Value = serde_json::from_str(files.config_json())?;
    let bos = config["bos_token_id"]
        .as_u64()
        .and_then(|id| u32::try_from(id).ok());
    let prompts = arguments.read(&files, bos).await?;
    let gpu = open_gpu(cpu_adapter).await?;
    let mut model = load_files(&gpu, files, arguments.model.quant, LANES).await?;
    let steering = load_steering(&model, &arguments.steer, None).await?;
    let (hidden, vocab) = (model.config().hidden_size, model.config().vocab_size);
    let mut layers = arguments.residual.clone();
    layers.sort_unstable();
    layers.dedup();

    let lengths: Vec<u32> = prompts.iter().map(|p| p.ids.len() as u32).collect();
    let tokens = prompts.iter().map(|p| p.ids.len()).sum();
    let mut all_logits = Vec::with_capacity(tokens * vocab);
    let mut residuals = vec![Vec::with_capacity(tokens * hidden); layers.len()];
    for together in prompts.chunks(LANES) {
        let request = TraceRequest {
            prompts: together,
            logits: &|_, _| true,
            residual: &layers,
            chunk: MAX_ROWS,
            cancel: &Cell::new(false),
        };
        // Lane by lane, the tokens of each in order.
        let mut take = |traced: Traced<'_>| match traced {
            Traced::Logits { logits, .. } => all_logits.extend_from_slice(logits),
            Traced::Residual {
                layer, residual, ..
            } => {
                if let Ok(at) = layers.binary_search(&layer) {
                    residuals[at].extend_from_slice(residual);
                }
            }
        };
        trace(&mut model, &steering, &request, &mut take).await?;
    }
    let mut outputs = vec![Tensor::f32("logits", &[tokens, vocab], &all_logits)];
    for (layer, values) in layers.iter().zip(&residuals) {
        let name = format!("residual.{layer}");
        outputs.push(Tensor::f32(name, &[tokens, hidden], values));
    }
    if prompts.len() > 1 {
        outputs.push(Tensor::u32("lengths", &lengths));
    }
    write_safetensors(out, &outputs)
}

impl Arguments {
    /// What is to be read, one prompt or several.
    async fn read(&self, files: &ModelFiles, bos: Option<u32>) -> Result<Vec<Prompt>, Failure> {
        if let Some(file) = &self.prompts {
            let tokenizer = files.tokenizer().await?;
            let all = read_prompts(file)?;
            let all = all.iter().map(|messages| tokenizer.chat(messages, true));
            return Ok(all.collect::<Result<_, _>>()?);
        }
        let text = match self.ids.as_deref().unwrap_or_default() {
            "-" => read_stdin()?,
            text => text.to_string(),
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        // A list may be written over several lines.
        let all = match parse_ids(&text) {
            Err(_) if lines.clone().count() > 1 => {
                lines.map(parse_ids).collect::<Result<_, _>>()?
            }
            whole => vec![whole?],
        };
        Ok(all.into_iter().map(|ids| bare_prompt(ids, bos)).collect())
    }
}

/// Token ids separated by commas, in brackets or not.
fn parse_ids(text: &str) -> Result<Vec<u32>, Failure> {
    let list = text.trim();
    let list = match list.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(Some(inner)) => inner,
        Some(None) => return Err("the token ids begin with [ but do not end with ]".into()),
        None => list,
    };
    if list.trim().is_empty() {
        return Err("no token ids were given".into());
    }
    list.split(',')
        .map(|id| {
            let id = id.trim();
            id.parse()
                .map_err(|_| format!("\"{id}\" is no token id: give numbers such as 1,2,3").into())
        })
        .collect()
}
