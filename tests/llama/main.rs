//! Models of the architecture `llama`, as they are published: unfused, with rows turned in GGUF files, the
//! parts of one matrix stored differently.
#![cfg(not(target_arch = "wasm32"))]

#[path = "../support/gguf.rs"]
mod gguf;
mod huggingface;
mod precision;
mod published;
mod small_model;
#[path = "../support/mod.rs"]
mod support;

use std::rc::Rc;

use phi3_steer::checkpoint::Folder;
use phi3_steer::generate::{TraceRequest, Traced, bare_prompt, trace};
use phi3_steer::gpu::{Gpu, GpuOptions};
use phi3_steer::phi3::{CacheFormat, MAX_ROWS, Model, ModelFiles, ModelOptions, Precision};
use phi3_steer::steering::Steering;
use pollster::block_on;

/// The model of a folder, its cache in f32.
pub fn load(folder: &Folder, precision: impl Into<Precision>) -> Model {
    load_lanes(folder, precision, 1, None)
}

/// A model with room for so many conversations of so many tokens.
pub fn load_lanes(
    folder: &Folder,
    precision: impl Into<Precision>,
    lanes: usize,
    context: Option<usize>,
) -> Model {
    let gpu = Rc::new(block_on(Gpu::open(&GpuOptions::default())).expect("an adapter"));
    let files = block_on(ModelFiles::open(folder)).expect("a model");
    let options = ModelOptions {
        lanes,
        context,
        precision: precision.into(),
        cache: CacheFormat::F32,
    };
    let model = Model::from_checkpoint(gpu, files.config, &files.checkpoint, options);
    block_on(model).expect("loads")
}

/// The logits after every token, `[tokens][vocab]`.
pub fn logits(model: &mut Model, ids: &[u32]) -> Vec<Vec<f32>> {
    let steering = block_on(Steering::new(model, Vec::new())).expect("no dictionary");
    let mut all = Vec::new();
    let request = TraceRequest {
        prompts: &[bare_prompt(ids.to_vec(), None)],
        logits: &|_, _| true,
        residual: &[],
        chunk: MAX_ROWS,
        cancel: &std::cell::Cell::new(false),
    };
    let mut hear = |traced: Traced<'_>| {
        if let Traced::Logits { logits, .. } = traced {
            all.push(logits.to_vec());
        }
    };
    block_on(trace(model, &steering, &request, &mut hear)).expect("runs");
    all
}
