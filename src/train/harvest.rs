//! Reading a block's output over given text.

use std::cell::Cell;

use super::TrainError;
use crate::generate::{GenerateError, TraceRequest, Traced, trace};
use crate::phi3::{MAX_ROWS, Model};
use crate::steering::Steering;
use crate::tokens::Prompt;

/// Sequences of tokens that a model reads, a batch at a time.
pub struct Harvest<'a> {
    model: &'a mut Model,
    unsteered: Steering,
    layer: usize,
    sequences: Vec<Prompt>,
    /// Sequences that were read.
    read: usize,
}

impl<'a> Harvest<'a> {
    /// The outputs of block `layer` over `sequences`, of which the first `read` were read before. The first
    /// token of a sequence, whose residual is unlike others', does not count.
    pub async fn new(
        model: &'a mut Model,
        layer: usize,
        mut sequences: Vec<Prompt>,
        read: usize,
    ) -> Result<Self, TrainError> {
        let unsteered = Steering::new(model, Vec::new()).await;
        let unsteered = unsteered.map_err(GenerateError::from)?;
        sequences.retain(|s| s.ids.len() > 1);
        Ok(Self {
            model,
            unsteered,
            layer,
            sequences,
            read,
        })
    }

    /// Elements of a vector.
    pub fn width(&self) -> usize {
        self.model.config().hidden_size
    }

    /// Vectors that all sequences give.
    pub fn vectors(&self) -> u64 {
        self.sequences.iter().map(|s| s.ids.len() as u64 - 1).sum()
    }

    /// Sequences that were read.
    pub fn read(&self) -> usize {
        self.read
    }

    /// The vectors of the next sequences, as many as the model has lanes, `[n, width]`; none after the last.
    pub async fn next(&mut self, cancel: &Cell<bool>) -> Result<Vec<f32>, TrainError> {
        let some = &self.sequences[self.read.min(self.sequences.len())..];
        let some = &some[..some.len().min(self.model.lanes())];
        let rows = residuals(self.model, &self.unsteered, self.layer, some, cancel).await?;
        self.read += some.len();
        Ok(rows)
    }
}

/// The outputs of block `layer` over sequences, one a lane, without those of their first tokens,
/// `[n, width]`.
pub(super) async fn residuals(
    model: &mut Model,
    steering: &Steering,
    layer: usize,
    sequences: &[Prompt],
    cancel: &Cell<bool>,
) -> Result<Vec<f32>, TrainError> {
    let mut rows = Vec::new();
    if sequences.is_empty() {
        return Ok(rows);
    }
    let request = TraceRequest {
        prompts: sequences,
        logits: &|_, _| false,
        residual: &[layer],
        chunk: MAX_ROWS,
        cancel,
    };
    let mut take = |traced: Traced<'_>| {
        if let Traced::Residual {
            position, residual, ..
        } = traced
            && position > 0
        {
            rows.extend_from_slice(residual);
        }
    };
    trace(model, steering, &request, &mut take).await?;
    Ok(rows)
}
