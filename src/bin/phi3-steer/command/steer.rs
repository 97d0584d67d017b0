//! Steering on the command line.

use std::path::{Path, PathBuf};

use phi3_steer::checkpoint::{Checkpoint, FileSource, Source};
use phi3_steer::phi3::Model;
use phi3_steer::sae::{Dictionary, HookPoint};
use phi3_steer::steering::{Gate, Intervention, Operator, Steering};
use serde_json::Value;

use super::Failure;
use super::common::{read_file, wanted};
use super::dictionary::sae_folder;

/// The steering on the command line.
#[derive(clap::Args)]
pub struct SteerArguments {
    /// The dictionary: its folder or one of its files, in any format, or a folder with such folders.
    #[arg(long, value_name = "PATH")]
    pub sae: Option<PathBuf>,
    #[arg(
        long,
        help = steer_help(),
        value_name = "WHAT",
        allow_hyphen_values = true
    )]
    pub steer: Vec<Intervention>,
    /// Directions that --steer can name: a safetensors file of vectors [hidden], each called HOOK:NAME, as
    /// in layers.3:refusal.
    #[arg(long, value_name = "FILE")]
    pub directions: Option<PathBuf>,
    /// Put the dictionary at the hook point of --steer, whatever its files say.
    #[arg(long, requires = "sae")]
    pub sae_anywhere: bool,
    /// Load only the rows of the features that are steered. Of TopK dictionaries, and of encoders that
    /// cannot be read by rows, these do only for operators that need no activation, such as add.
    #[arg(long, requires = "sae")]
    pub sae_rows: bool,
}

/// What is said of --steer.
fn steer_help() -> String {
    format!(
        "What to do, HOOK:FEATURE:OPERATOR:VALUE and options, as in layers.3:329:clamp:8:generated, or with a \
         direction's @NAME in the feature's place; may be repeated. Operators: {}; options: prompt, \
         generated, +bos, if-active",
        Operator::names()
    )
}

/// Loads the dictionaries that the interventions name, and those at `watched`, and the directions, and sets
/// the interventions in every lane.
pub async fn load_steering(
    model: &Model,
    arguments: &SteerArguments,
    watched: impl IntoIterator<Item = HookPoint>,
) -> Result<Steering, Failure> {
    let coded = arguments.steer.iter().filter(|i| i.direction().is_none());
    let mut hooks: Vec<HookPoint> = coded.clone().map(|i| i.hook).collect();
    if let (Some(hook), None) = (hooks.first(), &arguments.sae) {
        return Err(
            format!("{hook} is steered by a dictionary's features: name it with --sae").into(),
        );
    }
    hooks.extend(watched);
    hooks.sort_unstable();
    hooks.dedup();
    let mut dictionaries = Vec::with_capacity(hooks.len());
    if let Some(sae) = &arguments.sae {
        let folder = sae_folder(sae)?;
        for hook in hooks {
            let mut wanted = wanted(model, Some(hook));
            if arguments.sae_anywhere {
                (wanted.hook, wanted.place) = (None, Some(hook));
            }
            let gpu = model.gpu();
            dictionaries.push(if arguments.sae_rows {
                let own = coded.clone().filter(|i| i.hook == hook);
                let features: Vec<u32> = own.filter_map(Intervention::feature).collect();
                Dictionary::find_latents(gpu, &folder, wanted, &features).await?
            } else {
                Dictionary::find(gpu, &folder, wanted).await?
            });
        }
    }
    let steering = Steering::new(model, dictionaries).await?;
    if let Some(file) = &arguments.directions {
        add_directions(&steering, file).await?;
    }
    for lane in 0..model.lanes() {
        steering.set(lane, &arguments.steer)?;
    }
    Ok(steering)
}

/// The gate in `file`: it is the object, or the one that a result of the lab has.
pub fn read_gate(file: &Path) -> Result<Gate, Failure> {
    let place = file.display();
    let bad = |e: serde_json::Error| format!("{place} is no gate: {e}");
    let mut json: Value = serde_json::from_slice(&read_file(file)?).map_err(bad)?;
    let own = json.get_mut("gate").map(Value::take);
    Ok(serde_json::from_value(own.unwrap_or(json)).map_err(bad)?)
}

/// Adds all directions of `file`.
async fn add_directions(steering: &Steering, file: &Path) -> Result<(), Failure> {
    let place = file.display();
    let checkpoint = Checkpoint::from_source(Source::File(FileSource::open(file)?)).await?;
    for tensor in checkpoint.names() {
        let Some((hook, name)) = tensor.rsplit_once(':') else {
            return Err(format!(
                "{place}: a direction is called HOOK:NAME, as in layers.3:refusal, and not {tensor}"
            )
            .into());
        };
        let hook = hook
            .parse()
            .map_err(|e| format!("{place}: {tensor}: {e}"))?;
        let shape = checkpoint.info(tensor).map(|info| &info.shape[..]);
        let Some(&[len]) = shape else {
            let shape = shape.unwrap_or_default();
            return Err(
                format!("{place}: {tensor} has the shape {shape:?}, [hidden] is needed").into(),
            );
        };
        let values = checkpoint.vector(tensor, len).await?;
        let added = steering.add_direction(hook, name, values);
        added.map_err(|e| format!("{place}: {e}"))?;
    }
    Ok(())
}
