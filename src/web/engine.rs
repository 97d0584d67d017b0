//! The `Engine` class.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::prelude::*;

use super::answer::{Home, Job, Loan, Report};
use super::error::WebError;
use super::lab::Desk;
use super::load::load;
use super::options;
use super::request::{self, ChatSettings};
use super::types::*;
use crate::generate::{Chat, ChatRequest, Event, FeatureWish, GenerateError, Sampling, self_test};
use crate::gpu::{Gpu, Reduction};
use crate::phi3::MAX_ROWS;
use crate::sae::{HookPoint, MAX_K, SelfTest};
use crate::steering::SteeringError;
use crate::tokens::{ChatTokenizer, Message, Prompt, Role, TokenRole};

/// A model on the GPU that chats, steered lane by lane.
#[wasm_bindgen]
pub struct Engine {
    pub(super) home: Rc<Home>,
    gpu: Rc<Gpu>,
    tokenizer: Rc<ChatTokenizer>,
    pub(super) cancel: Rc<Cell<bool>>,
    pub(super) desk: Desk,
    pub(super) info: Info,
    /// Whether another engine has the GPU.
    forked: bool,
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model, and a dictionary if one is named.
    #[wasm_bindgen(js_name = load)]
    pub async fn load(options: LoadOptions) -> Result<Engine, JsValue> {
        console_error_panic_hook::set_once();
        let loaded = load(options.as_ref()).await?;
        let info = info(&loaded.chat, loaded.name, loaded.left_out);
        let chat = loaded.chat;
        Ok(Engine {
            gpu: chat.model().gpu().clone(),
            tokenizer: chat.tokenizer().clone(),
            home: Home::new(chat),
            cancel: Rc::default(),
            desk: Desk::default(),
            info,
            forked: false,
        })
    }

    /// A second engine of the same weights and dictionary, which stay on the GPU once, with `lanes` lanes of its
    /// own: none is steered, the directions are there, and this engine's conversations stay as they are. To
    /// dispose of it frees what it took; this one's end is its end too.
    pub async fn fork(
        &self,
        #[wasm_bindgen(unchecked_param_type = "number")] lanes: JsValue,
    ) -> Result<Engine, JsValue> {
        let lanes = options::whole(&lanes, "lanes", 1..=MAX_ROWS as u32)?;
        let mut loan = self.take()?;
        let fork = loan.chat()?.fork(lanes as usize).await;
        let chat = fork.map_err(WebError::from)?;
        Ok(Engine {
            gpu: self.gpu.clone(),
            tokenizer: self.tokenizer.clone(),
            info: info(
                &chat,
                self.info.model.name.clone(),
                self.info.adapter.left_out,
            ),
            home: Home::new(chat),
            cancel: Rc::default(),
            desk: Desk::beside(&self.desk),
            forked: true,
        })
    }

    /// What was loaded, and on what it runs.
    #[wasm_bindgen(getter)]
    pub fn info(&self) -> Result<InfoObject, JsValue> {
        Ok(to_js(&self.info)?.unchecked_into())
    }

    /// Answers the conversations of all lanes; the events as they happen.
    pub fn chat(&self, options: ChatOptions) -> Result<ChatEvents, JsValue> {
        let settings = ChatSettings::read(options.as_ref())?;
        for (lane, messages) in settings.lanes.iter().enumerate() {
            let says = |m: &Message| m.role == Role::User && !m.content.trim().is_empty();
            if !messages.last().is_some_and(says) {
                return Err(WebError::from(GenerateError::EmptyPrompt { lane }).into());
            }
        }
        let mut loan = self.take()?;
        let mut prompts = Vec::with_capacity(settings.lanes.len());
        for (lane, messages) in settings.lanes.iter().enumerate() {
            let prompt = loan.chat()?.prompt(lane, messages);
            prompts.push(prompt.map_err(WebError::from)?);
        }
        let features = settings.track.or_else(|| {
            let hook = self.hook().filter(|_| settings.top_features > 0)?;
            Some(FeatureWish { hook, track: None })
        });
        let job = Job {
            loan,
            tokenizer: self.tokenizer.clone(),
            prompts,
            max_tokens: settings.max_tokens,
            sampling: settings.sampling,
            features,
            report: Report {
                feature: settings.track.and_then(|wish| wish.track),
                top: settings.top_features,
            },
            logprobs: settings.logprobs,
            cancel: self.cancel.clone(),
            turns: self.desk.turns.clone(),
        };
        Ok(job.stream()?.unchecked_into())
    }

