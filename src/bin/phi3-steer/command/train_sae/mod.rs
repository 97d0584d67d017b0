//! `phi3-steer train-sae`

mod data;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ArgGroup;
use phi3_steer::generate::Chat;
use phi3_steer::phi3::{Model, ModelError, ModelFiles};
use phi3_steer::sae::HookPoint;
use phi3_steer::steering::Steering;
use phi3_steer::train::{
    Card, Control, Data, Harvest, Made, Measured, Progress, Selection, Settings, Times, Trainer,
    Training, Written,
};

use super::Failure;
use super::common::{ModelArguments, load_files, load_tokenizer, model_folder, open_gpu};
use crate::output::{FolderOutput, Sources, note, print_line};
use data::DataArguments;
use work::Work;

const EXAMPLES: &str = "Examples:
  phi3-steer train-sae --model models/nano --hook layers.2 --prompts prompts.txt --replies 8 \\
      --latents 256 --k 8 --steps 20 --rows 32 --out tiny-sae
  phi3-steer train-sae --model models/smollm2-135m-instruct --hook layers.9 --text README.md \\
      --prompts prompts.txt --openings openings.txt --out sae
A file of prompts: one a line; of a file called .jsonl a line is \"a prompt\", {\"prompt\": \"…\"} or a list of
messages. Interrupted, the same command goes on where it was.";

/// Trains a sparse dictionary of a block's output on text, chats, and what the model itself replies to
/// prompts, and writes it in a public layout with a card that says how well it fits. Everything random
/// comes from --seed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("source").args(["text", "chats", "prompts"]).required(true).multiple(true))]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The block whose output it is trained on, as in layers.9.
    #[arg(long)]
    hook: HookPoint,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    course: Course,
    /// The folder to write layers.N to; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the vectors and what is needed to go on are until the dictionary is written; by default beside
    /// it, as DIR.work.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Tokens, held out, on which the loss is measured with the dictionary in the loop.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    loss_tokens: usize,
    /// Activations in units of the vectors' mean norm over the root of their size, and decoder rows as long:
    /// strengths are then of a like size in every model.
    #[arg(long)]
    relative: bool,
    /// Write the matrices in f32 rather than f16.
    #[arg(long)]
    f32: bool,
    /// Write over a dictionary in that folder.
    #[arg(long)]
    force: bool,
}

/// The dictionary's size and the course of its training.
#[derive(clap::Args)]
pub struct Course {
    /// Latents; by default eight for each element of a vector.
    #[arg(long, value_name = "N")]
    latents: Option<usize>,
    /// Active latents of a token.
    #[arg(long, value_name = "K", default_value_t = Settings::default().k)]
    k: usize,
    /// BatchTopK: so many active latents a token on average, more where there is more to say. Written as a JumpReLU
    /// dictionary in SAELens's layout.
    #[arg(long)]
    batch: bool,
    /// Steps.
    #[arg(long, value_name = "N", default_value_t = Settings::default().steps)]
    steps: usize,
    /// Vectors of a step.
    #[arg(long, value_name = "N", default_value_t = Settings::default().rows)]
    rows: usize,
    /// Adam's rate at its highest.
    #[arg(long, value_name = "R", default_value_t = Settings::default().rate)]
    rate: f32,
    /// Steps over which the rate rises; by default a tenth of all, at most 50.
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,
    /// The last share of the steps, over which the rate falls.
    #[arg(long, value_name = "SHARE", default_value_t = Settings::default().decay)]
    decay: f32,
    /// Steps without being active after which a latent is dead and learns what the others leave.
    #[arg(long, value_name = "N", default_value_t = Settings::default().dead_after)]
    dead_after: u32,
    /// Dead latents that rebuild what the others leave of a token; 0 for no auxiliary loss.
    #[arg(long, value_name = "N", default_value_t = Settings::default().auxiliary)]
    auxiliary: usize,
    /// The weight of the auxiliary loss.
    #[arg(long, value_name = "W", default_value_t = Settings::default().auxiliary_weight)]
    auxiliary_weight: f32,
    /// Leave the decoder random: a control, to compare a trained dictionary with.
    #[arg(long)]
    frozen_decoder: bool,
    /// Seed of all random choices.
    #[arg(long, value_name = "S", default_value_t = Settings::default().seed)]
    seed: u64,
    /// Vectors that are kept on the disk to draw steps from, the latest.
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    ring: u64,
}

impl Course {
    fn settings(&self, width: usize) -> Settings {
        let latents = self.latents.unwrap_or(8 * width);
        Settings {
            latents,
            k: self.k,
            selection: match self.batch {
                true => Selection::BatchTopK,
                false => Selection::TopK,
            },
            steps: self.steps,
            rows: self.rows,
            rate: self.rate,
            warmup: self.warmup.unwrap_or(Settings::usual_warmup(self.steps)),
            decay: self.decay,
            dead_after: self.dead_after,
            auxiliary: self.auxiliary.min(latents),
            auxiliary_weight: self.auxiliary_weight,
            frozen_decoder: self.frozen_decoder,
            seed: self.seed,
        }
    }
}

