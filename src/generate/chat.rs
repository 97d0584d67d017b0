//! Chat: conversations in lanes, answered in lockstep.

use std::cell::Cell;
use std::rc::Rc;

use web_time::Instant;

use super::ahead::Ahead;
use super::lane::LaneCache;
use super::said::Said;
use super::{DoneReason, Event, GenerateError, Sampler, Sampling, Stats};
use crate::phi3::{Model, ModelError};
use crate::sae::HookPoint;
use crate::steering::{Hook, Steering, SteeringError, Watch};
use crate::tokens::{ChatTokenizer, Message, Prompt};

/// Which features to report with every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureWish {
    /// The dictionary's hook point.
    pub hook: HookPoint,
    /// A feature whose activation is wanted even where others fill the list of the strongest.
    pub track: Option<u32>,
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
    /// Report with every token how likely it was, and so many of the likeliest in its place; up to
    /// [`MOST_ALTERNATIVES`](super::MOST_ALTERNATIVES). All logits are read back for it.
    pub logprobs: Option<usize>,
    /// Set to stop within one token, or within two chunks of a long prompt.
    pub cancel: Rc<Cell<bool>>,
}

/// A model with its tokenizer, steering and the conversations in its cache.
pub struct Chat {
    pub(super) model: Model,
    pub(super) tokenizer: Rc<ChatTokenizer>,
    pub(super) steering: Rc<Steering>,
    pub(super) sampler: Sampler,
    pub(super) lanes: Vec<LaneCache>,
    pub(super) said: Said,
    pub(super) ahead: Ahead,
}

impl Chat {
    /// A chat without history.
    pub async fn new(
        model: Model,
        tokenizer: Rc<ChatTokenizer>,
        steering: Steering,
    ) -> Result<Self, GenerateError> {
        let sampler = Sampler::new(&model)?;
        model.gpu().settle().await?;
        let lanes = (0..model.lanes()).map(|_| LaneCache::default()).collect();
        Ok(Self {
            model,
            tokenizer,
            steering: Rc::new(steering),
            sampler,
            lanes,
            said: Said::default(),
            ahead: Ahead::new(),
        })
    }

    /// A chat without history of the same weights and dictionaries, in `lanes` lanes of its own, none of
    /// which is steered; see [`Model::fork`].
    pub async fn fork(&self, lanes: usize) -> Result<Self, GenerateError> {
        let model = self.model.fork(lanes).await?;
        let steering = self.steering.fork(&model).await?;
        Self::new(model, self.tokenizer.clone(), steering).await
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Rc<ChatTokenizer> {
        &self.tokenizer
    }

    /// The steering; what is set takes effect with the next pass that is submitted: the next token of an
    /// answer, or the next chunk of a prompt. What the cache holds of before is read again by the next
    /// prompt that needs it.
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
        self.lanes.iter_mut().for_each(LaneCache::forget);
    }

    /// The tokens of a conversation in `lane`, ready for an answer. Messages that this chat has said, in
    /// the same conversation, are in the very tokens that were said.
    pub fn prompt(&self, lane: usize, messages: &[Message]) -> Result<Prompt, GenerateError> {
        Ok(self.said.prompt(&self.tokenizer, lane, messages)?)
    }

    /// Answers the conversations of `request`, telling `tell` what happens as it happens. After an
    /// error or a cancel the chat is as usable as before.
    pub async fn run(
        &mut self,
        request: &ChatRequest<'_>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Stats, GenerateError> {
        self.check(request)?;
        let steering = self.steering.clone();
        let watch = match request.features {
            Some(wish) => Some(Watch::new(hook_at(&steering, wish.hook)?, wish.track)?),
            None => None,
        };
        let result = self.answer(request, watch.as_ref(), tell).await;
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
                return Err(GenerateError::Model(ModelError::ContextFull {
                    tokens: prompt.ids.len() + 1,
                    context: self.model.context(),
                }));
            }
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        request: &ChatRequest<'_>,
        watch: Option<&Watch<'_>>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Stats, GenerateError> {
        let longest = request.prompts.iter().map(|p| p.ids.len()).max();
        let longest = longest.unwrap_or(0);
        if self.model.reach(longest) {
            self.reset();
        }
        self.model.reserve(longest + 1).await?;
        let mut stats = Stats::default();
        let started = Instant::now();
        let read = self.decide(request, tell).await?
            && self.read_prompts(request, watch, &mut stats, tell).await?;
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
        self.decode(request, watch, &mut stats, tell).await?;
        stats.decode = started.elapsed();
        Ok(stats)
    }
}

/// The hook whose features are to be shown.
fn hook_at(steering: &Steering, point: HookPoint) -> Result<&Hook, SteeringError> {
    steering
        .hook(point)
        .ok_or_else(|| SteeringError::UnknownHook {
            hook: point,
            loaded: steering.loaded(),
        })
}
