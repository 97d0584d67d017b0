//! What training came to: the dictionary's files, and what they are worth on sequences that they were not trained on.

use super::harvest::residuals;
use super::{Control, InLoop, Selection, TrainError, Trainer};
use crate::checkpoint::Folder;
use crate::generate::GenerateError;
use crate::gpu::Gpu;
use crate::phi3::Model;
use crate::sae::{Dictionary, Encoder, Fit, HookPoint, Wanted};
use crate::steering::Steering;
use crate::tokens::Prompt;

/// Vectors that are encoded at a time.
const ENCODED: usize = 256;

/// The files of a dictionary: a TopK one in sparsify's layout, a JumpReLU one in SAELens's.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// `cfg.json`
    pub config: String,
    /// The name of the tensors' file.
    pub name: &'static str,
    /// Its bytes.
    pub tensors: Vec<u8>,
}

impl Files {
    /// The dictionary, of the place `hook`, on the GPU.
    pub(super) async fn open(
        &self,
        gpu: &Gpu,
        hook: HookPoint,
        width: usize,
    ) -> Result<Dictionary, TrainError> {
        let files = vec![
            ("cfg.json".to_string(), self.config.clone().into_bytes()),
            (self.name.to_string(), self.tensors.clone()),
        ];
        let wanted = Wanted {
            place: Some(hook),
            width: Some(width),
            ..Wanted::default()
        };
        let folder = Folder::memory("the new dictionary", files);
        Ok(Dictionary::find(gpu, &folder, wanted).await?)
    }
}

/// A dictionary that was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its files.
    pub files: Files,
    /// Steps that were taken.
    pub taken: usize,
    /// Latents that were silent at the end.
    pub silent: usize,
}

impl Made {
    /// The dictionary of `trainer`, of the output of the block that `hook` names: `relative` with activations as they were in training, else in the residual
    /// stream's units, and `small` with its matrices in f16.
    pub async fn of(
        trainer: &Trainer,
        hook: HookPoint,
        relative: bool,
        small: bool,
    ) -> Result<Self, TrainError> {
        let settings = trainer.settings();
        let unit = trainer.scale().unit;
        let weights = trainer.weights().await?;
        let weights = match relative {
            true => weights.in_relative_units(unit),
            false => weights.in_residual_units(unit),
        };
        let threshold = trainer.threshold() * if relative { 1.0 } else { unit };
        let silent = trainer.silent().iter();
        Ok(Self {
            files: match settings.selection {
                Selection::TopK => Files {
                    config: weights.config(settings.k, !relative),
                    name: "sae.safetensors",
                    tensors: weights.tensors(small),
                },
                Selection::BatchTopK => Files {
                    config: weights.jump_relu_config(hook.layer),
                    name: "sae_weights.safetensors",
                    tensors: weights.jump_relu_tensors(threshold, small),
                },
            },
            taken: trainer.taken(),
            silent: silent.filter(|s| **s > settings.dead_after).count(),
        })
    }
}

/// How well a dictionary fits, and what it does in the loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// On all that was held out.
    pub fit: Fit,
    /// On the first sequences of it.
    pub in_loop: InLoop,
}

impl Measured {
    /// Measures the dictionary of `files`, of the output of the block that `hook` names, on `held`; in the loop on
    /// at most `loss_tokens` tokens of it, at least one sequence.
    pub async fn of(
        files: &Files,
        model: &mut Model,
        hook: HookPoint,
        held: &[Prompt],
        loss_tokens: usize,
        control: &Control,
    ) -> Result<Self, TrainError> {
        let gpu = model.gpu().clone();
        let width = model.config().hidden_size;
        let unsteered = Steering::new(model, Vec::new()).await;
        let unsteered = unsteered.map_err(GenerateError::from)?;
        let mut vectors = Vec::new();
        for some in held.chunks(model.lanes()) {
            let _turn = control.turns.take().await;
            vectors.extend(residuals(model, &unsteered, hook.layer, some, &control.cancel).await?);
        }
        let dictionary = files.open(&gpu, hook, width).await?;
        let encoder = Encoder::new(&gpu, &dictionary, ENCODED).await?;
        let fit = Fit::measure(&encoder, hook, &vectors, &control.cancel).await?;
        let fit = fit.ok_or(GenerateError::Cancelled)?;
        let dictionary = files.open(&gpu, hook, width).await?;
        let some = few(held, loss_tokens);
        let mean = mean(&vectors, width);
        let in_loop = InLoop::measure(model, dictionary, hook.layer, &mean, some, control).await?;
        Ok(Self { fit, in_loop })
    }
}

/// The first sequences, at least one, of at most `most` tokens.
fn few(sequences: &[Prompt], most: usize) -> &[Prompt] {
    let mut tokens = 0;
    let fits = sequences.iter().take_while(|s| {
        tokens += s.ids.len();
        tokens <= most
    });
    &sequences[..fits.count().max(1).min(sequences.len())]
}

/// The mean of `rows` `[n, width]`, `[width]`.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let n = (rows.len() / width).max(1) as f64;
    let mut mean = vec![0.0f64; width];
    for row in rows.chunks_exact(width) {
        let sums = mean.iter_mut().zip(row);
        sums.for_each(|(sum, v)| *sum += f64::from(*v) / n);
    }
    mean.iter().map(|m| *m as f32).collect()
}
