//! Training dictionaries in pages.

use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_time::Instant;

use super::engine::Engine;
use super::error::WebError;
use super::lab::Seat;
use super::options::{self, Options};
use super::request;
use super::types::{TrainOptions, TrainedObject, to_js};
use crate::generate::{Chat, Sampling};
use crate::phi3::{MAX_ROWS, Model, ModelError};
use crate::sae::HookPoint;
use crate::tokens::{Message, read_prompts};
use crate::train::{
    Card, Control, Data, Harvest, Made, Measured, Progress, Reading, Ring, Settings, Sources,
    Times, TrainError, Trainer, Training, Writing, Written, zip,
};

/// Sequences that run at once, where the request does not say.
const LANES: u32 = 16;
/// Bytes of the vectors that steps are drawn from, at most: they lie in the engine's own memory.
const RING: usize = 64 << 20;
/// Lists of each kind, and beginnings of replies, at most.
const LISTS: u32 = 256;
/// Characters of all lists at most.
const TEXT: usize = 64 << 20;

/// What a listener is told.
#[derive(Serialize)]
#[serde(
    tag = "stage",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum TrainEvent {
    /// Replies were written.
    Writing { done: usize, total: usize },
    /// Vectors came.
    Harvest { done: f64, total: f64 },
    /// Steps were taken.
    Training {
        done: usize,
        total: usize,
        unexplained: f64,
        dead: usize,
    },
    /// The last step was taken.
    Measuring { done: usize, total: usize },
}

/// `TrainOptions`
struct Request {
    hook: HookPoint,
    sources: Sources,
    reading: Reading,
    settings: Settings,
    relative: bool,
    loss_tokens: usize,
    lanes: usize,
    how: String,
    listener: Function,
}

impl Request {
    fn read(value: &JsValue, width: usize, layers: usize) -> Result<Self, WebError> {
        let known = [
            "hook",
            "texts",
            "chats",
            "prompts",
            "openings",
            "replyTokens",
            "temperature",
            "length",
            "tokens",
            "settings",
            "relative",
            "lossTokens",
            "lanes",
            "how",
            "onEvent",
        ];
        let options = Options::new(value, "", &known)?;
        let hook = options.text("hook")?;
        let hook = hook.ok_or_else(|| options.missing("hook", "the block's, as in layers.3"))?;
        let hook = request::hook(&hook, "hook")?;
        if hook.layer >= layers {
            let layer = hook.layer;
            return Err(WebError::from(ModelError::NoBlock { layer, layers }).at("hook"));
        }
        let settings = options.value("settings");
        let settings = settings.map_or(Ok(serde_json::json!({})), |settings| {
            super::lab::json(&settings, "settings")
        })?;
        let settings =
            Settings::wished(settings, width).map_err(|e| WebError::from(e).at("settings"))?;
        let mut room = TEXT;
        let texts = lists(&options, "texts", &mut room)?;
        let conversations = |name: &str, room: &mut usize| -> Result<_, WebError> {
            let read = |(place, text): (String, String)| {
                let all = read_prompts(&place, &text)
                    .map_err(|e| WebError::new("bad-request", e.to_string()).at(name))?;
                Ok((place, all))
            };
            let all = lists(&options, name, room)?.into_iter().map(read);
            all.collect::<Result<Vec<(String, Vec<Vec<Message>>)>, WebError>>()
        };
        let chats = conversations("chats", &mut room)?;
        let prompts = conversations("prompts", &mut room)?;
        if texts.is_empty() && chats.is_empty() && prompts.is_empty() {
            return Err(
                options.missing("prompts", "a list, where there are neither texts nor chats")
            );
        }
        let openings = match options.list("openings", LISTS)? {
            None => vec![String::new()],
            Some(all) => {
                let all = all.iter().enumerate();
                let all = all.map(|(i, o)| options::text(o, &format!("openings[{i}]")));
                all.collect::<Result<_, _>>()?
            }
        };
        let sampling = Sampling {
            temperature: options.number("temperature", 0.0..=100.0)?.unwrap_or(1.0) as f32,
            ..Sampling::default()
        };
        let whole = |name: &str, least: u32, usual: u32| -> Result<usize, WebError> {
            let value = options.whole(name, least..=u32::MAX)?;
            Ok(value.unwrap_or(usual) as usize)
        };
        let lanes = options.whole("lanes", 1..=MAX_ROWS as u32)?;
        Ok(Self {
            hook,
            sources: Sources {
                texts,
                chats,
                prompts,
                openings,
            },
            reading: Reading {
                length: whole("length", 2, 128)?,
                most: options.whole("tokens", 1..=u32::MAX)?.map(u64::from),
                writing: Writing {
                    tokens: whole("replyTokens", 1, 48)?,
                    sampling,
                },
                seed: settings.seed,
            },
            settings,
            relative: options.flag("relative")?.unwrap_or(false),
            loss_tokens: whole("lossTokens", 1, 1024)?,
            lanes: lanes.unwrap_or(LANES) as usize,
            how: options
                .text("how")?
                .unwrap_or_else(|| "trained in a page".into()),
            listener: options.function("onEvent")?,
        })
    }

