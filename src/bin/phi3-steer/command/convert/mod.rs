//! `phi3-steer convert`

mod plan;
mod shard;

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use phi3_steer::checkpoint::Folder;
use phi3_steer::phi3::{ModelFiles, Precision};
use phi3_steer::quant::Format;
use phi3_steer::tokens::{TokenError, TokenizerFiles};
use serde_json::{Map, Value, json};

use super::Failure;
use super::common::model_folder;
use crate::layout;
use crate::output::{FolderOutput, Sources, Written, note};

/// What a manifest says that it is.
const MANIFEST: &str = "phi3-steer-planes-1";

const EXAMPLES: &str = "Examples:
  phi3-steer convert --model Phi-3-mini-4k-instruct --out phi3-mini
  phi3-steer convert --model Phi-3-mini-4k-instruct-q4.gguf --out phi3-mini";

/// A model to the project's own format, which loads with no repacking: safetensors of at most 64 MiB with
/// the weights as they lie in GPU memory, their index, config.json, the tokenizer, and manifest.json with
/// sizes and SHA-256. Weights that are quantised already are kept as they are.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a .gguf file, or a folder with one or with config.json, model.safetensors (or its index)
    /// and tokenizer.json.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How weights that are not quantised yet are quantised.
    #[arg(long, value_enum, default_value = "auto")]
    quant: Quant,
    /// Write over a model in that folder.
    #[arg(long)]
    force: bool,
}

/// What plain weights are quantised to.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Quant {
    /// By the model's size: 8 bits below a billion parameters, and above 4 bits with 8 for the embedding and
    /// the head; what its config.json says, if it does.
    Auto,
    /// 4 bits and a scale for 32 weights.
    Q4,
    /// 8 bits and a scale for 32 weights.
    Q8,
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { model, out, .. } = arguments;
    let folder = model_folder(model);
    let files = ModelFiles::open(&folder).await?;
    let precision = match arguments.quant {
        Quant::Auto => Precision::BySize,
        Quant::Q4 => Format::Q4.into(),
        Quant::Q8 => Format::Q8.into(),
    };
    let mut into = FolderOutput::create(
        out,
        arguments.force,
        layout::is_of_model,
        Sources::new(&[model]),
    )?;
    write(&folder, &files, precision, &mut into).await?;
    into.finish()?;
    Ok(())
}

/// Writes a model's files to `out`, plain weights at `precision`.
pub async fn write(
    folder: &Folder,
    source: &ModelFiles,
    precision: Precision,
    out: &mut FolderOutput,
) -> Result<(), Failure> {
    let started = Instant::now();
    let tensors = layout::tensors(&source.config);
    let plain = precision.formats(&source.config);
    let shards = plan::shards(&source.checkpoint, &tensors, plain)?;
    let tokenizer = tokenizer(folder, source).await?;
    let total: u64 = shards.iter().map(plan::Shard::data_bytes).sum();
    let (mut done, mut written) = (0, Vec::new());
    let (mut map, mut buffer) = (Map::new(), Vec::new());
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        shard::fill(&source.checkpoint, shard, plain, &mut buffer).await?;
        written.push(out.write(&name, &buffer)?);
        map.extend(shard.names().map(|tensor| (tensor, name.clone().into())));
        done += shard.data_bytes();
        note(&format!(
            "{name}: {} of {} MB",
            done / 1_000_000,
            total / 1_000_000
        ));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    let index = (
        "model.safetensors.index.json",
        index.to_string().into_bytes(),
    );
    // Without config.json a folder is no model: it comes after all that it needs.
    let config = ("config.json", source.config_json().as_bytes().to_vec());
    for (name, bytes) in tokenizer.into_iter().chain([index, config]) {
        written.push(out.write(name, &bytes)?);
    }
    let manifest = manifest(&written).to_string();
    out.write("manifest.json", manifest.as_bytes())?;
    let seconds = started.elapsed().as_secs_f64();
    let bytes: u64 = written.iter().map(|file| file.bytes).sum();
    note(&format!("{} MB in {seconds:.1} s", bytes / 1_000_000));
    Ok(())
}

/// What says that the files are whole.
fn manifest(written: &[Written]) -> Value {
    json!({"format": MANIFEST, "files": written})
}

/// The tokenizer's files: those of the folder, or what they would be for a GGUF file.
pub async fn tokenizer(
    folder: &Folder,
    source: &ModelFiles,
) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let files = match source.tokenizer_files()? {
        Some(files) => files,
        None => TokenizerFiles::open(folder)
            .await?
            .ok_or_else(|| TokenError::NoTokenizer {
                folder: folder.label().into(),
            })?,
    };
    Ok(files.into_files())
}
