//! Gates: before a prompt is read, whether its lane is steered.

use std::cell::Cell;
use std::rc::Rc;

use super::prefill::rows_of;
use super::{Chat, ChatRequest, Event, GenerateError};
use crate::gpu::Staging;
use crate::phi3::{BlockHook, Row};
use crate::sae::HookPoint;
use crate::steering::{Gate, GateKind, SteeringError, Watch};

/// A lane whose gate decides.
struct Gated {
    lane: usize,
    gate: Rc<Gate>,
    /// Tokens of its prompt.
    length: usize,
}

impl Chat {
    /// Decides about every lane of `request` that has a gate, and tells; false if cancelled.
    ///
    /// A gate looks at the stream as it is without steering. Of what the cache holds it can use the tokens
    /// whose keys and values up to its block no edit has reached, which are all where nothing is edited before
    /// that block; the others, and the new ones, run through the blocks up to it once more: of a prefill
    /// that share of its blocks, without the head.
    pub(super) async fn decide(
        &mut self,
        request: &ChatRequest<'_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<bool, GenerateError> {
        let mut gated = Vec::new();
        for (lane, prompt) in request.prompts.iter().enumerate() {
            if let Some(gate) = self.steering.gate(lane) {
                let length = prompt.ids.len();
                gated.push(Gated { lane, gate, length });
            }
        }
        let mut hooks: Vec<HookPoint> = gated.iter().map(|g| g.gate.hook).collect();
        hooks.sort_unstable();
        hooks.dedup();
        for hook in hooks {
            let own: Vec<&Gated> = gated.iter().filter(|g| g.gate.hook == hook).collect();
            let mut rows = Vec::new();
            for one in &own {
                let prompt = &request.prompts[one.lane];
                let keep = self.lanes[one.lane].untouched(&prompt.ids, hook.layer);
                // What follows is overwritten.
                let own = &mut self.lanes[one.lane];
                let keep = own.keep(keep, &self.model);
                own.reached = own.reached.max(one.length);
                rows.extend(rows_of(one.lane, prompt, keep));
            }
            let Some(scores) = self.scores(hook, &own, &rows, &request.cancel).await? else {
                return Ok(false);
            };
            for (one, score) in own.into_iter().zip(scores) {
                let (lane, threshold) = (one.lane, one.gate.threshold);
                if !score.is_finite() {
                    return Err(GenerateError::NotFinite { lane, step: 0 });
                }
                let steered = score >= threshold;
                self.steering.decide(lane, steered)?;
                tell(Event::Gate {
                    lane,
                    score,
                    threshold,
                    steered,
                });
            }
        }
        Ok(true)
    }

    /// Runs `rows` up to the block of `hook`: the scores of the lanes in `gated`, whose prompts end in them;
    /// none if cancelled.
    async fn scores(
        &self,
        hook: HookPoint,
        gated: &[&Gated],
        rows: &[Row],
        cancel: &Cell<bool>,
    ) -> Result<Option<Vec<f32>>, GenerateError> {
        let steering = self.steering.clone();
        let mut watches = Vec::with_capacity(gated.len());
        for one in gated {
            watches.push(match one.gate.kind {
                GateKind::Probe { .. } => None,
                GateKind::Feature { feature } => {
                    // Checked when the gate was set.
                    let at = steering
                        .hook(hook)
                        .ok_or(SteeringError::NotMeasured { hook })?;
                    Some(Watch::new(at, Some(feature))?)
                }
            });
        }
        let hooks: Vec<&dyn BlockHook> = match watches.iter().any(Option::is_some) {
            true => steering.hook(hook).map(|h| h as _).into_iter().collect(),
            false => Vec::new(),
        };
        let mut scores = vec![f32::NAN; gated.len()];
        for chunk in rows.chunks(self.ahead.rows()) {
            if cancel.get() {
                return Ok(None);
            }
            self.model.prefill_to(hook.layer, chunk, &hooks);
            for (i, one) in gated.iter().enumerate() {
                let last = |row: &Row| {
                    row.lane as usize == one.lane && row.position as usize + 1 == one.length
                };
                let Some(row) = chunk.iter().position(last) else {
                    continue;
                };
                scores[i] = match &watches[i] {
                    None => self.probability(&one.gate, row).await?,
                    Some(watch) => self.activation(&one.gate, watch, row).await?,
                };
            }
            self.model.gpu().finish().await?;
        }
        Ok(Some(scores))
    }

    /// The probe's score at a row of the last pass.
    async fn probability(&self, gate: &Gate, row: usize) -> Result<f32, GenerateError> {
        let (model, width) = (&self.model, self.model.config().hidden_size);
        let read = model.gpu().read_vec(model.residual(), row * width, width);
        let residual: Vec<f32> = read.await?;
        Ok(gate.probability(&residual).unwrap_or(f32::NAN))
    }

    /// The gate's feature at a row of the last pass.
    async fn activation(
        &self,
        gate: &Gate,
        watch: &Watch<'_>,
        row: usize,
    ) -> Result<f32, GenerateError> {
        let gpu = self.model.gpu();
        let staging = Staging::new(gpu, "gate", watch.bytes(row + 1));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        watch.copy(&mut encoder, row + 1, staging.buffer(), 0);
        let submission = gpu.queue().submit([encoder.finish()]);
        let bytes = staging.buffer().size();
        let bytes = staging.read(gpu, bytes, submission).wait().await?;
        let features = watch.read(&bytes, row + 1);
        let score = match gate.kind {
            GateKind::Feature { feature } => features[row].activation(feature),
            GateKind::Probe { .. } => None,
        };
        Ok(score.unwrap_or(f32::NAN))
    }
}
