//! The files of a model, in whatever form they come.

use super::{Config, ModelError};
use crate::checkpoint::{Checkpoint, CheckpointError, Folder, Gguf, MAX_JSON, json};
use crate::tokens::{ChatTokenizer, TokenizerFiles};

/// A model's configuration and weights, opened but not read: Hugging Face's `config.json` with
/// safetensors, the files that `phi3-steer convert` writes, or one `.gguf` file.
pub struct ModelFiles {
    /// The sizes of the model.
    pub config: Config,
    /// The weights.
    pub checkpoint: Checkpoint,
    config_json: String,
    folder: Folder,
}

impl ModelFiles {
    /// Opens the model of a folder: that of `config.json`; without one, that of its only `.gguf`
    /// file.
    pub async fn open(folder: &Folder) -> Result<Self, ModelError> {
        let (config, config_json, checkpoint) = match folder.bytes("config.json", MAX_JSON).await? {
            Some(json) => {
                let config = Config::from_json(&json)?;
                let checkpoint = Checkpoint::open(folder, "model").await;
                let checkpoint = checkpoint.map_err(|error| no_weights(folder, error))?;
                let json = json::strict(&json, json::MAX_VALUES);
                let json = json.map_err(|e| ModelError::Config(e.to_string()))?;
                let json = json.into_owned();
                (config, json, checkpoint)
            }
            None => {
                let gguf = Gguf::find(folder).await?;
                let gguf = gguf.ok_or_else(|| no_model(folder))?;
                let (config, json) = Config::from_gguf(&gguf).await?;
                (config, json, Checkpoint::from_gguf(gguf)?)
            }
        };
        Ok(Self {
            config,
            checkpoint,
            config_json,
            folder: folder.clone(),
        })
    }

    /// The tokenizer: `tokenizer.json`; without one, the vocabulary of the GGUF file.
    pub async fn tokenizer(&self) -> Result<ChatTokenizer, ModelError> {
        if let Some(gguf) = self.checkpoint.gguf()
            && self.folder.open("tokenizer.json").await?.is_none()
        {
            return Ok(ChatTokenizer::from_gguf(gguf.metadata())?);
        }
        Ok(ChatTokenizer::open(&self.folder).await?)
    }

    /// `config.json`: the file without oddities such as a byte order mark, or what it would be for the
    /// GGUF file.
    pub fn config_json(&self) -> &str {
        &self.config_json
    }

    /// The tokenizer's files as they would be for the GGUF file; `None` where these are files.
    pub fn tokenizer_files(&self) -> Result<Option<TokenizerFiles>, ModelError> {
        let gguf = self.checkpoint.gguf();
        let files = gguf.map(|gguf| TokenizerFiles::from_gguf(gguf.metadata()));
        Ok(files.transpose()?)
    }
}

/// Why there is no model in a folder.
fn no_model(folder: &Folder) -> ModelError {
    pytorch(folder).unwrap_or_else(|| ModelError::NoModel {
        folder: folder.label().into(),
    })
}

/// Why there are no weights in a folder with a configuration.
fn no_weights(folder: &Folder, error: CheckpointError) -> ModelError {
    match error {
        CheckpointError::NoWeights { .. } => pytorch(folder).unwrap_or_else(|| error.into()),
        other => other.into(),
    }
}

/// The error for a PyTorch file in a folder, if there is one.
fn pytorch(folder: &Folder) -> Option<ModelError> {
    let names = folder.names().ok().flatten()?;
    let file = names.into_iter().find(|name| {
        let name = name.to_ascii_lowercase();
        [".bin", ".pt", ".pth", ".ckpt"]
            .iter()
            .any(|end| name.ends_with(end))
    })?;
    Some(ModelError::PyTorch {
        folder: folder.label().into(),
        file,
    })
}
