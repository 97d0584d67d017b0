//! How weights are stored that a file has in plain numbers.
//!
//! Rounding to 4 bits costs a small model far more than a large one, and the embedding and the head more than
//! the blocks (BENCHMARKS.md has the figures), so that the model's size and the tensor decide. A model whose
//! figures were measured at another precision says so in its `config.json`, and is run as it was measured:
//! `"phi3_steer": {"quantization": "q4"}`.

use serde_json::{Map, Value};

use super::weights::{EMBEDDING, HEAD};
use super::{Config, ModelError};
use crate::checkpoint::shown;
use crate::matrix::Format;

/// Models of fewer parameters lose too much at 4 bits.
const SMALL: u64 = 1_000_000_000;

/// What weights in plain numbers are quantised to; quantised ones are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// What the model's `config.json` says, else by its size and the tensor: 8 bits below a billion
    /// parameters, and above 4 bits with 8 for the embedding and the head.
    #[default]
    BySize,
    /// All matrices alike.
    All(Format),
}

impl From<Format> for Precision {
    fn from(format: Format) -> Self {
        Self::All(format)
    }
}

/// The formats that a model's plain numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainFormats {
    /// Of the blocks' matrices.
    pub blocks: Format,
    /// Of the embedding and the head.
    pub ends: Format,
}

impl PlainFormats {
    /// The format of the matrix of this name.
    pub fn of(&self, tensor: &str) -> Format {
        match tensor {
            EMBEDDING | HEAD => self.ends,
            _ => self.blocks,
        }
    }
}

impl Precision {
    /// The precisions that can be asked for by name.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("auto", Self::BySize),
        ("q4", Self::All(Format::Q4)),
        ("q8", Self::All(Format::Q8)),
        ("none", Self::All(Format::F32)),
    ];

    /// The formats for a model.
    pub fn formats(self, config: &Config) -> PlainFormats {
        let alike = |format| PlainFormats {
            blocks: format,
            ends: format,
        };
        match (self, config.quantization) {
            (Self::All(format), _) | (Self::BySize, Some(format)) => alike(format),
            (Self::BySize, None) if config.parameters() < SMALL => alike(Format::Q8),
            (Self::BySize, None) => PlainFormats {
                blocks: Format::Q4,
                ends: Format::Q8,
            },
        }
    }
}

/// The precision that `config.json` says its model was measured at. Not if the library `transformers` wrote
/// it: that carries keys over which it does not know to models that nobody has measured.
pub(super) fn measured(config: &Map<String, Value>) -> Result<Option<Format>, ModelError> {
    let written = config.get("transformers_version");
    let said = config
        .get("phi3_steer")
        .and_then(|own| own.get("quantization"));
    let Some(said) = said.filter(|_| written.is_none_or(Value::is_null)) else {
        return Ok(None);
    };
    let known = Precision::NAMES.into_iter().find(|(name, _)| said == name);
    match known {
        Some((_, Precision::All(format))) => Ok(Some(format)),
        Some((_, Precision::BySize)) => Ok(None),
        None => Err(ModelError::Config(format!(
            "phi3_steer.quantization is {}; \"auto\", \"q4\", \"q8\" or \"none\" is needed",
            shown(&said.to_string())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(hidden: usize, more: Value) -> Result<Config, ModelError> {
        let mut json = json!({
            "model_type": "phi3", "vocab_size": 32064, "hidden_size": hidden, "intermediate_size": 8192,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "hidden_act": "silu"
        });
        let map = json.as_object_mut().unwrap();
        map.extend(more.as_object().unwrap().clone());
        Config::from_json(json.to_string().as_bytes())
    }

    #[test]
    fn size_and_tensor_decide() {
        let (small, large) = (
            config(512, json!({})).unwrap(),
            config(3072, json!({})).unwrap(),
        );
        assert!(small.parameters() < SMALL && large.parameters() > SMALL);
        let at = |config: &Config, name: &str| Precision::BySize.formats(config).of(name);
        let block = "model.layers.3.mlp.down_proj.weight";
        for (name, of_small, of_large) in [
            (EMBEDDING, Format::Q8, Format::Q8),
            (HEAD, Format::Q8, Format::Q8),
            (block, Format::Q8, Format::Q4),
        ] {
            assert_eq!(
                (at(&small, name), at(&large, name)),
                (of_small, of_large),
                "{name}"
            );
            // Who asks for one gets it.
            for format in [Format::Q4, Format::Q8, Format::F32] {
                assert_eq!(Precision::from(format).formats(&large).of(name), format);
            }
        }
    }

    #[test]
    fn a_model_is_run_as_it_was_measured() {
        let said = |more: Value| Ok(config(512, more)?.quantization);
        let own = |name: &str| json!({"phi3_steer": {"quantization": name, "no_generation_config": true}});
        let known = |more: Value| said(more).map_err(|e: ModelError| e.to_string());
        assert_eq!(known(own("q4")), Ok(Some(Format::Q4)));
        assert_eq!(known(own("none")), Ok(Some(Format::F32)));
        for nothing in [
            own("auto"),
            json!({"phi3_steer": {}}),
            json!({"phi3_steer": null}),
            json!({}),
        ] {
            assert_eq!(known(nothing), Ok(None));
        }
        // Carried over to another model.
        let mut carried = own("q4");
        carried["transformers_version"] = json!("4.57.0");
        assert_eq!(known(carried), Ok(None));
        for wrong in [json!("q3"), json!(4), json!(["q4"])] {
            let message = known(json!({"phi3_steer": {"quantization": wrong}})).unwrap_err();
            assert!(message.contains("phi3_steer.quantization is"), "{message}");
        }
        let measured = config(512, own("q4")).unwrap();
        assert_eq!(Precision::BySize.formats(&measured).of(HEAD), Format::Q4);
        assert_eq!(
            Precision::from(Format::Q8).formats(&measured).of(HEAD),
            Format::Q8
        );
    }
}
