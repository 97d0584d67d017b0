//! `phi3-steer synth-sae`

mod formats;
mod given;
mod write;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use phi3_steer::sae::HookPoint;

use super::Failure;
use crate::output::{FolderOutput, Sources, print_line};
use formats::{Plan, Sizes, Source};
use given::Given;

const EXAMPLES: &str = "Examples:
  phi3-steer synth-sae --format saex --width 3072 --latents 49152 --out big
  phi3-steer synth-sae --format gemma-scope --from models/nano/sae/layers.3 --out nano-npz";

/// A dictionary's file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// EleutherAI's sparsify: TopK.
    Sparsify,
    /// SAELens: ReLU.
    SaelensStandard,
    /// SAELens: TopK.
    SaelensTopk,
    /// SAELens: JumpReLU.
    SaelensJumprelu,
    /// SAELens: gated.
    SaelensGated,
    /// saex, as nev's Phi-3 dictionaries: ReLU.
    Saex,
    /// saex: gated.
    SaexGated,
    /// Gemma Scope: JumpReLU in params.npz.
    GemmaScope,
    /// Gemma Scope 2: JumpReLU in params.safetensors.
    GemmaScope2,
    /// Llama Scope: JumpReLU.
    LlamaScope,
}

/// Writes a dictionary in the layout of a published format: random numbers of any size, streamed, or with
/// --from the numbers of a sparsify dictionary. Formats without TopK then hold the same encoder and
/// decoder under ReLU. Prints the folder to give to --sae.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The format.
    #[arg(long, value_enum)]
    format: Kind,
    /// The folder to write to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A folder with a sparsify dictionary, cfg.json and sae.safetensors, which is read whole.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["width", "latents", "k", "seed"])]
    from: Option<PathBuf>,
    /// Elements of the vectors that it reads.
    #[arg(long, default_value_t = 3072)]
    width: usize,
    /// Latents.
    #[arg(long, default_value_t = 24_576)]
    latents: usize,
    /// TopK's active latents.
    #[arg(long, default_value_t = 32)]
    k: usize,
    /// The block whose output it is said to be of.
    #[arg(long, default_value = "layers.6")]
    hook: HookPoint,
    /// The seed of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write over a dictionary in that folder.
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (sizes, source) = match &arguments.from {
        Some(folder) => {
            let given = Given::read(folder).await?;
            (given.sizes, Source::Given(given))
        }
        None => {
            let sizes = Sizes {
                width: arguments.width,
                latents: arguments.latents,
                k: arguments.k,
            };
            (sizes, Source::Random)
        }
    };
    if sizes.width == 0 || sizes.latents == 0 {
        return Err("a dictionary needs at least one element and one latent".into());
    }
    let plan = Plan::new(arguments.format, sizes, arguments.hook, &source);
    let folder = arguments.out.join(&plan.folder);
    let read: Vec<&Path> = arguments.from.iter().map(PathBuf::as_path).collect();
    let sources = Sources::new(&read);
    let mut into = FolderOutput::create(&folder, arguments.force, |_| false, sources)?;
    write::plan(&mut into, &plan, arguments.seed)?;
    into.finish()?;
    print_line(&folder.display().to_string())
}
