//! Loading a model and its dictionary from what JavaScript gives.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::{JsCast, JsValue};

use super::error::WebError;
use super::types::{LoadSettings, Progress};
use crate::checkpoint::Folder;
use crate::generate::{Chat, ChatRequest, Sampling};
use crate::gpu::{Gpu, GpuOptions};
use crate::matrix::Format;
use crate::phi3::{CacheFormat, Model, ModelFiles, ModelOptions};
use crate::sae::{Dictionary, HookPoint, Wanted};
use crate::steering::Steering;
use crate::tokens::{Message, Role};

/// What loading has reached, for the progress events.
type Stage = Rc<Cell<&'static str>>;

/// Reads member `name` of an object.
fn member(object: &JsValue, name: &str) -> JsValue {
    js_sys::Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

/// The folder that `source` (a URL or an array of files) stands for.
fn folder(source: &JsValue, what: &str) -> Result<Folder, WebError> {
    if let Some(url) = source.as_string() {
        return Ok(Folder::url(&url));
    }
    let files: Option<Vec<web_sys::File>> = js_sys::Array::is_array(source)
        .then(|| {
            js_sys::Array::from(source)
                .iter()
                .map(JsCast::dyn_into)
                .collect()
        })
        .and_then(Result::ok);
    match files {
        Some(files) if !files.is_empty() => Ok(Folder::files(&files)),
        _ => Err(WebError::new(
            "bad-request",
            format!("{what} must be the address of a folder or a .gguf file, or a list of files"),
        )),
    }
}

/// A folder whose reads are reported to `listener`.
fn watched(folder: Folder, stage: &Stage, listener: &JsValue) -> Folder {
    let Some(listener) = listener.dyn_ref::<js_sys::Function>().cloned() else {
        return folder;
    };
    let stage = stage.clone();
    folder.on_progress(move |p| {
        let progress = Progress {
            stage: stage.get(),
            loaded: p.loaded as f64,
            total: p.total as f64,
            file: &p.file,
        };
        if let Ok(event) = serde_wasm_bindgen::to_value(&progress) {
            // What a listener throws is its own affair.
            let _ = listener.call1(&JsValue::NULL, &event);
        }
    })
}

/// A loaded chat and the model's name.
pub struct Loaded {
    pub chat: Chat,
    pub name: String,
}

/// Loads everything that `options` (`LoadOptions`) names.
pub async fn load(options: &JsValue) -> Result<Loaded, WebError> {
    let settings: LoadSettings = serde_wasm_bindgen::from_value(options.clone())
        .map_err(|e| WebError::new("bad-request", format!("load options: {e}")))?;
    let format = match settings.quant.as_deref() {
        None | Some("q4") => Format::Q4,
        Some("none") => Format::F32,
        Some(other) => {
            return Err(WebError::new(
                "bad-request",
                format!("quant is \"{other}\"; \"q4\" and \"none\" are possible"),
            ));
        }
    };
    let gpu = Rc::new(Gpu::open(&GpuOptions::default()).await?);
    let loaded = load_onto(&gpu, options, &settings, format).await;
    if loaded.is_err() {
        // What is there by now would otherwise stay until JavaScript collects its garbage.
        gpu.destroy();
    }
    loaded
}

async fn load_onto(
    gpu: &Rc<Gpu>,
    options: &JsValue,
    settings: &LoadSettings,
    format: Format,
) -> Result<Loaded, WebError> {
    let stage: Stage = Rc::new(Cell::new("config"));
    let listener = member(options, "onProgress");
    let files = watched(
        folder(&member(options, "model"), "model")?,
        &stage,
        &listener,
    );

    let parts = ModelFiles::open(&files).await?;
    stage.set("tokenizer");
    let tokenizer = parts.tokenizer().await?;

    stage.set("weights");
    let model = Model::from_checkpoint(
        gpu.clone(),
        parts.config,
        &parts.checkpoint,
        ModelOptions {
            lanes: settings.lanes.unwrap_or(2),
            context: settings.context_length,
            format,
            cache: match format {
                Format::F32 => CacheFormat::F32,
                _ => CacheFormat::F16,
            },
        },
    )
    .await?;

    stage.set("dictionary");
    let mut dictionaries = Vec::new();
    let sae = member(options, "sae");
    if !sae.is_undefined() && !sae.is_null() {
        let files = watched(folder(&sae, "sae")?, &stage, &listener);
        let hook = member(options, "saeHook").as_string();
        let wanted = Wanted {
            hook: hook.map(|h| h.parse::<HookPoint>()).transpose()?,
            width: Some(model.config().hidden_size),
            layers: Some(model.config().num_hidden_layers),
            ..Wanted::default()
        };
        dictionaries.push(Dictionary::find(gpu, &files, wanted).await?);
    }
    let steering = Steering::new(&model, dictionaries).await?;

    stage.set("warmup");
    let mut chat = Chat::new(model, Rc::new(tokenizer), steering).await?;
    warm_up(&mut chat).await?;
    let label = files.label();
    let label = label.split(['?', '#']).next().unwrap_or(label);
    let label = label.trim_end_matches('/');
    let name = label.rsplit('/').next().unwrap_or(label).to_string();
    Ok(Loaded { chat, name })
}

/// One token, so that the first answer does not pay for the driver's start.
async fn warm_up(chat: &mut Chat) -> Result<(), WebError> {
    let hello = Message {
        role: Role::User,
        content: "Hello".into(),
    };
    let prompt = chat.tokenizer().chat(&[hello], true)?;
    let request = ChatRequest {
        prompts: &[prompt],
        max_tokens: 2,
        sampling: Sampling::default(),
        features: None,
        cancel: Rc::default(),
    };
    chat.run(&request, &mut |_| {}).await?;
    chat.reset();
    Ok(())
}
