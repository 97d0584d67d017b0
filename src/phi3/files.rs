//! The files of a model, in whatever form they come.

use super::{Config, ModelError, tensors};
use crate::checkpoint::{
    Checkpoint, CheckpointError, Folder, Gguf, MAX_JSON, OtherForm, json, other_form,
};
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
    /// Opens the model of a folder: that of its only `.gguf` file, with what that file says of itself, or that
    /// of `config.json` and its `.safetensors`.
    pub async fn open(folder: &Folder) -> Result<Self, ModelError> {
        let (config, config_json, checkpoint) = match Gguf::find(folder).await? {
            Some(gguf) => {
                let (config, json) = Config::from_gguf(&gguf).await?;
                (config, json, Checkpoint::from_gguf(gguf)?)
            }
            None => {
                let json = folder.bytes("config.json", MAX_JSON).await?;
                let Some(json) = json else {
                    return Err(no_model(folder).await?);
                };
                let config = Config::from_json(&json)?;
                let checkpoint = match Checkpoint::open(folder, "model").await {
                    Ok(checkpoint) => checkpoint,
                    Err(error) => return Err(no_weights(folder, error).await?),
                };
                let json = json::strict(&json, json::MAX_VALUES);
                let json = json.map_err(|e| ModelError::Config(e.to_string()))?;
                let json = json.into_owned();
                (config, json, checkpoint)
            }
        };
        tensors::check(&checkpoint, &config)?;
        Ok(Self {
            config,
            checkpoint,
            config_json,
            folder: folder.clone(),
        })
    }

    /// The tokenizer: the vocabulary of the GGUF file, or `tokenizer.json` where the weights have none.
    pub async fn tokenizer(&self) -> Result<ChatTokenizer, ModelError> {
        match self.checkpoint.gguf().filter(|gguf| gguf.has_vocabulary()) {
            Some(gguf) => Ok(ChatTokenizer::from_gguf(gguf.metadata())?),
            None => Ok(ChatTokenizer::open(&self.folder).await?),
        }
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
async fn no_model(folder: &Folder) -> Result<ModelError, ModelError> {
    let other = unread(folder).await?;
    Ok(other.unwrap_or_else(|| ModelError::NoModel {
        folder: folder.described(),
    }))
}

/// Why there are no weights in a folder with a configuration.
async fn no_weights(folder: &Folder, error: CheckpointError) -> Result<ModelError, ModelError> {
    let other = match error {
        CheckpointError::NoWeights { .. } => unread(folder).await?,
        _ => None,
    };
    Ok(other.unwrap_or_else(|| error.into()))
}

/// The error for a model in a form that is not read, if one is in the folder.
async fn unread(folder: &Folder) -> Result<Option<ModelError>, ModelError> {
    let form = other_form(folder).await?;
    Ok(form.map(|OtherForm { file, what }| ModelError::OtherForm {
        folder: folder.label().into(),
        file,
        what,
    }))
}
