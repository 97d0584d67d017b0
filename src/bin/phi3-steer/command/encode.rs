//! `phi3-steer encode`

use std::path::PathBuf;

use phi3_steer::checkpoint::{BLOCK_BYTES, Checkpoint, CheckpointError, FileSource, Source};
use phi3_steer::sae::{Dictionary, encode_all};

use super::Failure;
use super::common::{open_gpu, write_safetensors};
use super::dictionary::DictionaryArguments;

const EXAMPLES: &str = "Examples:
  phi3-steer encode --sae models/nano/sae --in x.safetensors --out acts.safetensors
  phi3-steer encode --sae saes --hook layers.3 --in x.safetensors --out acts.safetensors";

/// Vectors to feature activations and reconstructions: reads `x` [n, hidden] from a safetensors file,
/// writes `acts` f32 [n, features] and `recon` f32 [n, hidden].
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    dictionary: DictionaryArguments,
    /// The file to read.
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let source = Source::File(FileSource::open(&arguments.input)?);
    let input = Checkpoint::from_source(source).await?;
    let place = arguments.input.display();
    let shape = match input.info("x") {
        Some(info) => info.shape.clone(),
        None => return Err(format!("{place} has no tensor \"x\"").into()),
    };
    let [n, width] = shape[..] else {
        return Err(format!("{place}: x has the shape {shape:?}, [n, hidden] is needed").into());
    };
    let gpu = open_gpu(cpu_adapter).await?;
    let mut wanted = arguments.dictionary.wanted();
    wanted.width = Some(width);
    let dictionary = Dictionary::find(&gpu, &arguments.dictionary.folder()?, wanted).await?;
    let mut x = Vec::with_capacity(n * width);
    let mut take = |_, rows: &[f32]| {
        x.extend_from_slice(rows);
        Ok::<_, CheckpointError>(())
    };
    input.rows("x", &shape, BLOCK_BYTES, &mut take).await?;
    let encoded = encode_all(&gpu, &dictionary, &x).await?;
    let outputs = [
        (
            "acts".to_string(),
            vec![n, dictionary.latents()],
            &encoded.acts[..],
        ),
        ("recon".to_string(), vec![n, width], &encoded.recon[..]),
    ];
    write_safetensors(&arguments.out, &outputs)
}
