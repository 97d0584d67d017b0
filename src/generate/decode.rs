//! Generating: all lanes in lockstep, the sampled tokens fed back on the GPU.

use std::collections::VecDeque;
use std::rc::Rc;

use web_time::Instant;

use super::lane::{Held, Under, Written};
use super::prefill::rows_of;
use super::{Chat, ChatRequest, DoneReason, Event, GenerateError, Logprobs, Sampled, Stats};
use crate::gpu::Staging;
use crate::phi3::{ModelError, ROW_DONE, ROW_GENERATED, Row};
use crate::steering::{TokenFeatures, Watch};
use crate::tokens::{Detokenizer, Prompt, TokenRole};

/// A token that is told once the pass that reads it is done.
struct Waiting {
    token: u32,
    text: String,
    logprobs: Option<Logprobs>,
    written: Written,
}

/// A lane that is answering.
struct Speaker {
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens of the answer, the stop token included.
    said: Vec<u32>,
    text: String,
    detokenizer: Detokenizer,
    waiting: Option<Waiting>,
    done: Option<DoneReason>,
}

/// A submitted token of all lanes.
struct Step {
    staging: Staging,
    submission: wgpu::SubmissionIndex,
    since: Instant,
    /// Whether a pass reads the tokens before the next are chosen; none does where they have been read.
    pass: bool,
    /// The steering of the token that the pass reads, per lane.
    under: Vec<Under>,
    /// What the chosen token was predicted under, per lane.
    written: Vec<Written>,
}

/// An answer to a request, as far as it has come.
struct Progress<'a, 'w> {
    request: &'a ChatRequest<'a>,
    watch: Option<&'a Watch<'w>>,
    speakers: Vec<Speaker>,
    spare: Vec<Staging>,
}

impl Progress<'_, '_> {
    /// Positions that the pass after `submitted` choices reads and sees, in the longest lane that is not
    /// known to have ended; none if all have.
    fn seen(&self, submitted: usize) -> Option<usize> {
        let speaking = self.speakers.iter().filter(|s| s.done.is_none());
        Some(speaking.map(|s| s.prompt).max()? + submitted)
    }
}

impl Chat {
    /// Generates until every lane has ended.
    pub(super) async fn decode(
        &mut self,
        request: &ChatRequest<'_>,
        watch: Option<&Watch<'_>>,
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), GenerateError> {
        let mut progress = Progress {
            request,
            watch,
            speakers: self.start(request),
            spare: Vec::new(),
        };
        let mut flying: VecDeque<Step> = VecDeque::new();
        let mut submitted = 0;
        // Whether the lanes' logits are there already: those of the prompts' last tokens.
        let mut read = true;
        let mut room = true;
        let mut since = Instant::now();
        loop {
            let wanted = room && submitted < request.max_tokens && !request.cancel.get();
            let seen = progress.seen(submitted);
            let seen = seen.filter(|&seen| wanted && seen < self.model.context());
            if let Some(seen) = seen.filter(|_| flying.len() < self.ahead.passes()) {
                // Before the rotary factors change, all that was said must be known.
                let turns = !read && self.model.must_turn(seen);
                if !turns || flying.is_empty() {
                    if !read && !self.make_room(seen).await? {
                        room = false;
                        continue;
                    }
                    if turns {
                        read = self.read_again(seen, &mut progress, tell).await?;
                        continue;
                    }
                    flying.push_back(self.submit(&mut progress, seen, !read));
                    stats.passes += usize::from(!read);
                    read = false;
                    submitted += 1;
                    continue;
                }
            }
            let Some(step) = flying.pop_front() else {
                break;
            };
            let bytes = self.results(&step).await?;
            since = since.max(step.since);
            if step.pass {
                self.ahead.took_pass(since.elapsed());
            }
            since = Instant::now();
            self.hear(&bytes, &step, &mut progress, stats, tell)?;
            progress.spare.push(step.staging);
            if request.cancel.get() {
                break;
            }
        }
        let ended = if request.cancel.get() {
            DoneReason::Cancelled
        } else if submitted >= request.max_tokens {
            DoneReason::Length
        } else {
            DoneReason::Context
        };
        for step in flying {
            // What is under way must end before its staging buffers go.
            self.results(&step).await?;
        }
        for (lane, speaker) in progress.speakers.into_iter().enumerate() {
            self.end(lane, speaker, &request.prompts[lane], ended, tell);
        }
        Ok(())
    }

