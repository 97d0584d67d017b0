//! Loading a model and its dictionary from what JavaScript gives.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::{JsCast, JsValue};

use super::error::WebError;
use super::request::LoadSettings;
use super::types::Progress;
use crate::checkpoint::Folder;
use crate::generate::Chat;
use crate::gpu::{Gpu, GpuOptions};
use crate::matrix::{Format, open_checked};
use crate::phi3::{CacheFormat, Model, ModelFiles, ModelOptions, Precision};
use crate::sae::{Dictionary, HookPoint, SaeError, Wanted};
use crate::steering::Steering;

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
        )
        .at(what)),
    }
}

/// Tells JavaScript how far loading is.
#[derive(Clone)]
struct Reporter {
    stage: Rc<Cell<&'static str>>,
    listener: Option<js_sys::Function>,
}

impl Reporter {
    /// Loading has come to `stage`.
    fn reach(&self, stage: &'static str) {
        self.stage.set(stage);
        self.tell(0, 0, "");
    }

    fn tell(&self, loaded: u64, total: u64, file: &str) {
        let Some(listener) = &self.listener else {
            return;
        };
        let progress = Progress {
            stage: self.stage.get(),
            loaded: loaded as f64,
            total: total as f64,
            file,
        };
        if let Ok(event) = serde_wasm_bindgen::to_value(&progress) {
            // What a listener throws is its own affair.
            let _ = listener.call1(&JsValue::NULL, &event);
        }
    }

    /// `folder`, with its reads reported.
    fn watch(&self, folder: Folder) -> Folder {
        let reporter = self.clone();
        folder.on_progress(move |p| reporter.tell(p.loaded, p.total, &p.file))
    }
}

/// A loaded chat, the model's name, and what the adapter could not be trusted with.
pub struct Loaded {
    pub chat: Chat,
    pub name: String,
    pub left_out: Option<&'static str>,
}

/// Loads everything that `options` (`LoadOptions`) names.
pub async fn load(options: &JsValue) -> Result<Loaded, WebError> {
    let settings = LoadSettings::read(options)?;
    let (gpu, left_out) = open_checked(&GpuOptions::default()).await?;
    let gpu = Rc::new(gpu);
    let loaded = load_onto(&gpu, options, &settings).await;
    if loaded.is_err() {
        // What is there by now would otherwise stay until JavaScript collects its garbage.
        gpu.destroy();
    }
    let (chat, name) = loaded?;
    Ok(Loaded {
        chat,
        name,
        left_out,
    })
}

/// The chat and the model's name.
async fn load_onto(
    gpu: &Rc<Gpu>,
    options: &JsValue,
    settings: &LoadSettings,
) -> Result<(Chat, String), WebError> {
    let reporter = Reporter {
        stage: Rc::default(),
        listener: member(options, "onProgress").dyn_ref().cloned(),
    };
    reporter.reach("config");
    let files = reporter.watch(folder(&member(options, "model"), "model")?);
    let parts = ModelFiles::open(&files).await?;
    reporter.reach("tokenizer");
    let tokenizer = parts.tokenizer().await?;

    reporter.reach("weights");
    let model = Model::from_checkpoint(
        gpu.clone(),
        parts.config,
        &parts.checkpoint,
        ModelOptions {
            lanes: settings.lanes,
            context: settings.context_length,
            precision: settings.precision,
            cache: match settings.precision {
                Precision::All(Format::F32) => CacheFormat::F32,
                _ => CacheFormat::F16,
            },
        },
    )
    .await?;

    reporter.reach("dictionary");
    let mut dictionaries = Vec::new();
    let sae = member(options, "sae");
    if !sae.is_undefined() && !sae.is_null() {
        let files = reporter.watch(folder(&sae, "sae")?);
        dictionaries.push(find(gpu, &files, settings.sae_hook, &model).await?);
    }

    // Compiled since the formats were known. No pass is run to warm up: a large model's would take longer
    // than what it spares the first answer.
    reporter.reach("warmup");
    let steering = Steering::new(&model, dictionaries).await?;
    let chat = Chat::new(model, Rc::new(tokenizer), steering).await?;
    gpu.finish().await?;
    let label = files.label();
    let label = label.split(['?', '#']).next().unwrap_or(label);
    let label = label.trim_end_matches('/');
    let name = label.rsplit('/').next().unwrap_or(label).to_string();
    Ok((chat, name))
}

/// The dictionary of `folder` that belongs at `hook`; one that its files put elsewhere is put there, since
/// the visitor says so.
async fn find(
    gpu: &Gpu,
    folder: &Folder,
    hook: Option<HookPoint>,
    model: &Model,
) -> Result<Dictionary, WebError> {
    let wanted = Wanted {
        hook,
        width: Some(model.config().hidden_size),
        layers: Some(model.config().num_hidden_layers),
        ..Wanted::default()
    };
    match Dictionary::find(gpu, folder, wanted).await {
        Err(SaeError::OtherHook { .. }) => {
            let place = Wanted {
                hook: None,
                place: hook,
                ..wanted
            };
            Ok(Dictionary::find(gpu, folder, place).await?)
        }
        other => Ok(other?),
    }
}
