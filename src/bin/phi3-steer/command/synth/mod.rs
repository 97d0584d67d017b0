//! `phi3-steer synth`

mod blocks;
mod gguf;
mod hub;
mod metadata;
mod mix;
mod models;
mod source;
mod vocabulary;

use std::path::{Path, PathBuf};
use std::time::Instant;

use phi3_steer::checkpoint::{Encoding, Folder, MemorySource};
use phi3_steer::phi3::{Config, ModelFiles};
use phi3_steer::quant;
use phi3_steer::tokens::TokenizerFiles;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};

use super::Failure;
use super::common::model_folder;
use super::convert;
use crate::layout::{self, Shape, Tensor};
use crate::output::{Existing, FolderOutput, Output, Sources, note};
use gguf::Gguf;
use mix::{Format, Mix};
use models::Like;
use source::Source;
use vocabulary::Vocabulary;

const EXAMPLES: &str = "Examples:
  phi3-steer synth --like phi-3-mini --format gguf-q4_k_m --out phi-3-mini.gguf
  phi3-steer synth --like phi-3-mini --format safetensors --out phi-3-mini
  phi3-steer synth --weights models/nano --format gguf-q8_0 --out nano.gguf";

/// Model files of exactly the published layout, for tests: full-size ones of random weights, or a model's
/// own weights in another format.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model whose layout is imitated with random weights.
    #[arg(long, value_enum, required_unless_present = "weights")]
    like: Option<Like>,
    /// The model whose configuration, tokenizer and weights are written.
    #[arg(long, value_name = "PATH", conflicts_with = "like")]
    weights: Option<PathBuf>,
    /// What is written: safetensors, planes, gguf-q4_k_m, gguf-q4_0 and so on.
    #[arg(long)]
    format: Format,
    /// The file to write, of GGUF, or else the folder.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The seed of random weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write over what is there.
    #[arg(long)]
    force: bool,
}