    /// Replaces a lane's interventions, from the next token on; an empty list turns steering off. Returns
    /// the setting's number, which the tokens written under it carry.
    #[wasm_bindgen(js_name = setSteering)]
    pub fn set_steering(
        &self,
        #[wasm_bindgen(unchecked_param_type = "number")] lane: JsValue,
        interventions: Interventions,
    ) -> Result<f64, JsValue> {
        self.alive()?;
        let interventions = request::interventions(interventions.as_ref())?;
        let lane = options::whole(&lane, "lane", 0..=u32::MAX)?;
        let steering = self.home.steering()?;
        let setting = steering.set(lane as usize, &interventions);
        Ok(setting.map_err(WebError::from)? as f64)
    }

    /// Gives a lane a gate, from its next answer on, or takes it away.
    #[wasm_bindgen(js_name = setGate)]
    pub fn set_gate(
        &self,
        #[wasm_bindgen(unchecked_param_type = "number")] lane: JsValue,
        gate: GateOrNone,
    ) -> Result<(), JsValue> {
        self.alive()?;
        let lane = options::whole(&lane, "lane", 0..=u32::MAX)?;
        let value: &JsValue = gate.as_ref();
        let gate = match value.is_undefined() || value.is_null() {
            true => None,
            false => Some(request::gate(value)?),
        };
        let set = self.home.steering()?.set_gate(lane as usize, gate);
        Ok(set.map_err(WebError::of_gate)?)
    }

