//! What the files beside `tokenizer.json` say: the tokens at the ends of a conversation, the tokens
//! that end an answer, and the chat template, each of which has had several places.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::TokenError;
use crate::checkpoint::json::{self, JsonError};
use crate::checkpoint::{Folder, MAX_JSON, MAX_TOKENIZER, shown};

/// The longest chat template that is read, in bytes.
const MAX_TEMPLATE: usize = 1 << 20;

/// `tokenizer.json`.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer's settings: names of tokens, whether `<s>` is put in front, the chat template.
pub(super) const CONFIG: &str = "tokenizer_config.json";
/// The names of the tokens alone, which older files have here.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// The chat template as newer files have it.
const TEMPLATE: &str = "chat_template.jinja";
/// The chat template as some files have it.
const TEMPLATE_JSON: &str = "chat_template.json";
/// The tokens that end an answer.
pub(super) const GENERATION: &str = "generation_config.json";
/// The model's configuration, which names them too.
const MODEL: &str = "config.json";

/// The files of a tokenizer: `tokenizer.json`, and what there is of those beside it that say something
/// of its use.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// The names that the files have, but for the model's own `config.json`.
    pub const NAMES: [&'static str; 6] = [
        TOKENIZER,
        CONFIG,
        SPECIAL_TOKENS,
        TEMPLATE,
        TEMPLATE_JSON,
        GENERATION,
    ];

    /// Reads the files of a folder; `None` if it has no `tokenizer.json`.
    pub async fn open(folder: &Folder) -> Result<Option<Self>, TokenError> {
        let Some(tokenizer) = folder.bytes(TOKENIZER, MAX_TOKENIZER).await? else {
            return Ok(None);
        };
        let mut files = Self(vec![(TOKENIZER, tokenizer)]);
        for name in [CONFIG, MODEL] {
            if let Some(bytes) = folder.bytes(name, MAX_JSON).await? {
                files.0.push((name, bytes));
            }
        }
        // What the first files say is not looked for elsewhere: each look is a request.
        let config: Names = files.json(CONFIG)?.unwrap_or_default();
        let model: Model = files.json(MODEL)?.unwrap_or_default();
        let mut others = Vec::new();
        // Where files can be listed a look costs nothing.
        if folder.names()?.is_some() || !model.says_all() {
            others.push(GENERATION);
        }
        if config.bos_token.is_none() || config.eos_token.is_none() {
            others.push(SPECIAL_TOKENS);
        }
        if config.chat_template.is_none() {
            others.extend([TEMPLATE, TEMPLATE_JSON]);
        }
        for name in others {
            if let Some(bytes) = folder.bytes(name, MAX_JSON).await? {
                files.0.push((name, bytes));
            }
        }
        Ok(Some(files))
    }

    /// These files, by name.
    pub(super) fn new(files: Vec<(&'static str, Vec<u8>)>) -> Self {
        Self(files)
    }

    /// A file's bytes, if it is there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let file = self.0.iter().find(|(known, _)| *known == name);
        file.map(|(_, bytes)| bytes.as_slice())
    }

    /// The files by name, but for the model's `config.json`.
    pub fn into_files(self) -> Vec<(&'static str, Vec<u8>)> {
        let mut files = self.0;
        files.retain(|(name, _)| *name != MODEL);
        files
    }

    fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, TokenError> {
        let Some(bytes) = self.get(name) else {
            return Ok(None);
        };
        match json::from_slice(bytes) {
            Ok(read) => Ok(Some(read)),
            // Some servers send their front page in place of what they do not have.
            Err(JsonError::WebPage) if name != CONFIG && name != MODEL => Ok(None),
            Err(error) => Err(TokenError::BadSettings {
                file: name,
                reason: format!("cannot be read: {error}"),
            }),
        }
    }
}

/// What is needed of `tokenizer_config.json`; the two others have parts of it.
#[derive(Deserialize, Default)]
struct Names {
    add_bos_token: Option<bool>,
    bos_token: Option<Name>,
    eos_token: Option<Name>,
    chat_template: Option<Value>,
}

/// A token's text, plain or with its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Plain(String),
    Full { content: String },
}

impl Name {
    fn into_text(self) -> String {
        match self {
            Self::Plain(text) | Self::Full { content: text } => text,
        }
    }
}