/// A model that is to be written.
struct Made {
    title: String,
    config: Map<String, Value>,
    tensors: Vec<Tensor>,
    vocabulary: Vocabulary,
    /// `tokenizer.json` and `tokenizer_config.json`.
    tokenizer: Vec<(&'static str, Vec<u8>)>,
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let started = Instant::now();
    if let Some(path) = &arguments.weights {
        let folder = model_folder(path);
        let files = ModelFiles::open(&folder).await?;
        if arguments.format == Format::Planes {
            let mut into = arguments.folder(&[path])?;
            convert::write(&folder, &files, quant::Format::Q4.into(), &mut into).await?;
            into.finish()?;
        } else {
            let made = of_model(path, &folder, &files).await?;
            let mut source = Source::Model(&files.checkpoint);
            write(&made, &mut source, arguments, &[path]).await?;
        }
    } else if let Some(like) = arguments.like {
        let mut rng = StdRng::seed_from_u64(arguments.seed);
        let made = random(like, &mut rng).await?;
        let mut source = Source::Random(&mut rng);
        write(&made, &mut source, arguments, &[]).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let out = arguments.out.display();
    note(&format!("{out}: written in {seconds:.1} s"));
    Ok(())
}

impl Arguments {
    /// The folder that is written.
    fn folder(&self, sources: &[&Path]) -> Result<FolderOutput, String> {
        let sources = Sources::new(sources);
        FolderOutput::create(&self.out, self.force, layout::is_of_model, sources)
    }

    /// The file that is written.
    fn file(&self, sources: &[&Path]) -> Result<Output, String> {
        let existing = match self.force {
            true => Existing::Replaced,
            false => Existing::Kept,
        };
        Output::create(&self.out, existing, Sources::new(sources))
    }
}

/// A model of random weights.
async fn random(like: Like, rng: &mut StdRng) -> Result<Made, Failure> {
    let config = like.config();
    let parsed = Config::from_json(Value::from(config.clone()).to_string().as_bytes())?;
    let vocabulary = Vocabulary::random(rng, parsed.vocab_size)?;
    // As the library reads it from a GGUF file of a vocabulary only.
    let file = Gguf::new(vocabulary.keys(), Vec::new()).header();
    let source = MemorySource::new("vocabulary", file).into();
    let gguf = phi3_steer::checkpoint::Gguf::open(source).await?;
    let files = TokenizerFiles::from_gguf(gguf.metadata())?;
    Ok(Made {
        title: format!("{like:?} of random weights"),
        config,
        tensors: layout::tensors(&parsed),
        vocabulary,
        tokenizer: files.into_files(),
    })
}

/// A model that is there.
async fn of_model(path: &Path, folder: &Folder, files: &ModelFiles) -> Result<Made, Failure> {
    let tokenizer = convert::tokenizer(folder, files).await?;
    let json = |name: &str| {
        let found = tokenizer.iter().find(|(n, _)| *n == name);
        found.map_or(&b"{}"[..], |(_, bytes)| bytes)
    };
    let count = files.config.vocab_size;
    let vocabulary =
        Vocabulary::from_json(json("tokenizer.json"), json("tokenizer_config.json"), count)?;
    Ok(Made {
        title: path.display().to_string(),
        config: serde_json::from_str(files.config_json())?,
        tensors: layout::tensors(&files.config),
        vocabulary,
        tokenizer,
    })
}

/// Writes a model, which is read from `read` if it is one that is there.
async fn write(
    made: &Made,
    source: &mut Source<'_>,
    arguments: &Arguments,
    read: &[&Path],
) -> Result<(), Failure> {
    match arguments.format {
        Format::Gguf(mix) => write_gguf(made, source, mix, arguments.file(read)?).await,
        Format::Safetensors => {
            let mut into = arguments.folder(read)?;
            hub::write(&made.tensors, source, &mut into).await?;
            for (name, bytes) in &made.tokenizer {
                into.write(name, bytes)?;
            }
            let config = Value::from(made.config.clone()).to_string();
            into.write("config.json", config.as_bytes())?;
            Ok(into.finish()?)
        }
        Format::Planes => {
            let mut into = arguments.folder(read)?;
            // Through a GGUF file, which repacks as it is, and which is no part of the folder.
            let between = into.staged("synthetic.gguf");
            let file = Output::create(&between, Existing::Kept, Sources::new(&[]))?;
            write_gguf(made, source, Mix::Plain(Encoding::Q4_0), file).await?;
            let folder = model_folder(&between);
            let files = ModelFiles::open(&folder).await?;
            convert::write(&folder, &files, quant::Format::Q4.into(), &mut into).await?;
            Ok(into.finish()?)
        }
    }
}

/// Writes a GGUF file.
async fn write_gguf(
    made: &Made,
    source: &mut Source<'_>,
    mix: Mix,
    mut to: Output,
) -> Result<(), Failure> {
    let layers = made.config.get("num_hidden_layers").and_then(Value::as_u64);
    let layers = layers.unwrap_or(0) as usize;
    let factors = metadata::rope_factors(&made.config);
    let mut tensors: Vec<gguf::Tensor> = factors
        .iter()
        .map(|(name, factors)| gguf::Tensor {
            name: name.to_string(),
            shape: vec![factors.len()],
            encoding: Encoding::F32,
        })
        .collect();
    tensors.extend(made.tensors.iter().map(|tensor| {
        let (name, layer) = metadata::name(&tensor.name);
        gguf::Tensor {
            encoding: mix.encoding(&name, layer, layers, tensor.shape),
            shape: match tensor.shape {
                Shape::Vector(len) => vec![len],
                Shape::Matrix(shape) => shape.into(),
            },
            name,
        }
    }));
    let mut keys = metadata::keys(&made.config, &made.title, mix.file_type());
    keys.extend(made.vocabulary.keys());
    let file = Gguf::new(keys, tensors);
    let total: u64 = file.tensors.iter().map(gguf::Tensor::bytes).sum();
    to.add(&file.header())?;
    let (factor_tensors, own) = file.tensors.split_at(factors.len());
    for (tensor, (_, factors)) in factor_tensors.iter().zip(&factors) {
        to.add(bytemuck::cast_slice(factors))?;
        to.zeros(tensor.padding())?;
    }
    for (tensor, weights) in own.iter().zip(&made.tensors) {
        source.write(weights, tensor.encoding, &mut to).await?;
        to.zeros(tensor.padding())?;
    }
    to.finish()?;
    note(&format!("{} MB of weights", total / 1_000_000));
    Ok(())
}
