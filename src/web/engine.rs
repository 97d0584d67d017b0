//! The `Engine` class.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

use super::error::WebError;
use super::load::load;
use super::types::*;
use crate::generate::{Chat, ChatRequest, Event, FeatureWish, Sampling, Stats};
use crate::gpu::{Gpu, Reduction};
use crate::sae::{Activation, HookPoint, SelfTest};
use crate::steering::{Intervention, Steering};
use crate::tokens::{ChatTokenizer, Message, Prompt, Role, TokenRole};

/// Tokens of an answer, where the request does not say.
const MAX_TOKENS: usize = 512;

/// A model on the GPU that chats, steered lane by lane.
#[wasm_bindgen]
pub struct Engine {
    /// The chat, away while it answers.
    chat: Rc<RefCell<Option<Chat>>>,
    gpu: Rc<Gpu>,
    steering: Rc<Steering>,
    tokenizer: Rc<ChatTokenizer>,
    cancel: Rc<Cell<bool>>,
    disposed: Cell<bool>,
    info: Info,
}

fn to_js<T: Serialize>(value: &T) -> Result<JsValue, WebError> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| {
            WebError::new(
                "crashed",
                format!("an answer could not be handed over: {e}"),
            )
        })
}

fn from_js<T: serde::de::DeserializeOwned>(value: JsValue, what: &str) -> Result<T, WebError> {
    serde_wasm_bindgen::from_value(value)
        .map_err(|e| WebError::new("bad-request", format!("{what}: {e}")))
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model, and a dictionary if one is named.
    #[wasm_bindgen(js_name = load)]
    pub async fn load(options: LoadOptions) -> Result<Engine, JsValue> {
        console_error_panic_hook::set_once();
        let loaded = load(options.as_ref()).await?;
        let info = info(&loaded.chat, loaded.name, loaded.test);
        let chat = loaded.chat;
        Ok(Engine {
            gpu: chat.model().gpu().clone(),
            steering: chat.steering().clone(),
            tokenizer: chat.tokenizer().clone(),
            chat: Rc::new(RefCell::new(Some(chat))),
            cancel: Rc::default(),
            disposed: Cell::new(false),
            info,
        })
    }

    /// What was loaded, and on what it runs.
    #[wasm_bindgen(getter)]
    pub fn info(&self) -> Result<InfoObject, JsValue> {
        Ok(to_js(&self.info)?.unchecked_into())
    }

    /// Answers the conversations of all lanes; the events as they happen.
    pub fn chat(&self, options: ChatOptions) -> Result<ChatEvents, JsValue> {
        let settings: ChatSettings = from_js(options.into(), "chat options")?;
        let mut prompts = Vec::new();
        for (lane, request) in settings.lanes.iter().enumerate() {
            let last = request.messages.last();
            if !last.is_some_and(|m| m.role == Role::User && !m.content.trim().is_empty()) {
                let e = crate::generate::GenerateError::EmptyPrompt { lane };
                return Err(WebError::from(e).into());
            }
            prompts.push(self.prompt(&request.messages)?);
        }
        let track = settings.track;
        let hook = match &track {
            Some(track) => Some(track.hook.parse::<HookPoint>().map_err(WebError::from)?),
            None if settings.top_features > 0 => self.hook(),
            None => None,
        };
        let wish = Wish {
            feature: track.map(|t| t.feature),
            top: settings.top_features,
        };
        let job = Job {
            chat: self.take()?,
            home: self.chat.clone(),
            tokenizer: self.tokenizer.clone(),
            prompts,
            max_tokens: settings.max_tokens.unwrap_or(MAX_TOKENS),
            sampling: settings.sampling,
            hook,
            wish,
            cancel: self.cancel.clone(),
        };
        Ok(stream(job)?.unchecked_into())
    }

    /// Replaces a lane's interventions, from the next token on; an empty list turns steering off.
    #[wasm_bindgen(js_name = setSteering)]
    pub fn set_steering(&self, lane: usize, interventions: Interventions) -> Result<(), JsValue> {
        let interventions: Vec<Intervention> = from_js(interventions.into(), "interventions")?;
        self.alive()?;
        self.steering
            .set(lane, &interventions)
            .map_err(WebError::from)?;
        Ok(())
    }

    /// The `k` strongest features at each token of `text`, at the hook point `hook`.
    #[wasm_bindgen(js_name = topFeatures)]
    pub async fn top_features(
        &self,
        text: String,
        hook: String,
        k: usize,
    ) -> Result<TokenFeaturesObject, JsValue> {
        let hook = hook.parse::<HookPoint>().map_err(WebError::from)?;
        let mut prompt = Prompt::default();
        if let Some(bos) = self.tokenizer.bos() {
            prompt.ids.push(bos);
            prompt.roles.push(TokenRole::Bos);
        }
        for id in self.tokenizer.encode(&text).map_err(WebError::from)? {
            prompt.ids.push(id);
            prompt.roles.push(TokenRole::Prompt);
        }
        let mut chat = self.take()?;
        let mut tokens = Vec::new();
        let wish = Wish {
            feature: None,
            top: k,
        };
        let request = ChatRequest {
            prompts: &[prompt],
            max_tokens: 0,
            sampling: Sampling::default(),
            features: Some(FeatureWish { hook }),
            cancel: Rc::default(),
        };
        let tokenizer = &self.tokenizer;
        let result = chat
            .run(&request, &mut |event| {
                if let Event::Prompt { tokens: read, .. } = event {
                    let info = |t: crate::generate::PromptToken| {
                        wish.token(
                            t.token,
                            tokenizer.token_text(t.token),
                            t.features.as_deref(),
                        )
                    };
                    tokens = read.into_iter().map(info).collect();
                }
            })
            .await;
        *self.chat.borrow_mut() = Some(chat);
        result.map_err(WebError::from)?;
        Ok(to_js(&TokenFeatures { tokens })?.unchecked_into())
    }

    /// Stops the answer under way within one token.
    pub fn cancel(&self) {
        self.cancel.set(true);
    }

    /// Frees the GPU; the engine cannot be used after.
    pub fn dispose(&self) {
        self.cancel.set(true);
        self.disposed.set(true);
        self.chat.borrow_mut().take();
        self.gpu.destroy();
    }
}