    /// Makes `values`, as many numbers as the residual stream is wide, a direction that interventions at
    /// `hook` can name, in place of one of that name.
    #[wasm_bindgen(js_name = addDirection)]
    pub fn add_direction(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string")] hook: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] name: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Float32Array | number[]")] values: JsValue,
    ) -> Result<(), JsValue> {
        self.alive()?;
        let hook = request::hook(&options::text(&hook, "hook")?, "hook")?;
        let name = options::text(&name, "name")?;
        let values = options::numbers(&values, "values", request::WIDEST)?;
        let added = self.home.steering()?.add_direction(hook, &name, values);
        Ok(added.map_err(WebError::from)?)
    }

    /// The `k` strongest features at each token of `text`, at the hook point `hook`.
    #[wasm_bindgen(js_name = topFeatures)]
    pub async fn top_features(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string")] text: JsValue,
        #[wasm_bindgen(unchecked_param_type = "string")] hook: JsValue,
        #[wasm_bindgen(unchecked_param_type = "number")] k: JsValue,
    ) -> Result<TokenFeaturesObject, JsValue> {
        let text = request::bounded_text(&text, "text")?;
        let hook = request::hook(&options::text(&hook, "hook")?, "hook")?;
        let top = options::whole(&k, "k", 0..=MAX_K as u32)? as usize;
        let mut prompt = Prompt::default();
        if let Some(bos) = self.tokenizer.bos() {
            prompt.ids.push(bos);
            prompt.roles.push(TokenRole::Bos);
        }
        let ids = self.tokenizer.encode(&text).map_err(WebError::from)?;
        prompt.ids.extend(ids);
        prompt.roles.resize(prompt.ids.len(), TokenRole::Prompt);
        let steering = self.home.steering()?;
        if steering.hook(hook).is_none() {
            let loaded = steering.loaded();
            return Err(WebError::from(SteeringError::UnknownHook { hook, loaded }).into());
        }
        let mut loan = self.take()?;
        let report = Report { feature: None, top };
        let request = ChatRequest {
            prompts: &[prompt],
            max_tokens: 0,
            sampling: Sampling::default(),
            features: Some(FeatureWish { hook, track: None }),
            logprobs: None,
            cancel: self.cancel.clone(),
        };
        let mut tokens = Vec::new();
        let mut read = false;
        let mut hear = |event| {
            if let Event::Prompt { tokens: all, .. } = event {
                let told = |token| report.of_prompt(token, &self.tokenizer);
                tokens = all.iter().map(told).collect();
                read = true;
            }
        };
        let turn = self.desk.turns.take().await;
        let run = loan.chat()?.run(&request, &mut hear).await;
        drop(turn);
        run.map_err(WebError::from)?;
        if !read {
            return Err(WebError::new("cancelled", "reading the text was cancelled").into());
        }
        Ok(to_js(&TokenFeatures { tokens })?.unchecked_into())
    }

    /// Whether the dictionary fits the model, measured on a built-in text. What the lanes' caches hold is
    /// read again with the next answer. [`Engine::cancel`] stops it, with the code "cancelled".
    #[wasm_bindgen(js_name = testSae)]
    pub async fn test_sae(&self) -> Result<SelfTestObject, JsValue> {
        let mut loan = self.take()?;
        let _turn = self.desk.turns.take().await;
        let test = fit(loan.chat()?, &self.tokenizer, &self.cancel).await?;
        Ok(to_js(&test)?.unchecked_into())
    }

    /// What the engine takes of the machine's memory now.
    pub fn memory(&self) -> Result<MemoryObject, JsValue> {
        let memory = Memory {
            gpu_bytes: self.gpu.live_bytes() as f64,
            heap_bytes: heap_bytes(),
        };
        Ok(to_js(&memory)?.unchecked_into())
    }

    /// Stops the answer under way within one token.
    pub fn cancel(&self) {
        self.cancel.set(true);
    }

    /// Frees the GPU, or what a fork takes of it; the engine cannot be used after.
    pub fn dispose(&self) {
        self.cancel.set(true);
        self.desk.cancel.set(true);
        self.home.close();
        if !self.forked {
            self.gpu.destroy();
        }
    }
}

impl Engine {
    pub(super) fn alive(&self) -> Result<(), WebError> {
        self.home.steering()?;
        Ok(self.gpu.check()?)
    }

    /// Takes the chat for an answer.
    pub(super) fn take(&self) -> Result<Loan, WebError> {
        self.alive()?;
        let loan = self.home.lend()?;
        self.cancel.set(false);
        Ok(loan)
    }

    fn hook(&self) -> Option<HookPoint> {
        self.info.sae.as_ref().and_then(|s| s.hook.parse().ok())
    }
}

/// Bytes of wasm's memory, which never shrinks.
fn heap_bytes() -> f64 {
    (std::arch::wasm32::memory_size::<0>() << 16) as f64
}

/// The self-test of the chat's dictionary.
async fn fit(
    chat: &mut Chat,
    tokenizer: &ChatTokenizer,
    cancel: &Cell<bool>,
) -> Result<SelfTest, WebError> {
    let (model, steering) = chat.model_and_steering();
    let point = steering.points().first().copied();
    let Some(hook) = point.and_then(|point| steering.hook(point)) else {
        return Err(WebError::new("bad-request", "no dictionary is loaded"));
    };
    Ok(self_test(model, hook.dictionary(), tokenizer, None, cancel).await?)
}

fn info(chat: &Chat, name: String, left_out: Option<&'static str>) -> Info {
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
            left_out,
        },
        lanes: model.lanes(),
        heap_bytes: heap_bytes(),
        sae: chat.steering().points().first().and_then(|&point| {
            let dictionary = chat.steering().hook(point)?.dictionary();
            Some(SaeInfo {
                hook: point.to_string(),
                features: dictionary.latents(),
                k: dictionary.k(),
                kind: dictionary.kind(),
                activations: dictionary.rule().activations.name(),
                stored: dictionary.format().name(),
            })
        }),
    }
}