    fn tell(&self, event: &TrainEvent) {
        if let Ok(event) = to_js(event) {
            // What a listener throws is its own affair.
            let _ = self.listener.call1(&JsValue::NULL, &event);
        }
    }

    /// The text, with what the model wrote.
    async fn gather(&self, chat: &mut Chat, control: &Control) -> Result<Data, TrainError> {
        let written = Written {
            before: Vec::new(),
            keep: &mut |all, total| {
                let done = all.len();
                self.tell(&TrainEvent::Writing { done, total });
                Ok(())
            },
        };
        Data::gather(&self.sources, &self.reading, chat, written, control).await
    }

    /// Trains on it; with the share of variance that each step left unexplained.
    async fn train(
        &self,
        model: &mut Model,
        data: &Data,
        capacity: u64,
        control: &Control,
        times: &mut Times,
    ) -> Result<(Trainer, Vec<(usize, f64)>), TrainError> {
        let gpu = model.gpu().clone();
        let mut ring = Ring::memory(model.config().hidden_size, capacity);
        let sequences = data.sequences.clone();
        let mut harvest = Harvest::new(model, self.hook.layer, sequences, 0).await?;
        let training = Training {
            settings: &self.settings,
            ring: &mut ring,
            harvest: Some(&mut harvest),
            control,
        };
        let (mut last, mut curve) = (Instant::now(), Vec::new());
        let mut tell = |progress: Progress| {
            let spent = last.elapsed();
            last = Instant::now();
            match progress {
                Progress::Harvested { came, total } => {
                    times.harvest += spent;
                    let (done, total) = (came as f64, total as f64);
                    self.tell(&TrainEvent::Harvest { done, total });
                }
                Progress::Stepped { taken, step } => {
                    times.training += spent;
                    curve.push((taken, step.loss));
                    self.tell(&TrainEvent::Training {
                        done: taken,
                        total: self.settings.steps,
                        unexplained: step.loss,
                        dead: step.dead,
                    });
                }
            }
        };
        let mut keep = |_: &_| Ok(());
        let trainer = training.run(&gpu, None, &mut keep, &mut tell).await?;
        Ok((trainer, curve))
    }
}

/// The lists of member `name`: names and texts.
fn lists(
    options: &Options,
    name: &str,
    room: &mut usize,
) -> Result<Vec<(String, String)>, WebError> {
    let all = options.list(name, LISTS)?.unwrap_or_default();
    let read = |(i, list): (usize, &JsValue)| {
        let list = Options::new(list, &format!("{name}[{i}]"), &["name", "text"])?;
        let called = list.text("name")?;
        let called = called.ok_or_else(|| list.missing("name", "what the card calls it"))?;
        let text = list.text("text")?;
        let text = text.ok_or_else(|| list.missing("text", "the text of the file"))?;
        *room = room.checked_sub(text.len()).ok_or_else(|| {
            let message = format!("{name} and what came before have more than {TEXT} bytes");
            WebError::new("bad-request", message).at(name)
        })?;
        Ok((called, text))
    };
    all.iter().enumerate().map(read).collect()
}

