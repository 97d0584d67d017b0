//! `phi3-steer encode`

use std::path::PathBuf;

use phi3_steer::checkpoint::{
    BLOCK_BYTES, Checkpoint, CheckpointError, FileSource, Folder, Source,
};
use phi3_steer::sae::{Dictionary, HookPoint, Wanted, encode_all};

use super::Failure;
use super::common::{open_gpu, write_safetensors};

const EXAMPLES: &str = "Examples:
  phi3-steer encode --sae models/nano/sae --in x.safetensors --out acts.safetensors
  phi3-steer encode --sae saes --hook layers.3 --in x.safetensors --out acts.safetensors";

/// Vectors to feature activations and reconstructions: reads `x` [n, hidden] from a safetensors file,
/// writes `acts` f32 [n, features] and `recon` f32 [n, hidden].
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder of the dictionary: cfg.json and sae.safetensors, or layers.N with these.
    #[arg(long, value_name = "DIR")]
    sae: PathBuf,
    /// Which dictionary, where the folder holds several, as in layers.3.
    #[arg(long)]
    hook: Option<HookPoint>,
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
    let wanted = Wanted {
        hook: arguments.hook,
        width: Some(width),
        layers: None,
        ..Wanted::default()
    };
    let dictionary = Dictionary::find(&gpu, &Folder::directory(&arguments.sae), wanted).await?;
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
