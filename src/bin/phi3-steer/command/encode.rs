//! `phi3-steer encode`

use std::path::PathBuf;

use phi3_steer::checkpoint::{
    BLOCK_BYTES, Checkpoint, CheckpointError, FileSource, Source, shown_list,
};
use phi3_steer::sae::{Dictionary, HookPoint, encode_all};

use super::Failure;
use super::common::{Tensor, open_gpu, write_safetensors};
use super::dictionary::DictionaryArguments;
use crate::output::{Existing, Output, Sources};

const EXAMPLES: &str = "Examples:
  phi3-steer logits --model models/nano --ids 1,7,42 --quant none --residual 3 --out logits.safetensors
  phi3-steer encode --sae models/nano/sae --in logits.safetensors --out features.safetensors
  phi3-steer encode --sae saes --hook layers.3 --in x.safetensors --tensor x --out features.safetensors";

/// Vectors to feature activations and reconstructions: reads a tensor [n, hidden] from a safetensors file,
/// such as `logits --residual` writes, and writes `acts` f32 [n, features] and `recon` f32 [n, hidden].
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    dictionary: DictionaryArguments,
    /// The file to read.
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// The file's tensor; by default x, or else the residual stream that is the dictionary's, as in
    /// residual.3.
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The file to write; - for stdout.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let source = Source::File(FileSource::open(&arguments.input)?);
    let input = Checkpoint::from_source(source).await?;
    let place = arguments.input.display();
    let wanted = &arguments.dictionary;
    let name = tensor(arguments.tensor.as_deref(), &input, wanted.place())
        .map_err(|reason| format!("{place} {reason}"))?;
    let shape = input.info(&name).map(|info| info.shape.clone());
    let shape = shape.ok_or_else(|| format!("{place} has no tensor \"{name}\""))?;
    let [n, width] = shape[..] else {
        return Err(
            format!("{place}: {name} has the shape {shape:?}, [n, hidden] is needed").into(),
        );
    };
    let read = [arguments.input.as_path(), arguments.dictionary.path()];
    let out = Output::create(&arguments.out, Existing::Replaced, Sources::new(&read))?;
    let gpu = open_gpu(cpu_adapter).await?;
    let mut wanted = wanted.wanted();
    wanted.width = Some(width);
    let dictionary = Dictionary::find(&gpu, &arguments.dictionary.folder()?, wanted).await?;
    if let Some(block) = residual(&name).filter(|_| arguments.tensor.is_none())
        && let Some(hook) = dictionary.hook().filter(|hook| hook.layer != block)
    {
        return Err(format!(
            "{place} has {name}, but the dictionary reads {hook}: give --tensor {name} if that is meant"
        )
        .into());
    }
    let mut x = Vec::with_capacity(n * width);
    let mut take = |_, rows: &[f32]| {
        x.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    };
    input.rows(&name, &shape, BLOCK_BYTES, &mut take).await?;
    let encoded = encode_all(&gpu, &dictionary, &x).await?;
    let outputs = [
        Tensor::f32("acts", &[n, dictionary.latents()], &encoded.acts),
        Tensor::f32("recon", &[n, width], &encoded.recon),
    ];
    write_safetensors(out, &outputs)
}

/// The block whose output a tensor is called after.
fn residual(name: &str) -> Option<usize> {
    name.strip_prefix("residual.")?.parse().ok()
}

/// Which tensor is meant: the one that was `asked` for, x, the residual stream at `hook`, the only one.
fn tensor(
    asked: Option<&str>,
    input: &Checkpoint,
    hook: Option<HookPoint>,
) -> Result<String, String> {
    if let Some(name) = asked {
        return Ok(name.into());
    }
    if input.info("x").is_some() {
        return Ok("x".into());
    }
    let all: Vec<&str> = input.names().collect();
    let streams: Vec<&str> = all
        .iter()
        .copied()
        .filter(|n| residual(n).is_some())
        .collect();
    let named = streams
        .iter()
        .find(|name| hook.is_some_and(|hook| residual(name) == Some(hook.layer)));
    match (named, &streams[..]) {
        (Some(name), _) | (None, [name]) => Ok(name.to_string()),
        (None, []) => Err(format!(
            "has neither a tensor \"x\" nor a residual stream, but {}: choose one with --tensor",
            shown_list(&all, ", ")
        )),
        (None, several) => Err(format!(
            "has several residual streams, {}: choose one with --tensor, or the dictionary with --hook",
            shown_list(several, ", ")
        )),
    }
}
