//! SAELens, versions 3 to 6: `cfg.json` and `sae_weights.safetensors`.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Described, check_k, check_sizes, names, orient, parse, refuse_others, refuse_skip, unsupported,
};
use crate::sae::rule::{self, Activations, Latent, Normalization, Rule};
use crate::sae::tensors::Tensors;
use crate::sae::{HookPoint, SaeError};

/// `cfg.json` as SAELens writes it: since version 6 what concerns the model is in `metadata`, before it
/// lies beside the rest.
#[derive(Deserialize)]
struct Raw {
    d_in: usize,
    d_sae: usize,
    architecture: Option<String>,
    apply_b_dec_to_input: Option<bool>,
    normalize_activations: Option<Value>,
    reshape_activations: Option<String>,
    k: Option<usize>,
    rescale_acts_by_decoder_norm: Option<bool>,
    finetuning_scaling_factor: Option<bool>,
    activation_fn: Option<String>,
    activation_fn_str: Option<String>,
    activation_fn_kwargs: Option<Kwargs>,
    /// The scalar of `expected_average_only_in`, where it was not folded into the weights.
    norm_scaling_factor: Option<f32>,
    sae_lens_version: Option<String>,
    metadata: Option<Metadata>,
    #[serde(flatten)]
    flat: Metadata,
}

#[derive(Deserialize, Default)]
struct Kwargs {
    k: Option<usize>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    hook_name: Option<String>,
    hook_point: Option<String>,
    hf_hook_name: Option<String>,
    hook_head_index: Option<Value>,
    hook_name_out: Option<String>,
    is_transcoder: Option<bool>,
    #[serde(rename = "sae_lens_version")]
    version: Option<String>,
}

/// An architecture that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    Standard,
    TopK,
    JumpRelu,
    Gated,
}

impl Architecture {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::TopK => "TopK",
            Self::JumpRelu => "JumpReLU",
            Self::Gated => "gated",
        }
    }

    /// The tensors of a number for each latent.
    fn vectors(self) -> &'static [&'static str] {
        match self {
            Self::Standard | Self::TopK => &["b_enc"],
            Self::JumpRelu => &["b_enc", "threshold"],
            Self::Gated => &["b_gate", "b_mag", "r_mag"],
        }
    }
}

/// What a `cfg.json` says.
#[derive(Debug)]
pub(super) struct Config {
    width: usize,
    latents: usize,
    architecture: Architecture,
    k: usize,
    rescale: bool,
    subtract_bias: bool,
    normalization: Normalization,
    /// s, with t = 1 / s.
    scale: f32,
    finetuned: bool,
    hook: Option<String>,
}

impl Config {
    /// Parses `json`, the contents of `file`.
    pub fn from_json(file: &str, json: &[u8]) -> Result<Self, SaeError> {
        let raw: Raw = parse(file, json, &format!("SAELens, beside {},", names::SAELENS))?;
        let version = raw
            .sae_lens_version
            .as_deref()
            .or(raw.metadata.as_ref().and_then(|m| m.version.as_deref()));
        let major = version.and_then(|v| v.split('.').next()?.parse::<u32>().ok());
        // As SAELens decides: a file that names no version is an old one.
        let old = major.is_none_or(|major| major < 6);
        let function = raw.activation_fn.or(raw.activation_fn_str);
        let old_k = raw.activation_fn_kwargs.and_then(|kwargs| kwargs.k);
        let is_topk = old && function.as_deref() == Some("topk") && old_k.is_some();
        let named = raw.architecture.as_deref();
        let architecture = match named {
            _ if is_topk => Architecture::TopK,
            Some("standard") => Architecture::Standard,
            Some("topk") => Architecture::TopK,
            Some("jumprelu") => Architecture::JumpRelu,
            Some("gated") => Architecture::Gated,
            None if old => Architecture::Standard,
            Some(other) => {
                return Err(unsupported(
                    file,
                    format!("its architecture is \"{other}\""),
                ));
            }
            None => return Err(unsupported(file, "it names no architecture")),
        };
        match function.as_deref() {
            None | Some("relu") => {}
            Some("topk") if is_topk => {}
            Some(other) => {
                return Err(unsupported(
                    file,
                    format!("its activation function is \"{other}\""),
                ));
            }
        }
        if let Some(how) = raw.reshape_activations.filter(|how| how != "none") {
            return Err(unsupported(
                file,
                format!("it reads attention heads (reshape_activations is \"{how}\")"),
            ));
        }
        let scalar = raw
            .norm_scaling_factor
            .filter(|s| s.is_finite() && *s > 0.0);
        let (normalization, scale) = match &raw.normalize_activations {
            None | Some(Value::Null | Value::Bool(false)) => (Normalization::None, 1.0),
            Some(Value::String(mode)) => match mode.as_str() {
                "none" => (Normalization::None, 1.0),
                "constant_norm_rescale" => (Normalization::Norm, 1.0),
                "layer_norm" => (Normalization::LayerNorm, 1.0),
                "expected_average_only_in" => (Normalization::None, unfolded(file, scalar)?),
                other => {
                    return Err(unsupported(
                        file,
                        format!("its normalize_activations is \"{other}\""),
                    ));
                }
            },
            Some(Value::Bool(true)) => (Normalization::None, unfolded(file, scalar)?),
            Some(other) => {
                return Err(unsupported(
                    file,
                    format!("its normalize_activations is {other}"),
                ));
            }
        };
        if scale == 1.0 && scalar.is_some_and(|scalar| scalar != 1.0) {
            return Err(SaeError::Config {
                file: file.into(),
                reason:
                    "it has a norm_scaling_factor, but its normalize_activations does not say that \
                         inputs are scaled by it: remove the one or correct the other"
                        .into(),
            });
        }
        let nested = raw.metadata.unwrap_or_default();
        for one in [&nested, &raw.flat] {
            if let Some(head) = one.hook_head_index.as_ref().filter(|head| !head.is_null()) {
                let what = format!("it reads one attention head (hook_head_index is {head})");
                return Err(unsupported(file, what));
            }
            let own = one.hook_name.as_ref().or(one.hook_point.as_ref());
            let other = one.hook_name_out.as_ref().filter(|out| Some(*out) != own);
            if other.is_some() || one.is_transcoder == Some(true) {
                let what = "it is a transcoder: it predicts another place than it reads";
                return Err(unsupported(file, what));
            }
        }
        let names = [
            nested.hook_name,
            raw.flat.hook_name,
            raw.flat.hook_point,
            nested.hf_hook_name,
            raw.flat.hf_hook_name,
        ];
        Ok(Self {
            width: raw.d_in,
            latents: raw.d_sae,
            architecture,
            k: raw.k.or(old_k).unwrap_or(0),
            rescale: raw.rescale_acts_by_decoder_norm.unwrap_or(false),
            // True in SAELens's configuration classes of all these architectures.
            subtract_bias: raw.apply_b_dec_to_input.unwrap_or(true),
            normalization,
            scale,
            finetuned: raw.finetuning_scaling_factor.unwrap_or(false),
            hook: names.into_iter().flatten().next(),
        })
    }