/// What is needed of `generation_config.json` and `config.json`.
#[derive(Deserialize, Default)]
struct Stops {
    #[serde(default)]
    eos_token_id: Value,
}

/// What is needed of `config.json` to know whether another file has more.
#[derive(Deserialize, Default)]
pub(super) struct Model {
    #[serde(default)]
    phi3_steer: Value,
    #[serde(default)]
    transformers_version: Value,
}

impl Model {
    /// Whether it says that no `generation_config.json` is beside it: `"phi3_steer":
    /// {"no_generation_config": true}`. Not if the library `transformers` wrote it: that carries keys over
    /// which it does not know, and writes the other file.
    pub(super) fn says_all(&self) -> bool {
        self.transformers_version.is_null() && self.phi3_steer["no_generation_config"] == true
    }
}

/// How a tokenizer is used.
pub(super) struct Settings {
    /// The token in front of a conversation.
    pub(super) bos: Option<String>,
    /// Whether it is put there, if that is said.
    pub(super) add_bos: Option<bool>,
    /// The token at the end.
    pub(super) eos: Option<String>,
    /// All names that the end has.
    pub(super) ends: Vec<String>,
    /// The chat template, or nothing.
    pub(super) template: String,
    /// Numbers of tokens that end an answer.
    pub(super) stops: Vec<u32>,
}

impl Settings {
    /// Reads the files beside `tokenizer.json`.
    pub(super) fn read(files: &TokenizerFiles) -> Result<Self, TokenError> {
        let config: Names = files.json(CONFIG)?.unwrap_or_default();
        let map: Names = files.json(SPECIAL_TOKENS)?.unwrap_or_default();
        let ends = [config.eos_token, map.eos_token].into_iter().flatten();
        let ends: Vec<String> = ends.map(Name::into_text).collect();
        let bos = config.bos_token.or(map.bos_token).map(Name::into_text);
        let mut stops = Vec::new();
        for name in [MODEL, GENERATION] {
            let said: Stops = files.json(name)?.unwrap_or_default();
            let list = match &said.eos_token_id {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for id in list {
                match (id.as_u64(), id) {
                    // What is no token of any vocabulary is said by none.
                    (Some(id), _) => stops.extend(u32::try_from(id)),
                    (None, Value::Null) => {}
                    // -1 is nothing.
                    (None, Value::Number(n)) if n.as_f64().is_some_and(|n| n < 0.0) => {}
                    (None, other) => {
                        return Err(TokenError::BadSettings {
                            file: name,
                            reason: format!(
                                "eos_token_id is {}; the number of a token, or a list of them, is \
                                 needed",
                                shown(&other.to_string())
                            ),
                        });
                    }
                }
            }
        }
        let template = match files.template()? {
            Some(template) => template,
            None => {
                let json: Names = files.json(TEMPLATE_JSON)?.unwrap_or_default();
                let template = json.chat_template.or(config.chat_template);
                template.map(chosen).unwrap_or_default()
            }
        };
        Ok(Self {
            bos,
            add_bos: config.add_bos_token,
            eos: ends.first().cloned(),
            ends,
            template,
            stops,
        })
    }
}

impl TokenizerFiles {
    /// The template in a file of its own.
    fn template(&self) -> Result<Option<String>, TokenError> {
        let Some(bytes) = self.get(TEMPLATE) else {
            return Ok(None);
        };
        let bad = |reason: String| TokenError::BadSettings {
            file: TEMPLATE,
            reason,
        };
        if bytes.len() > MAX_TEMPLATE {
            return Err(bad(format!(
                "{} bytes, more than the {MAX_TEMPLATE} of any template",
                bytes.len()
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8".into()))?;
        // A server's front page in its place.
        let start: String = text.trim_start().chars().take(9).collect();
        let start = start.to_ascii_lowercase();
        let page = start.starts_with("<!doctype") || start.starts_with("<html");
        Ok((!page).then(|| text.into()))
    }
}

/// The template of a conversation: of several by name the one called "default", if there is one.
fn chosen(template: Value) -> String {
    match template {
        Value::String(text) => text,
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default");
            match default.and_then(|entry| entry["template"].as_str()) {
                Some(text) => text.into(),
                None => Value::Array(list).to_string(),
            }
        }
        other => other.to_string(),
    }
}