impl Engine {
    fn alive(&self) -> Result<(), WebError> {
        if self.disposed.get() {
            return Err(WebError::new("not-loaded", "the engine was disposed of"));
        }
        Ok(self.gpu.check()?)
    }

    /// Takes the chat for an answer.
    fn take(&self) -> Result<Chat, WebError> {
        self.alive()?;
        let chat = self.chat.borrow_mut().take().ok_or_else(|| {
            WebError::new(
                "busy",
                "an answer is under way: wait for it, or stop it first",
            )
        })?;
        self.cancel.set(false);
        Ok(chat)
    }

    fn prompt(&self, messages: &[Message]) -> Result<Prompt, WebError> {
        Ok(self.tokenizer.chat(messages, true)?)
    }

    fn hook(&self) -> Option<HookPoint> {
        self.info.sae.as_ref().and_then(|s| s.hook.parse().ok())
    }
}

/// What to report about a token's features.
#[derive(Clone, Copy)]
struct Wish {
    feature: Option<u32>,
    top: usize,
}

impl Wish {
    fn token(&self, id: u32, text: String, features: Option<&[Activation]>) -> TokenInfo {
        TokenInfo {
            id,
            text,
            activation: self.feature.and_then(|wanted| {
                let of = |a: &&Activation| a.feature == wanted;
                Some(features?.iter().find(of).map_or(0.0, |a| a.value))
            }),
            top: features.filter(|_| self.top > 0).map(|all| {
                all.iter()
                    .take(self.top)
                    .map(|a| (a.feature, a.value))
                    .collect()
            }),
        }
    }
}

