//! An answer under way, as a stream of events.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

use super::error::WebError;
use super::types::{ChatEvent, TokenInfo, TokenLogprob, TokenLogprobs, reason, to_js};
use crate::generate::{
    Chat, ChatRequest, Event, FeatureWish, Logprobs, PromptToken, Sampling, Stats,
};
use crate::steering::{Steering, TokenFeatures};
use crate::tokens::{ChatTokenizer, Prompt};
use crate::turns::Turns;

/// Where the chat is while nobody works with it.
pub struct Home {
    chat: RefCell<Option<Chat>>,
    /// None once the engine was disposed of.
    steering: RefCell<Option<Rc<Steering>>>,
}

impl Home {
    /// The home of `chat`.
    pub fn new(chat: Chat) -> Rc<Self> {
        Rc::new(Self {
            steering: RefCell::new(Some(chat.steering().clone())),
            chat: RefCell::new(Some(chat)),
        })
    }

    /// Lends the chat; an error if it is away or gone.
    pub fn lend(self: &Rc<Self>) -> Result<Loan, WebError> {
        self.try_lend()?.ok_or_else(busy)
    }

    /// Lends the chat; none if it is away, an error if it is gone.
    pub fn try_lend(self: &Rc<Self>) -> Result<Option<Loan>, WebError> {
        self.steering()?;
        let chat = self.chat.borrow_mut().take();
        Ok(chat.map(|chat| Loan {
            chat: Some(chat),
            home: self.clone(),
        }))
    }

    /// The chat's steering, which may change while the chat is away.
    pub fn steering(&self) -> Result<Rc<Steering>, WebError> {
        let steering = self.steering.borrow().clone();
        steering.ok_or_else(|| WebError::new("not-loaded", "the engine was disposed of"))
    }

    /// Drops the chat, now or as soon as it comes home.
    pub fn close(&self) {
        self.steering.borrow_mut().take();
        self.chat.borrow_mut().take();
    }
}

fn busy() -> WebError {
    WebError::new(
        "busy",
        "an answer is under way: wait for it, or stop it first",
    )
}

/// The chat, away from home; it goes home when this is dropped, however the work has ended.
pub struct Loan {
    chat: Option<Chat>,
    home: Rc<Home>,
}

impl Loan {
    /// The chat.
    pub fn chat(&mut self) -> Result<&mut Chat, WebError> {
        self.chat.as_mut().ok_or_else(busy)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.home.steering.borrow().is_some() {
            *self.home.chat.borrow_mut() = self.chat.take();
        }
    }
}

/// What to report about a token's features.
#[derive(Clone, Copy)]
pub struct Report {
    pub feature: Option<u32>,
    pub top: usize,
}

impl Report {
    /// A token of a prompt.
    pub fn of_prompt(self, token: &PromptToken, tokenizer: &ChatTokenizer) -> TokenInfo {
        let text = tokenizer.token_text(token.token);
        self.token(token.token, text, token.features.as_deref())
    }

    fn token(self, id: u32, text: String, features: Option<&TokenFeatures>) -> TokenInfo {
        TokenInfo {
            id,
            text,
            activation: self.feature.and_then(|f| features?.activation(f)),
            top: features.filter(|_| self.top > 0).map(|features| {
                let top = features.listed().iter().take(self.top);
                top.map(|a| (a.feature, a.value)).collect()
            }),
        }
    }
}

/// An answer under way.
pub struct Job {
    pub loan: Loan,
    pub tokenizer: Rc<ChatTokenizer>,
    pub prompts: Vec<Prompt>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub features: Option<FeatureWish>,
    pub report: Report,
    /// Alternatives that are reported with every token's probability, if that is.
    pub logprobs: Option<usize>,
    pub cancel: Rc<Cell<bool>>,
    /// In which answers and the lab use the GPU.
    pub turns: Turns,
}

impl Job {
    /// Runs to the end, `emit` taking the events, and brings the chat home.
    async fn run(mut self, emit: &dyn Fn(&ChatEvent)) -> Result<Stats, WebError> {
        let request = ChatRequest {
            prompts: &self.prompts,
            max_tokens: self.max_tokens,
            sampling: self.sampling,
            features: self.features,
            logprobs: self.logprobs,
            cancel: self.cancel.clone(),
        };
        let _turn = self.turns.take().await;
        let (report, tokenizer) = (self.report, &self.tokenizer);
        let chat = self.loan.chat()?;
        let stats = chat
            .run(&request, &mut |event| emit(&told(event, report, tokenizer)))
            .await?;
        Ok(stats)
    }

    /// The events as a `ReadableStream`; cancelling the stream cancels the answer.
    pub fn stream(self) -> Result<web_sys::ReadableStream, JsValue> {
        let source = js_sys::Object::new();
        let cancel = self.cancel.clone();
        let start = Closure::once_into_js(
            move |controller: web_sys::ReadableStreamDefaultController| {
                spawn_local(async move {
                    let emit = |event: &ChatEvent| {
                        if let Ok(event) = to_js(event) {
                            // Fails only once the reader has cancelled, which also ends the answer.
                            let _ = controller.enqueue_with_chunk(&event);
                        }
                    };
                    let ended = self.run(&emit).await;
                    let _ = match ended {
                        Ok(stats) => {
                            emit(&ChatEvent::stats(&stats));
                            controller.close()
                        }
                        Err(e) => {
                            controller.error_with_e(&e.into());
                            Ok(())
                        }
                    };
                });
            },
        );
        let stop = Closure::once_into_js(move |_reason: JsValue| cancel.set(true));
        js_sys::Reflect::set(&source, &"start".into(), &start)?;
        js_sys::Reflect::set(&source, &"cancel".into(), &stop)?;
        web_sys::ReadableStream::new_with_underlying_source(&source)
    }
}

/// How likely a token was, in JavaScript's form.
fn likely(token: u32, logprobs: &Logprobs, tokenizer: &ChatTokenizer) -> TokenLogprobs {
    let one = |id: u32, logprob: f64| TokenLogprob {
        id,
        text: tokenizer.token_text(id),
        bytes: tokenizer.token_bytes(id).to_vec(),
        logprob,
    };
    TokenLogprobs {
        token: one(token, logprobs.token),
        top: logprobs.top.iter().map(|&(id, log)| one(id, log)).collect(),
    }
}

/// An event in JavaScript's form. Of a prompt it has the last message's turn: the turns before were told
/// when they were the last.
fn told(event: Event, report: Report, tokenizer: &ChatTokenizer) -> ChatEvent {
    match event {
        Event::Gate {
            lane,
            score,
            threshold,
            steered,
        } => ChatEvent::Gate {
            lane,
            score,
            threshold,
            steered,
        },
        Event::Prompt {
            lane,
            first,
            tokens,
            reused,
        } => ChatEvent::Prompt {
            lane,
            first,
            length: tokens.len(),
            tokens: tokens
                .iter()
                .skip(first)
                .map(|token| report.of_prompt(token, tokenizer))
                .collect(),
            reused,
        },
        Event::Token {
            lane,
            token,
            text,
            features,
            logprobs,
            steered,
            setting,
        } => ChatEvent::Token {
            lane,
            token: report.token(token, text, features.as_deref()),
            logprobs: logprobs.map(|logprobs| likely(token, &logprobs, tokenizer)),
            steered,
            setting: setting as f64,
        },
        Event::Done {
            lane,
            reason: why,
            text,
            tokens,
        } => ChatEvent::Done {
            lane,
            reason: reason(why),
            text,
            tokens,
        },
    }
}