    /// Checks the sizes.
    pub fn check(&self, file: &str) -> Result<(), SaeError> {
        check_sizes(file, self.width, self.latents)?;
        if self.architecture == Architecture::TopK {
            check_k(file, self.k, self.latents)?;
        }
        Ok(())
    }
}

fn unfolded(file: &str, scalar: Option<f32>) -> Result<f32, SaeError> {
    scalar.ok_or_else(|| SaeError::Config {
        file: file.into(),
        reason: "its inputs are to be scaled by a dataset's average (normalize_activations is \
                 \"expected_average_only_in\"), but the number is not in the file: add it to cfg.json as \
                 \"norm_scaling_factor\" (sqrt(d_in) over the average norm), or fold it with SAELens's \
                 fold_activation_norm_scaling_factor"
            .into(),
    })
}

/// Describes the dictionary at `path` whose `cfg.json` is `json`.
pub(super) async fn describe(
    path: &str,
    json: &[u8],
    tensors: Tensors,
) -> Result<Described, SaeError> {
    let file = format!("{path}{}", names::CONFIG);
    let weights = format!("{path}{}", names::SAELENS);
    let config = Config::from_json(&file, json)?;
    config.check(&file)?;
    refuse_skip(&tensors, &weights)?;
    let mut made_of = vec!["W_enc", "W_dec", "b_dec", gains_name(&tensors)];
    made_of.extend_from_slice(config.architecture.vectors());
    let kind = format!("SAELens {}", config.architecture.name());
    refuse_others(&tensors, &weights, &kind, &made_of)?;
    let sizes = [config.width, config.latents];
    // SAELens's names fix the orientation where the shapes do not: W_enc [d_in, d_sae].
    let encoder = orient(&tensors, &file, "W_enc", sizes, Some(true))?;
    let decoder = orient(&tensors, &file, "W_dec", sizes, Some(false))?;
    let b_dec = tensors.vector("b_dec", config.width).await?;
    let params = latents(&config, &tensors).await?;
    let gains = finetuning(&config, &weights, &tensors).await?;
    let unit_decoder = config.architecture == Architecture::TopK && config.rescale;
    if unit_decoder && gains.is_some() {
        return Err(unsupported(
            &weights,
            "it has both a scaling_factor and rescale_acts_by_decoder_norm",
        ));
    }
    let activations = match config.architecture {
        Architecture::TopK => Activations::TopK { k: config.k },
        Architecture::Standard | Architecture::JumpRelu => Activations::JumpRelu,
        Architecture::Gated => Activations::Gated,
    };
    Ok(Described {
        format: "SAELens",
        width: config.width,
        latents: config.latents,
        rule: Rule {
            normalization: config.normalization,
            subtract_bias: config.subtract_bias,
            input_scale: config.scale,
            output_scale: 1.0 / config.scale,
            ..Rule::new(activations)
        },
        encoder,
        decoder,
        b_dec,
        params,
        gains,
        unit_decoder,
        hook: config.hook.map(|name| name.parse::<HookPoint>()),
        tensors,
    })
}