/// An answer under way.
struct Job {
    chat: Chat,
    home: Rc<RefCell<Option<Chat>>>,
    tokenizer: Rc<ChatTokenizer>,
    prompts: Vec<Prompt>,
    max_tokens: usize,
    sampling: Sampling,
    hook: Option<HookPoint>,
    wish: Wish,
    cancel: Rc<Cell<bool>>,
}

impl Job {
    /// Runs to the end, `emit` taking the events, and brings the chat home.
    async fn run(mut self, emit: &dyn Fn(&ChatEvent)) -> Result<Stats, WebError> {
        let request = ChatRequest {
            prompts: &self.prompts,
            max_tokens: self.max_tokens,
            sampling: self.sampling,
            features: self.hook.map(|hook| FeatureWish { hook }),
            cancel: self.cancel.clone(),
        };
        let (wish, tokenizer) = (self.wish, self.tokenizer.clone());
        let result = self
            .chat
            .run(&request, &mut |event| tell(event, wish, &tokenizer, emit))
            .await;
        *self.home.borrow_mut() = Some(self.chat);
        Ok(result?)
    }
}

/// Hands an event on in JavaScript's form.
fn tell(event: Event, wish: Wish, tokenizer: &ChatTokenizer, emit: &dyn Fn(&ChatEvent)) {
    match event {
        Event::Prompt {
            lane,
            tokens,
            reused,
        } => emit(&ChatEvent::Prompt {
            lane,
            tokens: tokens
                .into_iter()
                .map(|t| {
                    wish.token(
                        t.token,
                        tokenizer.token_text(t.token),
                        t.features.as_deref(),
                    )
                })
                .collect(),
            reused,
        }),
        Event::Token {
            lane,
            token,
            text,
            features,
            steered,
        } => emit(&ChatEvent::Token {
            lane,
            token: wish.token(token, text, features.as_deref()),
            steered,
        }),
        Event::Done {
            lane,
            reason: why,
            text,
            tokens,
        } => emit(&ChatEvent::Done {
            lane,
            reason: reason(why),
            text,
            tokens,
        }),
    }
}

/// The job's events as a `ReadableStream`; cancelling the stream cancels the answer.
fn stream(job: Job) -> Result<web_sys::ReadableStream, JsValue> {
    let source = js_sys::Object::new();
    let cancel = job.cancel.clone();
    let start = Closure::once_into_js(
        move |controller: web_sys::ReadableStreamDefaultController| {
            spawn_local(async move {
                let emit = |event: &ChatEvent| {
                    if let Ok(event) = to_js(event) {
                        // Fails only once the reader has cancelled, which also ends the answer.
                        let _ = controller.enqueue_with_chunk(&event);
                    }
                };
                let ended = job.run(&emit).await;
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

fn info(chat: &Chat, name: String, test: Option<SelfTest>) -> Info {
    let model = chat.model();
    let config = model.config();
    let capabilities = model.gpu().capabilities();
    Info {
        model: ModelInfo {
            name,
            layers: config.num_hidden_layers,
            hidden: config.hidden_size,
            vocab: config.vocab_size,
            context: model.context(),
            quant: model.formats().iter().map(|f| f.name()).collect(),
            parameters: config.parameters() as f64,
            gpu_bytes: model.gpu_bytes() as f64,
        },
        adapter: AdapterInfo {
            name: capabilities.name.clone(),
            backend: capabilities.backend.clone(),
            f16: capabilities.f16,
            subgroups: capabilities.reduction == Reduction::Subgroup,
            cpu: capabilities.cpu,
        },
        // wasm's memory never shrinks.
        heap_bytes: (std::arch::wasm32::memory_size::<0>() << 16) as f64,
        sae: chat.steering().points().first().and_then(|&point| {
            let dictionary = chat.steering().hook(point)?.dictionary();
            Some(SaeInfo {
                hook: point.to_string(),
                features: dictionary.latents(),
                k: dictionary.k(),
                kind: dictionary.kind(),
                activations: dictionary.rule().activations.name(),
                stored: dictionary.format().name(),
                test,
            })
        }),
    }
}