/// Sequences that run at a time.
const LANES: usize = 16;

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let files = ModelFiles::open(&model_folder(&arguments.model.model)).await?;
    let (width, layers) = (files.config.hidden_size, files.config.num_hidden_layers);
    let hook = arguments.hook;
    if hook.layer >= layers {
        let layer = hook.layer;
        return Err(ModelError::NoBlock { layer, layers }.into());
    }
    let settings = arguments.course.settings(width);
    settings.check()?;
    let mut read = vec![arguments.model.model.as_path()];
    read.extend(arguments.data.files());
    let folder = arguments.out.join(hook.to_string());
    let mut out = FolderOutput::create(&folder, arguments.force, |_| false, Sources::new(&read))?;
    let work = Work::open(arguments.work.as_deref(), &arguments.out)?;
    let sources = arguments.data.sources()?;
    let gpu = open_gpu(cpu_adapter).await?;
    let model = load_files(&gpu, files, arguments.model.quant, LANES).await?;
    let tokenizer = load_tokenizer(&arguments.model.model).await?;
    let steering = Steering::new(&model, Vec::new()).await?;
    let mut chat = Chat::new(model, tokenizer, steering).await?;

    let control = Control::default();
    let mut times = Times::default();
    let started = Instant::now();
    let written = Written {
        before: work.written()?,
        keep: &mut |all, total| {
            note(&format!("wrote {} of {total} replies", all.len()));
            work.keep_written(all)
        },
    };
    let reading = arguments.data.reading(settings.seed);
    let data = Data::gather(&sources, &reading, &mut chat, written, &control).await?;
    times.writing = started.elapsed();
    let (model, _) = chat.model_and_steering();
    let (trainer, curve) = train(arguments, model, &settings, &data, &work, &mut times).await?;

    let started = Instant::now();
    let made = Made::of(&trainer, hook, arguments.relative, !arguments.f32).await?;
    let most = arguments.loss_tokens;
    let measured = Measured::of(&made.files, model, hook, &data.held, most, &control).await?;
    times.measuring = started.elapsed();
    let card = Card {
        model: &name(&arguments.model.model),
        how: &command(),
        hook,
        width,
        settings: &settings,
        relative: arguments.relative,
        ring: arguments.course.ring,
        data: &data,
        made: &made,
        measured: &measured,
        curve: &curve,
        times,
    };
    for (name, bytes) in card.files() {
        out.write(name, &bytes)?;
    }
    out.finish()?;
    work.clear()?;
    for line in card.figures() {
        print_line(&line)?;
    }
    print_line(&folder.display().to_string())
}

/// Trains, or goes on with it; with the share of variance that each step left unexplained.
async fn train(
    arguments: &Arguments,
    model: &mut Model,
    settings: &Settings,
    data: &Data,
    work: &Work,
    times: &mut Times,
) -> Result<(Trainer, Vec<(usize, f64)>), Failure> {
    let gpu = model.gpu().clone();
    let width = model.config().hidden_size;
    let what = work::What {
        settings: settings.clone(),
        hook: arguments.hook,
        ring: arguments.course.ring,
        data: data.hash(),
    };
    let state = work.begin(&what)?;
    let (came, read) = state
        .as_ref()
        .map_or((0, 0), |state| (state.came, state.read));
    if let Some(taken) = state
        .as_ref()
        .and_then(|s| s.trained.as_ref())
        .map(|t| t.taken)
    {
        note(&format!("going on after step {taken}"));
    }
    let mut ring = work.ring(width, arguments.course.ring, came)?;
    let sequences = data.sequences.clone();
    let mut harvest = Harvest::new(model, arguments.hook.layer, sequences, read).await?;
    let training = Training {
        settings,
        ring: &mut ring,
        harvest: Some(&mut harvest),
        control: &Control::default(),
    };
    let (mut last, mut told) = (Instant::now(), Instant::now());
    let mut curve = Vec::new();
    let mut tell = |progress: Progress| {
        let spent = last.elapsed();
        last = Instant::now();
        let (line, whole) = match progress {
            Progress::Harvested { came, total } => {
                times.harvest += spent;
                (
                    format!("harvested {came} of {total} vectors"),
                    came == total,
                )
            }
            Progress::Stepped { taken, step } => {
                times.training += spent;
                curve.push((taken, step.loss));
                let line = format!(
                    "step {taken} of {}: variance unexplained {:.4}, {} dead",
                    settings.steps, step.loss, step.dead
                );
                (line, taken == 1 || taken == settings.steps)
            }
        };
        if whole || told.elapsed().as_secs() >= 10 {
            told = Instant::now();
            note(&line);
        }
    };
    let trainer = training
        .run(&gpu, state, &mut |state| work.keep(state), &mut tell)
        .await?;
    Ok((trainer, curve))
}

/// The name of a file or folder without those that it is in.
fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// The command line, without the folders that the program is in.
fn command() -> String {
    let words = std::env::args()
        .skip(1)
        .map(|word| match word.contains(char::is_whitespace) {
            true => format!("'{word}'"),
            false => word,
        });
    format!("phi3-steer {}", words.collect::<Vec<_>>().join(" "))
}