    /// Sets sampler and decode rows; lanes without a prompt are done from the start.
    fn start(&mut self, request: &ChatRequest<'_>) -> Vec<Speaker> {
        let seen: Vec<&[u32]> = request.prompts.iter().map(|p| &p.ids[..]).collect();
        self.sampler.start(
            self.model.gpu(),
            &request.sampling,
            &self.tokenizer.stop_tokens(),
            &seen,
        );
        let rows: Vec<Row> = (0..self.model.lanes())
            .map(|lane| match request.prompts.get(lane) {
                Some(prompt) => Row {
                    token: 0,
                    lane: lane as u32,
                    position: prompt.ids.len() as u32 - 1,
                    flags: 0,
                },
                None => {
                    // An idle lane computes its last token again and again, and forgets it.
                    let last = self.lanes[lane].held.pop();
                    Row {
                        token: last.map_or(0, |h| h.token),
                        lane: lane as u32,
                        position: self.lanes[lane].held.len() as u32,
                        flags: ROW_DONE,
                    }
                }
            })
            .collect();
        self.model.set_decode_rows(&rows);
        let speaker = |prompt: &Prompt| Speaker {
            prompt: prompt.ids.len(),
            said: Vec::new(),
            text: String::new(),
            detokenizer: self.tokenizer.detokenizer(),
            waiting: None,
            done: None,
        };
        request.prompts.iter().map(speaker).collect()
    }

