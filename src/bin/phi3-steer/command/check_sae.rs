//! `phi3-steer check-sae`

use std::cell::Cell;

use phi3_steer::generate::self_test;
use phi3_steer::sae::{Dictionary, Fit};

use super::Failure;
use super::common::{ModelArguments, load_model, load_tokenizer, open_gpu, read_stdin};
use super::dictionary::DictionaryArguments;
use crate::output::print_line;

const EXAMPLES: &str = "Examples:
  phi3-steer check-sae --model models/nano --sae models/nano/sae
  phi3-steer check-sae --model models/nano --sae models/nano/sae/layers.3 --at layers.2";

/// Runs a text through the model and says how well a dictionary rebuilds its residual stream, at its hook
/// point and at the neighbouring ones, and at all of them where it does not fit there: the share of variance
/// unexplained (FVU), active latents (L0), the share of latents that are never active, the mean activation.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    dictionary: DictionaryArguments,
    /// Read the text from stdin; otherwise a built-in one is used.
    #[arg(long)]
    stdin: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments, cpu_adapter: bool) -> Result<(), Failure> {
    let text = match arguments.stdin {
        true => Some(read_stdin()?),
        false => None,
    };
    let gpu = open_gpu(cpu_adapter).await?;
    let mut model = load_model(&gpu, &arguments.model, 1).await?;
    let tokenizer = load_tokenizer(&arguments.model.model).await?;
    let mut wanted = arguments.dictionary.wanted();
    wanted.width = Some(model.config().hidden_size);
    wanted.layers = Some(model.config().num_hidden_layers);
    let folder = arguments.dictionary.folder()?;
    let dictionary = Dictionary::find(&gpu, &folder, wanted).await?;
    let never = Cell::new(false);
    let test = self_test(&mut model, &dictionary, &tokenizer, text.as_deref(), &never).await?;
    if arguments.json {
        return print_line(&serde_json::to_string_pretty(&test)?);
    }
    print_line(&format!(
        "{} dictionary, {} latents of {} elements, {}, stored as {}: {} MiB on the GPU",
        dictionary.kind(),
        dictionary.latents(),
        dictionary.width(),
        dictionary.rule().activations.name(),
        dictionary.format().name(),
        dictionary.gpu_bytes() >> 20
    ))?;
    print_line("hook point     FVU       L0    never active  mean activation")?;
    let mut fits: Vec<&Fit> = test.others.iter().chain([&test.fit]).collect();
    fits.sort_by_key(|fit| fit.hook);
    for fit in fits {
        let mark = if fit.hook == test.fit.hook { "*" } else { " " };
        print_line(&format!(
            "{:<10}{mark} {:>8.4} {:>8.1} {:>11.1} %  {:>14.4}",
            fit.hook.to_string(),
            fit.fvu,
            fit.l0,
            100.0 * fit.dead,
            fit.mean_activation
        ))?;
    }
    print_line(&test.sentence)
}