#[wasm_bindgen]
impl Engine {
    /// Trains a TopK dictionary of a block's output on text, chats, and what the model itself replies to prompts,
    /// on lanes of its own beside the chat's. An answer that is asked for meanwhile waits for the batch or step under
    /// way. [`Engine::cancel_lab`] ends it, with the code "cancelled"; [`Engine::finish_training`] ends it and keeps
    /// what came of it.
    #[wasm_bindgen(js_name = trainDictionary)]
    pub async fn train_dictionary(&self, options: TrainOptions) -> Result<TrainedObject, JsValue> {
        let (width, layers) = (self.info.model.hidden, self.info.model.layers);
        let request = Request::read(options.as_ref(), width, layers)?;
        self.alive()?;
        let seat = Seat::take(&self.desk)?;
        let control = Control {
            cancel: self.desk.cancel.clone(),
            finish: self.desk.finish.clone(),
            turns: self.desk.turns.clone(),
        };
        let mut chat = self.lab_chat(request.lanes).await?;
        request.tell(&TrainEvent::Writing { done: 0, total: 0 });
        let trained = trained(&request, &mut chat, &self.info.model.name, &control).await;
        drop(seat);
        let (told, files, archive) = trained.map_err(WebError::from)?;
        let trained = to_js(&told)?;
        Reflect::set(&trained, &"files".into(), &files)?;
        Reflect::set(&trained, &"archive".into(), &archive)?;
        Ok(trained.unchecked_into())
    }

    /// Ends the training after the step under way and keeps what came of it: after the first one, if none was
    /// taken yet.
    #[wasm_bindgen(js_name = finishTraining)]
    pub fn finish_training(&self) {
        self.desk.finish.set(true);
    }
}

/// What a page is told of a dictionary.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    hook: HookPoint,
    steps: usize,
    fvu: f64,
    l0: f64,
    loss_recovered: f64,
    seconds: f64,
    figures: Vec<String>,
}

async fn trained(
    request: &Request,
    chat: &mut Chat,
    model_name: &str,
    control: &Control,
) -> Result<(Told, Array, Uint8Array), TrainError> {
    let mut times = Times::default();
    let begun = Instant::now();
    let data = request.gather(chat, control).await?;
    times.writing = begun.elapsed();
    let (model, _) = chat.model_and_steering();
    let (settings, width) = (&request.settings, model.config().hidden_size);
    let capacity = (RING / (4 * width)) as u64;
    let (trainer, curve) = request
        .train(model, &data, capacity, control, &mut times)
        .await?;
    request.tell(&TrainEvent::Measuring { done: 0, total: 1 });
    let started = Instant::now();
    let made = Made::of(&trainer, request.hook, request.relative, true).await?;
    let (hook, most) = (request.hook, request.loss_tokens);
    let measured = Measured::of(&made.files, model, hook, &data.held, most, control).await?;
    times.measuring = started.elapsed();
    let card = Card {
        model: model_name,
        how: &request.how,
        hook,
        width,
        settings,
        relative: request.relative,
        ring: capacity,
        data: &data,
        made: &made,
        measured: &measured,
        curve: &curve,
        times,
    };
    let files = card.files();
    let told = Told {
        hook,
        steps: made.taken,
        fvu: measured.fit.fvu,
        l0: measured.fit.l0,
        loss_recovered: measured.in_loop.recovered(),
        seconds: begun.elapsed().as_secs_f64(),
        figures: card.figures(),
    };
    let archive = zip(&hook.to_string(), &files)?;
    Ok((
        told,
        files.iter().map(file).collect(),
        Uint8Array::from(&archive[..]),
    ))
}

/// A file as `{ name, bytes }`.
fn file((name, bytes): &(&str, Vec<u8>)) -> JsValue {
    let file = Object::new();
    let members = [
        ("name", JsValue::from_str(name)),
        ("bytes", Uint8Array::from(&bytes[..]).into()),
    ];
    for (name, value) in members {
        // A plain object takes every member.
        let _ = Reflect::set(&file, &name.into(), &value);
    }
    file.into()
}
