//! Chat: conversations in lanes, answered in lockstep.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use web_time::Instant;

use super::lane::{Held, LaneCache, flags};
use super::{GenerateError, Sampled, Sampler, Sampling};
use crate::gpu::Staging;
use crate::phi3::{MAX_ROWS, Model, ROW_DONE, ROW_GENERATED, Row};
use crate::sae::{Activation, HookPoint, live};
use crate::steering::Steering;
use crate::tokens::{ChatTokenizer, Detokenizer, Prompt};

/// Tokens that are computed ahead of what the host has read.
const IN_FLIGHT: usize = 3;

/// Which features to report with every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureWish {
    /// The dictionary's hook point.
    pub hook: HookPoint,
}

/// What to answer and how.
pub struct ChatRequest<'a> {
    /// The conversation of each lane, from lane 0 on; lanes beyond are left alone.
    pub prompts: &'a [Prompt],
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// How tokens are chosen, with the same draws in every lane.
    pub sampling: Sampling,
    /// Features to report with every token.
    pub features: Option<FeatureWish>,
    /// Set to stop within one token.
    pub cancel: Rc<Cell<bool>>,
}

/// A token of a prompt.
#[derive(Clone, Debug)]
pub struct PromptToken {
    /// The token.
    pub token: u32,
    /// Its active features, largest first, where they were asked for.
    pub features: Option<Vec<Activation>>,
}

/// Why a lane's answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneReason {
    /// The model said its stop token.
    Stop,
    /// The largest number of tokens was reached.
    Length,
    /// It was cancelled.
    Cancelled,
    /// The context is full.
    Context,
}

/// What happens in a chat.
#[derive(Clone, Debug)]
pub enum Event {
    /// A lane's prompt has been read.
    Prompt {
        /// The lane.
        lane: usize,
        /// The prompt.
        tokens: Vec<PromptToken>,
        /// Its leading tokens that were still in the cache.
        reused: usize,
    },
    /// A lane has said a token; its features are those of the token before it, from which it was
    /// predicted.
    Token {
        /// The lane.
        lane: usize,
        /// The token.
        token: u32,
        /// The text that it completes; empty while a character is incomplete.
        text: String,
        /// The active features at the token, largest first, where they were asked for; none at the
        /// answer's last token, which the model does not read any more.
        features: Option<Vec<Activation>>,
        /// Whether an intervention was set for the token's position.
        steered: bool,
    },
    /// A lane has ended.
    Done {
        /// The lane.
        lane: usize,
        /// Why.
        reason: DoneReason,
        /// The last characters, if the token stream broke off inside one.
        text: String,
        /// Tokens of the answer, the stop token not counted.
        tokens: usize,
    },
}

/// Counts of a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Prompt tokens that were computed, over all lanes.
    pub prefilled: usize,
    /// Prompt tokens that were still in the cache, over all lanes.
    pub reused: usize,
    /// Tokens that were generated, over all lanes, stop tokens included.
    pub generated: usize,
    /// Decode passes submitted.
    pub passes: usize,
    /// Time that reading the prompts took.
    pub prefill: Duration,
    /// Time that generating took.
    pub decode: Duration,
}

/// A lane that is answering.
struct Speaker {
    prompt: usize,
    said: Vec<u32>,
    detokenizer: Detokenizer,
    waiting: Option<(u32, String, bool)>,
    done: Option<DoneReason>,
}

/// A submitted token of all lanes.
struct Step {
    staging: Staging,
    submission: wgpu::SubmissionIndex,
    /// The steering of the token that was read in this step, per lane.
    fingerprints: Vec<u64>,
    /// Slots of a lane's list of features; 0 if none came along.
    slots: usize,
}

/// A model with its tokenizer, steering and the conversations in its cache.
pub struct Chat {
    model: Model,
    tokenizer: Rc<ChatTokenizer>,
    steering: Rc<Steering>,
    sampler: Sampler,
    lanes: Vec<LaneCache>,
}

