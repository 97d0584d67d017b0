//! Given tokens through the model: logits and residual stream wherever they are asked for.

use std::cell::Cell;

use super::GenerateError;
use super::prefill::rows_of;
use crate::phi3::{MAX_ROWS, Model, ModelError, Row, Start, Tap};
use crate::steering::Steering;
use crate::tokens::{Prompt, TokenRole};

/// What to run and what to see of it.
pub struct TraceRequest<'a> {
    /// The tokens of each lane, from lane 0 on. What the lanes held before is overwritten.
    pub prompts: &'a [Prompt],
    /// Whether the logits after the token at (lane, position) are wanted.
    pub logits: &'a dyn Fn(usize, usize) -> bool,
    /// The blocks whose outputs are wanted, after steering, at every token.
    pub residual: &'a [usize],
    /// Tokens that are run at a time, at most [`MAX_ROWS`].
    pub chunk: usize,
    /// Set to stop after the chunk under way.
    pub cancel: &'a Cell<bool>,
}

/// What is known of the prompts of a trace: what one pass made of a prompt serves many that are steered in
/// different ways from a block on.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The block.
    pub layer: usize,
    /// The residual stream at its output, before its hooks, of each lane: `[tokens, hidden]`.
    pub residuals: &'a [&'a [f32]],
}

/// What a trace shows.
pub enum Traced<'a> {
    /// The logits after a token, `[vocab]`.
    Logits {
        /// The lane.
        lane: usize,
        /// The token's position.
        position: usize,
        /// `[vocab]`
        logits: &'a [f32],
    },
    /// The residual stream at a token, `[hidden]`.
    Residual {
        /// The block that it is the output of.
        layer: usize,
        /// The lane.
        lane: usize,
        /// The token's position.
        position: usize,
        /// `[hidden]`
        residual: &'a [f32],
    },
}

