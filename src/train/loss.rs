//! What a dictionary in the loop does to the model's predictions.

use serde::Serialize;

use super::{Control, TrainError, Weights};
use crate::checkpoint::Folder;
use crate::generate::{GenerateError, TraceRequest, Traced, trace};
use crate::phi3::{MAX_ROWS, Model};
use crate::sae::{Dictionary, HookPoint, SaeError, Wanted};
use crate::steering::{Intervention, Operator, Steering};
use crate::tokens::{Prompt, TokenRole};

/// The mean cross-entropy of the next token, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InLoop {
    /// Of the model as it is.
    pub clean: f64,
    /// With the reconstruction in the residual stream's place.
    pub rebuilt: f64,
    /// With the mean vector in its place.
    pub ablated: f64,
}

impl InLoop {
    /// The share of what ablation costs that the reconstruction keeps.
    pub fn recovered(&self) -> f64 {
        (self.ablated - self.rebuilt) / (self.ablated - self.clean)
    }

    /// Measures `dictionary`, of the output of block `layer`, on `sequences`; `mean` `[width]` is the
    /// residual stream's. First tokens are left as they are.
    pub async fn measure(
        model: &mut Model,
        dictionary: Dictionary,
        layer: usize,
        mean: &[f32],
        sequences: &[Prompt],
        control: &Control,
    ) -> Result<Self, TrainError> {
        let hook = HookPoint::block(layer);
        let ablation = constant(model, hook, mean).await?;
        let clean = entropy(model, None, hook, sequences, control).await?;
        let rebuilt = entropy(model, Some(dictionary), hook, sequences, control).await?;
        Ok(Self {
            clean,
            rebuilt,
            ablated: entropy(model, Some(ablation), hook, sequences, control).await?,
        })
    }
}

/// A dictionary whose reconstruction is always `mean`.
async fn constant(model: &Model, hook: HookPoint, mean: &[f32]) -> Result<Dictionary, TrainError> {
    let width = mean.len();
    // A dictionary with as many latents as elements would be ambiguous.
    let latents = if width == 1 { 2 } else { 1 };
    let nothing = Weights {
        width,
        latents,
        encoder: vec![0.0; latents * width],
        bias: vec![0.0; latents],
        decoder: vec![0.0; latents * width],
        b_dec: mean.to_vec(),
    };
    let files = vec![
        ("cfg.json".to_string(), nothing.config(1, true).into_bytes()),
        ("sae.safetensors".to_string(), nothing.tensors(false)),
    ];
    let wanted = Wanted {
        place: Some(hook),
        width: Some(width),
        ..Wanted::default()
    };
    let folder = Folder::memory("the mean vector", files);
    let found = Dictionary::find(model.gpu(), &folder, wanted).await;
    Ok(found.map_err(GenerateError::from)?)
}

/// The mean cross-entropy over all tokens but the first, with `dictionary`'s reconstructions in place.
async fn entropy(
    model: &mut Model,
    dictionary: Option<Dictionary>,
    hook: HookPoint,
    sequences: &[Prompt],
    control: &Control,
) -> Result<f64, TrainError> {
    let edited = dictionary.is_some();
    let steering = Steering::new(model, dictionary.into_iter().collect()).await;
    let steering = steering.map_err(GenerateError::from)?;
    if edited {
        let edit = Intervention::new(hook, 0, Operator::Reconstruct, None);
        for lane in 0..model.lanes() {
            let set = steering.set(lane, std::slice::from_ref(&edit));
            set.map_err(GenerateError::from)?;
        }
    }
    let (mut sum, mut tokens) = (0.0, 0usize);
    for some in sequences.chunks(model.lanes()) {
        let prompts: Vec<Prompt> = some.iter().map(begins).collect();
        let next = |lane: usize, position: usize| prompts[lane].ids.get(position + 1).copied();
        let request = TraceRequest {
            prompts: &prompts,
            logits: &|lane, position| next(lane, position).is_some(),
            residual: &[],
            chunk: MAX_ROWS,
            cancel: &control.cancel,
        };
        let mut see = |traced: Traced<'_>| {
            if let Traced::Logits {
                lane,
                position,
                logits,
            } = traced
                && let Some(token) = next(lane, position)
            {
                sum += surprise(logits, token as usize);
                tokens += 1;
            }
        };
        let turn = control.turns.take().await;
        trace(model, &steering, &request, &mut see).await?;
        drop(turn);
    }
    Ok(sum / tokens.max(1) as f64)
}

/// The sequence with its first token marked as its beginning, which is not edited.
fn begins(sequence: &Prompt) -> Prompt {
    let mut one = sequence.clone();
    one.roles.fill(TokenRole::Prompt);
    if let Some(first) = one.roles.first_mut() {
        *first = TokenRole::Bos;
    }
    one
}

/// -log of the probability of `token`.
fn surprise(logits: &[f32], token: usize) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(v - largest).exp()).sum();
    sum.ln() - f64::from(logits[token] - largest)
}

impl From<SaeError> for TrainError {
    fn from(error: SaeError) -> Self {
        Self::Generate(error.into())
    }
}