impl Chat {
    /// A chat without history.
    pub async fn new(
        model: Model,
        tokenizer: Rc<ChatTokenizer>,
        steering: Steering,
    ) -> Result<Self, GenerateError> {
        let sampler = Sampler::new(&model).await?;
        let lanes = (0..model.lanes()).map(|_| LaneCache::default()).collect();
        Ok(Self {
            model,
            tokenizer,
            steering: Rc::new(steering),
            sampler,
            lanes,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Rc<ChatTokenizer> {
        &self.tokenizer
    }

    /// The steering; what is set takes effect with the next token.
    pub fn steering(&self) -> &Rc<Steering> {
        &self.steering
    }

    /// The model and its steering, for work beside the conversations, which are forgotten.
    pub fn model_and_steering(&mut self) -> (&mut Model, Rc<Steering>) {
        self.reset();
        (&mut self.model, self.steering.clone())
    }

    /// Forgets what the lanes hold.
    pub fn reset(&mut self) {
        self.lanes.iter_mut().for_each(|l| l.held.clear());
    }

    /// Answers the conversations of `request`, telling `tell` what happens as it happens. After an
    /// error or a cancel the chat is as usable as before.
    pub async fn run(
        &mut self,
        request: &ChatRequest<'_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Stats, GenerateError> {
        self.check(request)?;
        let hook = request.features.and_then(|f| self.steering.hook(f.hook));
        if let Some(hook) = hook {
            hook.watch(true);
        }
        let result = self.answer(request, tell).await;
        if let Some(hook) = request.features.and_then(|f| self.steering.hook(f.hook)) {
            hook.watch(false);
        }
        if result.is_err() {
            self.reset();
        }
        result
    }

    fn check(&self, request: &ChatRequest<'_>) -> Result<(), GenerateError> {
        request.sampling.check()?;
        let lanes = self.model.lanes();
        if request.prompts.len() > lanes {
            return Err(GenerateError::TooManyLanes {
                asked: request.prompts.len(),
                lanes,
            });
        }
        let vocab = self.model.config().vocab_size;
        for (lane, prompt) in request.prompts.iter().enumerate() {
            if prompt.ids.is_empty() {
                return Err(GenerateError::EmptyPrompt { lane });
            }
            if let Some(&token) = prompt.ids.iter().find(|t| **t as usize >= vocab) {
                return Err(GenerateError::ForeignToken { token, vocab });
            }
            if prompt.ids.len() >= self.model.context() {
                return Err(GenerateError::Model(crate::phi3::ModelError::ContextFull {
                    tokens: prompt.ids.len() + 1,
                    context: self.model.context(),
                }));
            }
        }
        if let Some(wish) = request.features
            && self.steering.hook(wish.hook).is_none()
        {
            return Err(crate::steering::SteeringError::UnknownHook {
                hook: wish.hook,
                loaded: "no dictionary is loaded there".into(),
            }
            .into());
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        request: &ChatRequest<'_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Stats, GenerateError> {
        let longest = request.prompts.iter().map(|p| p.ids.len()).max();
        let longest = longest.unwrap_or(0);
        if self.model.reach(longest.saturating_add(request.max_tokens)) {
            self.reset();
        }
        self.model.reserve(longest + 1).await?;
        let mut stats = Stats::default();
        let started = Instant::now();
        let read = self.prefill(request, &mut stats, tell).await?;
        stats.prefill = started.elapsed();
        if !read {
            for lane in 0..request.prompts.len() {
                let (reason, text) = (DoneReason::Cancelled, String::new());
                tell(Event::Done {
                    lane,
                    reason,
                    text,
                    tokens: 0,
                });
            }
            return Ok(stats);
        }
        let started = Instant::now();
        self.decode(request, &mut stats, tell).await?;
        stats.decode = started.elapsed();
        Ok(stats)
    }

    /// Reads the prompts, all but what the cache still holds; false if cancelled.
    async fn prefill(
        &mut self,
        request: &ChatRequest<'_>,
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<bool, GenerateError> {
        let mut rows = Vec::new();
        let mut reused = Vec::new();
        for (lane, prompt) in request.prompts.iter().enumerate() {
            let wanted: Vec<(u32, u64)> = prompt
                .ids
                .iter()
                .zip(&prompt.roles)
                .map(|(&token, &role)| (token, self.steering.fingerprint(lane, flags(role))))
                .collect();
            let keep = self.lanes[lane].reusable(&wanted, request.features.is_some());
            self.lanes[lane].held.truncate(keep);
            reused.push(keep);
            stats.reused += keep;
            for (position, (token, _)) in wanted.iter().enumerate().skip(keep) {
                rows.push(Row {
                    token: *token,
                    lane: lane as u32,
                    position: position as u32,
                    flags: flags(prompt.roles[position]),
                });
            }
        }
        for chunk in rows.chunks(MAX_ROWS) {
            if request.cancel.get() {
                return Ok(false);
            }
            let heads: Vec<(usize, usize)> = chunk
                .iter()
                .enumerate()
                .filter(|(_, r)| {
                    r.position as usize + 1 == request.prompts[r.lane as usize].ids.len()
                })
                .map(|(i, r)| (i, r.lane as usize))
                .collect();
            self.model
                .prefill(chunk, &heads, &self.steering.hooks(), &[]);
            let features = match request.features.and_then(|f| self.steering.hook(f.hook)) {
                Some(hook) => Some((
                    hook.read_features(chunk.len()).await?,
                    hook.dictionary().k(),
                )),
                None => {
                    self.model.gpu().finish().await?;
                    None
                }
            };
            for (i, row) in chunk.iter().enumerate() {
                let lane = row.lane as usize;
                self.lanes[lane].held.push(Held {
                    token: row.token,
                    fingerprint: self.steering.fingerprint(lane, row.flags),
                    features: features
                        .as_ref()
                        .map(|(all, k)| live(&all[i * k..(i + 1) * k]).to_vec()),
                });
            }
            stats.prefilled += chunk.len();
        }
        for (lane, prompt) in request.prompts.iter().enumerate() {
            let tokens = self.lanes[lane].held[..prompt.ids.len()]
                .iter()
                .map(|h| PromptToken {
                    token: h.token,
                    features: h.features.clone().filter(|_| request.features.is_some()),
                })
                .collect();
            tell(Event::Prompt {
                lane,
                tokens,
                reused: reused[lane],
            });
        }
        Ok(true)
    }

    /// Generates until every lane has ended.
    async fn decode(
        &mut self,
        request: &ChatRequest<'_>,
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), GenerateError> {
        let mut speakers = self.start(request);
        let longest = request
            .prompts
            .iter()
            .map(|p| p.ids.len())
            .max()
            .unwrap_or(0);
        let mut flying: VecDeque<Step> = VecDeque::new();
        let mut spare: Vec<Staging> = Vec::new();
        let mut submitted = 0;
        loop {
            let speaking = speakers.iter().any(|s| s.done.is_none());
            let room = longest + submitted < self.model.context();
            let more = speaking && submitted < request.max_tokens && room && !request.cancel.get();
            if more && flying.len() < IN_FLIGHT {
                if submitted > 0 {
                    self.model.reserve(longest + submitted).await?;
                }
                let step = self.submit(request, submitted, longest, spare.pop());
                flying.push_back(step);
                submitted += 1;
                stats.passes += 1;
                continue;
            }
            let Some(step) = flying.pop_front() else {
                break;
            };
            let bytes = self.read(&step).await?;
            spare.push(step.staging);
            self.hear(
                &bytes,
                &step.fingerprints,
                step.slots,
                &mut speakers,
                stats,
                tell,
            )?;
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
            self.read(&step).await?;
        }
        for (lane, mut speaker) in speakers.into_iter().enumerate() {
            self.remember(lane, &mut speaker);
            if let Some((token, text, steered)) = speaker.waiting.take() {
                tell(Event::Token {
                    lane,
                    token,
                    text,
                    features: None,
                    steered,
                });
            }
            let reason = speaker.done.unwrap_or(ended);
            let stop = usize::from(reason == DoneReason::Stop);
            tell(Event::Done {
                lane,
                reason,
                text: speaker.detokenizer.finish(),
                tokens: speaker.said.len().saturating_sub(stop),
            });
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
            detokenizer: self.tokenizer.detokenizer(),
            waiting: None,
            done: None,
        };
        request.prompts.iter().map(speaker).collect()
    }

    /// Submits step `index`: the last token's pass, except before the first token, and the next
    /// token's choice.
    fn submit(
        &self,
        request: &ChatRequest<'_>,
        index: usize,
        longest: usize,
        spare: Option<Staging>,
    ) -> Step {
        let (gpu, lanes) = (self.model.gpu(), self.model.lanes());
        let hook = request.features.and_then(|f| self.steering.hook(f.hook));
        let sampled = (lanes * size_of::<Sampled>()) as u64;
        let listed = hook.map_or(0, |h| {
            (lanes * h.dictionary().k() * size_of::<Activation>()) as u64
        });
        let staging = spare.unwrap_or_else(|| Staging::new(gpu, "tokens", sampled + listed));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        if index > 0 {
            self.model
                .decode(&mut encoder, longest + index, &self.steering.hooks());
        }
        self.sampler.record(&mut encoder);
        encoder.copy_buffer_to_buffer(self.sampler.out(), 0, staging.buffer(), 0, sampled);
        if let Some(hook) = hook.filter(|_| index > 0) {
            encoder.copy_buffer_to_buffer(hook.features(), 0, staging.buffer(), sampled, listed);
        }
        let submission = gpu.queue().submit([encoder.finish()]);
        Step {
            staging,
            submission,
            fingerprints: (0..lanes)
                .map(|lane| self.steering.fingerprint(lane, ROW_GENERATED))
                .collect(),
            slots: hook.filter(|_| index > 0).map_or(0, |h| h.dictionary().k()),
        }
    }

    async fn read(&self, step: &Step) -> Result<Vec<u8>, GenerateError> {
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
        fingerprints: &[u64],
        slots: usize,
        speakers: &mut [Speaker],
        stats: &mut Stats,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), GenerateError> {
        let lanes = self.model.lanes();
        let (sampled, listed) = bytes.split_at(lanes * size_of::<Sampled>());
        let sampled: Vec<Sampled> = bytemuck::pod_collect_to_vec(sampled);
        let listed: Vec<Activation> =
            bytemuck::pod_collect_to_vec(&listed[..lanes * slots * size_of::<Activation>()]);
        for (lane, speaker) in speakers.iter_mut().enumerate() {
            if speaker.done.is_some() || sampled[lane].idle() {
                continue;
            }
            let one = sampled[lane];
            if one.not_finite() {
                return Err(GenerateError::NotFinite {
                    lane,
                    step: speaker.said.len(),
                });
            }
            // The step has read the token said before: it is in the cache now.
            if let Some((token, text, steered)) = speaker.waiting.take() {
                let features = (slots > 0).then(|| live(&listed[lane * slots..][..slots]).to_vec());
                self.lanes[lane]
                    .held
                    .truncate(speaker.prompt + speaker.said.len() - 1);
                self.lanes[lane].held.push(Held {
                    token,
                    fingerprint: fingerprints[lane],
                    features: features.clone(),
                });
                tell(Event::Token {
                    lane,
                    token,
                    text,
                    features,
                    steered,
                });
            }
            stats.generated += 1;
            speaker.said.push(one.token);
            if one.stopped() {
                speaker.done = Some(DoneReason::Stop);
            } else {
                let text = speaker.detokenizer.push(one.token);
                speaker.waiting = Some((one.token, text, fingerprints[lane] != 0));
            }
        }
        Ok(())
    }

    /// Cuts the lane's cache to what is certain to be in it.
    fn remember(&mut self, lane: usize, speaker: &mut Speaker) {
        let certain = speaker.prompt + speaker.said.len().saturating_sub(1);
        self.lanes[lane].held.truncate(certain);
    }
}