    /// Makes room in the cache for `positions` positions; false if there is no memory for them, in which
    /// case nothing has changed.
    async fn make_room(&mut self, positions: usize) -> Result<bool, GenerateError> {
        match self.model.reserve(positions).await {
            Ok(()) => Ok(true),
            Err(ModelError::CacheFull { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads the conversations again with the rotary factors of sequences of `positions` positions: keys
    /// that were turned by others are void. Leaves the logits after what was said last; false if
    /// cancelled.
    async fn read_again(
        &mut self,
        positions: usize,
        progress: &mut Progress<'_, '_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<bool, GenerateError> {
        self.model.reach(positions);
        self.reset();
        let mut rows = Vec::new();
        let mut lengths = vec![0; progress.speakers.len()];
        for (lane, speaker) in progress.speakers.iter().enumerate() {
            if speaker.done.is_none() {
                let mut heard = progress.request.prompts[lane].clone();
                heard.ids.extend(&speaker.said);
                heard.roles.resize(heard.ids.len(), TokenRole::Generated);
                lengths[lane] = heard.ids.len();
                rows.extend(rows_of(lane, &heard, 0));
            }
        }
        let cancel = &progress.request.cancel;
        let read = self
            .read_rows(&rows, &lengths, progress.watch, cancel, &mut 0)
            .await?;
        for (lane, speaker) in progress.speakers.iter_mut().enumerate() {
            if read && let Some(waiting) = speaker.waiting.take() {
                let last = self.lanes[lane].held.last();
                let features = last.and_then(|held| held.features.clone());
                tell(waiting.told(lane, features));
            }
        }
        Ok(read)
    }

    /// Submits the choice of the next tokens, and before it, with `pass`, the pass that reads the last
    /// ones, in which no lane sees more than `seen` positions. What is recorded about the steering is
    /// taken here, before anything is awaited.
    fn submit(&self, progress: &mut Progress<'_, '_>, seen: usize, pass: bool) -> Step {
        let (gpu, lanes) = (self.model.gpu(), self.model.lanes());
        let sampled = (lanes * size_of::<Sampled>()) as u64;
        let logits = self.logits_bytes(progress.request) as u64;
        let watched = progress.watch.map_or(0, |w| w.bytes(lanes));
        let all = sampled + logits + watched;
        let staging = progress.spare.pop();
        let staging = staging.unwrap_or_else(|| Staging::new(gpu, "tokens", all));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        if pass {
            self.model
                .decode(&mut encoder, seen, &self.steering.hooks());
        }
        self.sampler.record(&mut encoder);
        encoder.copy_buffer_to_buffer(self.sampler.out(), 0, staging.buffer(), 0, sampled);
        if logits > 0 {
            let from = self.model.logits();
            encoder.copy_buffer_to_buffer(from, 0, staging.buffer(), sampled, logits);
        }
        if let Some(watch) = progress.watch.filter(|_| pass) {
            watch.copy(&mut encoder, lanes, staging.buffer(), sampled + logits);
        }
        let submission = gpu.queue().submit([encoder.finish()]);
        let written = |lane: usize| match pass {
            true => Written::now(&self.steering, lane),
            false => self.lanes[lane].written,
        };
        let under = |lane| Under::now(&self.steering, lane, ROW_GENERATED);
        Step {
            staging,
            submission,
            since: Instant::now(),
            pass,
            under: (0..lanes).map(under).collect(),
            written: (0..lanes).map(written).collect(),
        }
    }

    /// Bytes of the logits that are read back with every token; none if nobody asked how likely it was.
    fn logits_bytes(&self, request: &ChatRequest<'_>) -> usize {
        let asked = request.logprobs.map(|_| request.prompts.len());
        asked.unwrap_or(0) * self.model.config().vocab_size * size_of::<f32>()
    }

    /// Waits for a step's results.
    async fn results(&self, step: &Step) -> Result<Vec<u8>, GenerateError> {
        let bytes = step.staging.buffer().size();
        let pending = step
            .staging
            .read(self.model.gpu(), bytes, step.submission.clone());
        Ok(pending.wait().await?)
    }

    /// Takes in a step's results: the features and keys of the token before, and the new token.
    fn hear(
        &mut self,
        bytes: &[u8],
        step: &Step,
        progress: &mut Progress<'_, '_>,
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), GenerateError> {
        let lanes = self.model.lanes();
        let (sampled, rest) = bytes.split_at(lanes * size_of::<Sampled>());
        let sampled: Vec<Sampled> = bytemuck::pod_collect_to_vec(sampled);
        let (logits, watched) = rest.split_at(self.logits_bytes(progress.request));
        let logits: Vec<f32> = bytemuck::pod_collect_to_vec(logits);
        let mut logits = logits.chunks(self.model.config().vocab_size);
        let watch = progress.watch.filter(|_| step.pass);
        let features = watch.map(|watch| watch.read(watched, lanes));
        let mut features = features.into_iter().flatten().map(Rc::new);
        for (lane, speaker) in progress.speakers.iter_mut().enumerate() {
            let features = features.next();
            let logits = logits.next();
            let one = sampled[lane];
            if speaker.done.is_some() || one.idle() {
                continue;
            }
            if one.not_finite() {
                return Err(GenerateError::NotFinite {
                    lane,
                    step: speaker.said.len(),
                });
            }
            // The step has read the token said before: it is in the cache now.
            if let Some(waiting) = speaker.waiting.take() {
                let own = &mut self.lanes[lane];
                own.held.truncate(speaker.prompt + speaker.said.len() - 1);
                own.push(Held {
                    token: waiting.token,
                    under: step.under[lane],
                    features: features.clone(),
                });
                tell(waiting.told(lane, features));
            }
            stats.generated += 1;
            speaker.said.push(one.token);
            if one.stopped() {
                speaker.done = Some(DoneReason::Stop);
            } else {
                let text = speaker.detokenizer.push(one.token);
                speaker.text += &text;
                let asked = progress.request.logprobs;
                speaker.waiting = Some(Waiting {
                    token: one.token,
                    text,
                    logprobs: logits
                        .zip(asked)
                        .map(|(logits, most)| Logprobs::of(logits, one.token, most)),
                    written: step.written[lane],
                });
            }
        }
        Ok(())
    }

    /// A lane's answer has ended: tells the rest, and keeps what the next turn needs.
    fn end(
        &mut self,
        lane: usize,
        mut speaker: Speaker,
        prompt: &Prompt,
        ended: DoneReason,
        tell: &mut dyn FnMut(Event),
    ) {
        // What is certain to be in the cache: the last token was not read.
        let certain = speaker.prompt + speaker.said.len().saturating_sub(1);
        self.lanes[lane].held.truncate(certain);
        if let Some(waiting) = speaker.waiting.take() {
            tell(waiting.told(lane, None));
        }
        let reason = speaker.done.unwrap_or(ended);
        if reason == DoneReason::Stop {
            speaker.said.pop();
        }
        let text = speaker.detokenizer.finish();
        tell(Event::Done {
            lane,
            reason,
            text: text.clone(),
            tokens: speaker.said.len(),
        });
        let whole = speaker.text + &text;
        self.said.remember(lane, &prompt.ids, whole, speaker.said);
    }
}

impl Waiting {
    /// The event of the token.
    fn told(self, lane: usize, features: Option<Rc<TokenFeatures>>) -> Event {
        Event::Token {
            lane,
            token: self.token,
            text: self.text,
            features,
            logprobs: self.logprobs,
            steered: self.written.steered,
            setting: self.written.setting,
        }
    }
}