async fn latents(config: &Config, tensors: &Tensors) -> Result<Vec<Latent>, SaeError> {
    let n = config.latents;
    Ok(match config.architecture {
        Architecture::Standard | Architecture::TopK => {
            let bias = tensors.vector("b_enc", n).await?;
            bias.iter().map(|b| rule::latent(*b, 0.0, 1.0)).collect()
        }
        Architecture::JumpRelu => {
            let bias = tensors.vector("b_enc", n).await?;
            let threshold = tensors.vector("threshold", n).await?;
            let pairs = bias.iter().zip(&threshold);
            pairs.map(|(b, t)| rule::latent(*b, *t, 1.0)).collect()
        }
        Architecture::Gated => {
            let gate = tensors.vector("b_gate", n).await?;
            let magnitude = tensors.vector("b_mag", n).await?;
            let slope = tensors.vector("r_mag", n).await?;
            let all = gate.iter().zip(&slope).zip(&magnitude);
            all.map(|((g, r), m)| rule::gated(*g, r.exp(), *m))
                .collect()
        }
    })
}

/// The tensor of the decoder's gains, if there is one.
fn gains_name(tensors: &Tensors) -> &'static str {
    tensors.either(&["finetuning_scaling_factor", "scaling_factor"])
}

/// The gains of the decoder, where the file was fine-tuned with them. SAELens multiplies activations by
/// them in decoding alone.
async fn finetuning(
    config: &Config,
    file: &str,
    tensors: &Tensors,
) -> Result<Option<Vec<f32>>, SaeError> {
    let name = gains_name(tensors);
    if tensors.shape(name).is_none() {
        return Ok(None);
    }
    let gains = tensors.vector(name, config.latents).await?;
    // As torch.allclose.
    if gains.iter().all(|g| (g - 1.0).abs() <= 1e-8 + 1e-5) {
        return Ok(None);
    }
    if !config.finetuned && name == "scaling_factor" {
        return Err(unsupported(
            file,
            "it has a scaling_factor, but its configuration does not say that it was fine-tuned \
             (finetuning_scaling_factor)",
        ));
    }
    Ok(Some(gains))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: &Value) -> Result<Config, SaeError> {
        let config = Config::from_json("cfg.json", json.to_string().as_bytes())?;
        config.check("cfg.json").map(|()| config)
    }

    fn six() -> Value {
        json!({
            "d_in": 3072, "d_sae": 24576, "dtype": "float32", "device": "cpu",
            "apply_b_dec_to_input": true, "normalize_activations": "none",
            "reshape_activations": "none", "k": 100, "rescale_acts_by_decoder_norm": false,
            "architecture": "topk",
            "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.6.hook_resid_post"}
        })
    }

    #[test]
    fn version_six_is_read() {
        let c = read(&six()).unwrap();
        assert_eq!(
            (c.width, c.latents, c.k, c.architecture),
            (3072, 24_576, 100, Architecture::TopK)
        );
        assert!(c.subtract_bias && !c.rescale);
        assert_eq!(c.hook.as_deref(), Some("blocks.6.hook_resid_post"));
    }

    #[test]
    fn older_versions_mean_what_they_meant() {
        let old = json!({"d_in": 64, "d_sae": 512, "hook_point": "blocks.3.hook_resid_pre"});
        let c = read(&old).unwrap();
        assert_eq!(c.architecture, Architecture::Standard);
        assert!(c.subtract_bias);
        assert_eq!(c.hook.as_deref(), Some("blocks.3.hook_resid_pre"));
        let topk = json!({
            "d_in": 64, "d_sae": 512, "architecture": "standard", "activation_fn_str": "topk",
            "activation_fn_kwargs": {"k": 7}, "hook_name": "blocks.3.hook_resid_post"
        });
        let c = read(&topk).unwrap();
        assert_eq!((c.architecture, c.k), (Architecture::TopK, 7));
        let averaged = json!({
            "d_in": 64, "d_sae": 512, "normalize_activations": true, "norm_scaling_factor": 0.25
        });
        assert_eq!(read(&averaged).unwrap().scale, 0.25);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (key, value, word) in [
            (
                "architecture",
                json!("matching_pursuit"),
                "matching_pursuit",
            ),
            ("architecture", json!("transcoder"), "transcoder"),
            ("normalize_activations", json!("whitened"), "whitened"),
            (
                "normalize_activations",
                json!("expected_average_only_in"),
                "norm_scaling_factor",
            ),
            ("normalize_activations", json!(3), "is 3"),
            ("reshape_activations", json!("hook_z"), "hook_z"),
            ("activation_fn", json!("tanh-relu"), "tanh-relu"),
            ("k", json!(300), "k is 300"),
            ("k", Value::Null, "k is 0"),
            ("d_in", json!(6), "d_in is 6"),
            ("d_sae", json!(1u64 << 40), "latents"),
        ] {
            let mut c = six();
            c[key] = value;
            let message = read(&c).unwrap_err().to_string();
            assert!(message.contains(word), "{key}: {message}");
        }
        let mut nameless = six();
        nameless["architecture"] = Value::Null;
        assert!(
            read(&nameless)
                .unwrap_err()
                .to_string()
                .contains("no architecture")
        );
    }
}
