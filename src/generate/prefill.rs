//! Reading tokens into the cache, in chunks.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use web_time::Instant;

use super::ahead::CHUNKS;
use super::lane::{Held, Under, Written, flags};
use super::{Chat, ChatRequest, Event, GenerateError, PromptToken, Stats};
use crate::gpu::Staging;
use crate::phi3::Row;
use crate::steering::Watch;
use crate::tokens::Prompt;

/// Bytes of the residual stream that come back where no features do: they tell that the chunk is done.
const MARKER: u64 = 16;

/// A submitted chunk.
struct Chunk<'a> {
    rows: &'a [Row],
    /// The steering of each row.
    under: Vec<Under>,
    staging: Staging,
    submission: wgpu::SubmissionIndex,
    since: Instant,
}

/// The rows of a prompt from the position `first` on.
pub(super) fn rows_of(lane: usize, prompt: &Prompt, first: usize) -> impl Iterator<Item = Row> {
    let tokens = prompt.ids.iter().zip(&prompt.roles).enumerate();
    tokens
        .skip(first)
        .map(move |(position, (&token, &role))| Row {
            token,
            lane: lane as u32,
            position: position as u32,
            flags: flags(role),
        })
}

impl Chat {
    /// Reads the prompts, all but what the cache still holds; false if cancelled.
    pub(super) async fn read_prompts(
        &mut self,
        request: &ChatRequest<'_>,
        watch: Option<&Watch<'_>>,
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<bool, GenerateError> {
        let mut rows = Vec::new();
        let mut reused = Vec::new();
        for (lane, prompt) in request.prompts.iter().enumerate() {
            let wanted: Vec<(u32, u64)> = rows_of(lane, prompt, 0)
                .map(|row| (row.token, self.steering.fingerprint(lane, row.flags)))
                .collect();
            let keep = self.lanes[lane].reusable(&wanted, request.features);
            let keep = self.lanes[lane].keep(keep, &self.model);
            reused.push(keep);
            stats.reused += keep;
            rows.extend(rows_of(lane, prompt, keep));
        }
        let lengths: Vec<usize> = request.prompts.iter().map(|p| p.ids.len()).collect();
        let read = &mut stats.prefilled;
        if !self
            .read_rows(&rows, &lengths, watch, &request.cancel, read)
            .await?
        {
            return Ok(false);
        }
        for (lane, prompt) in request.prompts.iter().enumerate() {
            let token = |held: &Held| PromptToken {
                token: held.token,
                features: held.features.clone().filter(|_| watch.is_some()),
            };
            let held = &self.lanes[lane].held;
            tell(Event::Prompt {
                lane,
                first: self.tokenizer.last_turn(prompt),
                tokens: held.iter().take(prompt.ids.len()).map(token).collect(),
                reused: reused[lane],
            });
        }
        Ok(true)
    }

    /// Reads `rows`, whose lanes are `lengths` long then: the last row of each gives the lane's logits.
    /// Each chunk is steered as things are when it is submitted, and what it leaves in the cache is held
    /// for that. `read` counts the rows that were read; false if cancelled before all were.
    pub(super) async fn read_rows(
        &mut self,
        rows: &[Row],
        lengths: &[usize],
        watch: Option<&Watch<'_>>,
        cancel: &Cell<bool>,
        read: &mut usize,
    ) -> Result<bool, GenerateError> {
        let mut rest = rows;
        let mut flying: VecDeque<Chunk<'_>> = VecDeque::new();
        let mut since = Instant::now();
        loop {
            if !rest.is_empty() && !cancel.get() && flying.len() < CHUNKS {
                let (chunk, later) = rest.split_at(self.ahead.rows().min(rest.len()));
                flying.push_back(self.submit_chunk(chunk, lengths, watch));
                rest = later;
                continue;
            }
            let Some(chunk) = flying.pop_front() else {
                break;
            };
            let bytes = chunk.staging.buffer().size();
            let pending = chunk
                .staging
                .read(self.model.gpu(), bytes, chunk.submission);
            let bytes = pending.wait().await?;
            since = since.max(chunk.since);
            self.ahead.took_chunk(chunk.rows.len(), since.elapsed());
            since = Instant::now();
            let features = watch.map(|watch| watch.read(&bytes, chunk.rows.len()));
            let mut features = features.into_iter().flatten().map(Rc::new);
            for (row, under) in chunk.rows.iter().zip(chunk.under) {
                self.lanes[row.lane as usize].push(Held {
                    token: row.token,
                    under,
                    features: features.next(),
                });
            }
            *read += chunk.rows.len();
        }
        Ok(rest.is_empty())
    }

    /// Submits a chunk. What is recorded about its steering is taken here, before anything is awaited.
    fn submit_chunk<'a>(
        &mut self,
        rows: &'a [Row],
        lengths: &[usize],
        watch: Option<&Watch<'_>>,
    ) -> Chunk<'a> {
        let last = |row: &Row| row.position as usize + 1 == lengths[row.lane as usize];
        let rows_and_lanes = rows.iter().enumerate().filter(|(_, row)| last(row));
        let heads: Vec<(usize, usize)> = rows_and_lanes
            .map(|(i, row)| (i, row.lane as usize))
            .collect();
        let gpu = self.model.gpu();
        let bytes = watch.map_or(MARKER, |watch| watch.bytes(rows.len()));
        let staging = Staging::new(gpu, "chunk", bytes);
        self.model
            .prefill(rows, &heads, &self.steering.hooks(), &[]);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        match watch {
            Some(watch) => watch.copy(&mut encoder, rows.len(), staging.buffer(), 0),
            None => {
                let residual = self.model.residual();
                encoder.copy_buffer_to_buffer(residual, 0, staging.buffer(), 0, MARKER);
            }
        }
        let submission = gpu.queue().submit([encoder.finish()]);
        for (_, lane) in heads {
            self.lanes[lane].written = Written::now(&self.steering, lane);
        }
        let under = |row: &Row| Under::now(&self.steering, row.lane as usize, row.flags);
        Chunk {
            rows,
            under: rows.iter().map(under).collect(),
            staging,
            submission,
            since: Instant::now(),
        }
    }
}