/// Runs the prompts chunk by chunk and tells what was asked for: first the
/// lanes' tokens in order, for each chunk the residual streams before the logits. Blocks that nothing
/// is asked of are not computed.
pub async fn trace(
    model: &mut Model,
    steering: &Steering,
    request: &TraceRequest<'_>,
    tell: &mut dyn FnMut(Traced<'_>),
) -> Result<(), GenerateError> {
    run(model, steering, request, None, tell).await
}

/// As [`trace`], from the output of a block on, whose hooks are the first that act.
///
/// # Errors
/// [`GenerateError::OtherResidual`] if what is known is not of as many tokens as the prompts have, and
/// [`GenerateError::NotComputed`] if the output of that block, or of one before it, is asked for.
pub async fn trace_after(
    model: &mut Model,
    steering: &Steering,
    known: &Known<'_>,
    request: &TraceRequest<'_>,
    tell: &mut dyn FnMut(Traced<'_>),
) -> Result<(), GenerateError> {
    check_known(model, known, request)?;
    run(model, steering, request, Some(known), tell).await
}

async fn run(
    model: &mut Model,
    steering: &Steering,
    request: &TraceRequest<'_>,
    known: Option<&Known<'_>>,
    tell: &mut dyn FnMut(Traced<'_>),
) -> Result<(), GenerateError> {
    check(model, request)?;
    let longest = request.prompts.iter().map(|p| p.ids.len()).max();
    let longest = longest.unwrap_or(0);
    // A trace reads its prompts from the start: nothing in the cache is void that it needs.
    model.reach(longest);
    model.reserve(longest).await?;
    let rows = rows_of_all(request.prompts);
    let chunk_rows = request.chunk.clamp(1, MAX_ROWS);
    let (hidden, vocab) = (model.config().hidden_size, model.config().vocab_size);
    let mut buffers = Vec::with_capacity(request.residual.len());
    for &layer in request.residual {
        let bytes = (chunk_rows.min(rows.len()) * hidden * 4) as u64;
        buffers.push((layer, model.gpu().storage("residual trace", bytes)?));
    }
    let wanted = |row: &Row| (request.logits)(row.lane as usize, row.position as usize);
    let last_tap = request.residual.iter().max();
    let blocks = match rows.iter().any(wanted) {
        true => model.config().num_hidden_layers,
        false => last_tap.map_or(0, |layer| layer + 1),
    };
    let all_known: Vec<f32> = known.map_or(Vec::new(), |known| known.residuals.concat());
    for (number, chunk) in rows.chunks(chunk_rows).enumerate() {
        if request.cancel.get() {
            return Err(GenerateError::Cancelled);
        }
        let taps: Vec<Tap<'_>> = buffers
            .iter()
            .map(|(layer, buffer)| Tap {
                layer: *layer,
                buffer,
                offset: 0,
            })
            .collect();
        let start = match known {
            None => Start::Tokens,
            Some(known) => Start::After {
                layer: known.layer,
                residual: &all_known[number * chunk_rows * hidden..][..chunk.len() * hidden],
            },
        };
        model.prefill_blocks(start, blocks, chunk, &[], &steering.hooks(), &taps);
        for (layer, buffer) in &buffers {
            let values: Vec<f32> = model
                .gpu()
                .read_vec(buffer, 0, chunk.len() * hidden)
                .await?;
            for (row, residual) in chunk.iter().zip(values.chunks_exact(hidden)) {
                tell(Traced::Residual {
                    layer: *layer,
                    lane: row.lane as usize,
                    position: row.position as usize,
                    residual,
                });
            }
        }
        let mut first = 0;
        while let Some(skip) = chunk[first..].iter().position(wanted) {
            first += skip;
            let most = model.lanes().min(chunk.len() - first);
            let window = &chunk[first..first + most];
            model.head_of(first, most);
            let logits: Vec<f32> = model
                .gpu()
                .read_vec(model.logits(), 0, most * vocab)
                .await?;
            for (row, logits) in window.iter().zip(logits.chunks_exact(vocab)) {
                if wanted(row) {
                    tell(Traced::Logits {
                        lane: row.lane as usize,
                        position: row.position as usize,
                        logits,
                    });
                }
            }
            first += most;
        }
        model.gpu().finish().await?;
    }
    Ok(())
}

/// The rows of all lanes, lane by lane.
fn rows_of_all(prompts: &[Prompt]) -> Vec<Row> {
    let lanes = prompts.iter().enumerate();
    lanes
        .flat_map(|(lane, prompt)| rows_of(lane, prompt, 0))
        .collect()
}

fn check(model: &Model, request: &TraceRequest<'_>) -> Result<(), GenerateError> {
    let (lanes, layers) = (model.lanes(), model.config().num_hidden_layers);
    if request.prompts.len() > lanes {
        return Err(GenerateError::TooManyLanes {
            asked: request.prompts.len(),
            lanes,
        });
    }
    if let Some(&layer) = request.residual.iter().find(|l| **l >= layers) {
        return Err(ModelError::NoBlock { layer, layers }.into());
    }
    let vocab = model.config().vocab_size;
    for (lane, prompt) in request.prompts.iter().enumerate() {
        if prompt.ids.is_empty() {
            return Err(GenerateError::EmptyPrompt { lane });
        }
        if let Some(&token) = prompt.ids.iter().find(|t| **t as usize >= vocab) {
            return Err(GenerateError::ForeignToken { token, vocab });
        }
        if prompt.ids.len() > model.context() {
            return Err(ModelError::ContextFull {
                tokens: prompt.ids.len(),
                context: model.context(),
            }
            .into());
        }
    }
    Ok(())
}

fn check_known(
    model: &Model,
    known: &Known<'_>,
    request: &TraceRequest<'_>,
) -> Result<(), GenerateError> {
    let config = model.config();
    let layers = config.num_hidden_layers;
    if known.layer >= layers {
        let layer = known.layer;
        return Err(ModelError::NoBlock { layer, layers }.into());
    }
    if let Some(&layer) = request.residual.iter().find(|l| **l <= known.layer) {
        let known = known.layer;
        return Err(GenerateError::NotComputed { layer, known });
    }
    for (lane, prompt) in request.prompts.iter().enumerate() {
        let values = known.residuals.get(lane).map_or(0, |own| own.len());
        let expected = prompt.ids.len() * config.hidden_size;
        if values != expected {
            return Err(GenerateError::OtherResidual {
                lane,
                values,
                expected,
            });
        }
    }
    Ok(())
}

/// Tokens without the text they came from: the first is the beginning of the sequence if it is `bos`,
/// all others are a prompt's.
pub fn bare_prompt(ids: Vec<u32>, bos: Option<u32>) -> Prompt {
    let role = |(position, id): (usize, &u32)| match bos {
        Some(bos) if position == 0 && *id == bos => TokenRole::Bos,
        _ => TokenRole::Prompt,
    };
    let roles = ids.iter().enumerate().map(role).collect();
    Prompt { ids, roles }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phi3::{ROW_BOS, ROW_GENERATED};

    #[test]
    fn rows_follow_lanes_and_roles() {
        let prompts = [
            bare_prompt(vec![1, 7, 1], Some(1)),
            Prompt {
                ids: vec![9, 8],
                roles: vec![TokenRole::Prompt, TokenRole::Generated],
            },
        ];
        let rows: Vec<_> = rows_of_all(&prompts)
            .iter()
            .map(|r| (r.token, r.lane, r.position, r.flags))
            .collect();
        assert_eq!(
            rows,
            [
                (1, 0, 0, ROW_BOS),
                (7, 0, 1, 0),
                (1, 0, 2, 0),
                (9, 1, 0, 0),
                (8, 1, 1, ROW_GENERATED)
            ]
        );
        assert_eq!(bare_prompt(vec![1], None).roles, [TokenRole::Prompt]);
        assert_eq!(bare_prompt(vec![1], Some(2)).roles, [TokenRole::Prompt]);
    }
}
