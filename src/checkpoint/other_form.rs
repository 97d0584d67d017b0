//! Models in forms that are not read, known by the files that only they have.

use super::{Folder, SourceError};

/// A model in a form that is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherForm {
    /// The file that shows it.
    pub file: String,
    /// What it is, and what to do.
    pub what: &'static str,
}

const MLC: &str = "part of a model compiled for MLC or WebLLM, whose weights are of no use elsewhere: get \
                   the model as .safetensors or .gguf";
const LORA: &str = "part of an adapter (LoRA), the changes to a model without the model: merge it into the \
                    model that it was trained on (in Python: peft's merge_and_unload, then save_pretrained)";
const ONNX: &str = "part of a model for ONNX, which is a program and not weights alone: get the model as \
                    .safetensors or .gguf";
const PYTORCH: &str = "a PyTorch file, which is a program as much as it is data, and is not read: get the \
                       model as .safetensors or .gguf, or convert it (in Python: load it with \
                       transformers, then save_pretrained(..., safe_serialization=True))";
const OTHER: &str = "part of a model for another framework: get the model as .safetensors or .gguf";

/// Files by their full names, the surest first, and whether they are worth a request where files cannot be
/// listed.
const NAMES: [(&str, &str, bool); 12] = [
    ("mlc-chat-config.json", MLC, true),
    ("ndarray-cache.json", MLC, false),
    ("tensor-cache.json", MLC, false),
    ("adapter_config.json", LORA, true),
    ("adapter_model.safetensors", LORA, false),
    ("adapter_model.bin", LORA, false),
    ("genai_config.json", ONNX, true),
    ("pytorch_model.bin.index.json", PYTORCH, true),
    ("pytorch_model.bin", PYTORCH, true),
    ("onnx/model.onnx", ONNX, true),
    ("openvino_model.xml", OTHER, false),
    ("flax_model.msgpack", OTHER, false),
];

/// Files by the ends of their names.
const ENDS: [(&str, &str); 11] = [
    (".onnx", ONNX),
    (".onnx_data", ONNX),
    (".bin", PYTORCH),
    (".pt", PYTORCH),
    (".pth", PYTORCH),
    (".ckpt", PYTORCH),
    (".h5", OTHER),
    (".msgpack", OTHER),
    (".tflite", OTHER),
    (".task", OTHER),
    (".pte", OTHER),
];

/// The form of the model in a folder that holds none in a form that is read, if it is known.
pub async fn other_form(folder: &Folder) -> Result<Option<OtherForm>, SourceError> {
    let form = |file: &str, what| {
        let file = file.into();
        Ok(Some(OtherForm { file, what }))
    };
    let Some(mut paths) = folder.paths() else {
        for (name, what, asked) in NAMES {
            if asked && folder.open(name).await?.is_some() {
                return form(name, what);
            }
        }
        return Ok(None);
    };
    // Other folders in it are other things, as a dictionary's.
    paths.retain(|path| !path.contains('/') || path.starts_with("onnx/"));
    let same = |path: &&String, name: &str| path.eq_ignore_ascii_case(name);
    for (name, what, _) in NAMES {
        if let Some(path) = paths.iter().find(|path| same(path, name)) {
            return form(path, what);
        }
    }
    for (end, what) in ENDS {
        let ends = |path: &&String| path.to_ascii_lowercase().ends_with(end);
        if let Some(path) = paths.iter().find(ends) {
            return form(path, what);
        }
    }
    Ok(None)
}
