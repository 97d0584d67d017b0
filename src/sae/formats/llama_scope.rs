//! Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`. JumpReLU with one threshold for all
//! latents, inputs scaled by a dataset's average norm, b_dec not subtracted.
//!
//! As SAELens does, the threshold is scaled with the inputs, and decoder and b_dec by the inverse.

use serde::Deserialize;

use super::{Described, check_sizes, names, orient, parse, refuse_others, unsupported};
use crate::sae::rule::{self, Activations, Rule};
use crate::sae::tensors::Tensors;
use crate::sae::{HookPoint, SaeError};

#[derive(Deserialize)]
struct Hyperparameters {
    d_model: usize,
    d_sae: usize,
    hook_point_in: Option<String>,
    hook_point_out: Option<String>,
    act_fn: Option<String>,
    jump_relu_threshold: f32,
    #[serde(default)]
    apply_decoder_bias_to_pre_encoder: bool,
    dataset_average_activation_norm: Option<AverageNorm>,
}

#[derive(Deserialize)]
struct AverageNorm {
    #[serde(rename = "in")]
    input: f32,
}

/// Describes the dictionary at `path` whose `hyperparams.json` is `json`.
pub(super) async fn describe(
    path: &str,
    json: &[u8],
    tensors: Tensors,
) -> Result<Described, SaeError> {
    let file = format!("{path}{}", names::HYPERPARAMETERS);
    let raw: Hyperparameters = parse(&file, json, "Llama Scope")?;
    let (width, latents) = (raw.d_model, raw.d_sae);
    check_sizes(&file, width, latents)?;
    if let Some(other) = raw.act_fn.filter(|a| a.to_lowercase() != "jumprelu") {
        return Err(unsupported(
            &file,
            format!("its activation function is \"{other}\""),
        ));
    }
    if raw.hook_point_out.is_some() && raw.hook_point_out != raw.hook_point_in {
        return Err(unsupported(
            &file,
            "it is a transcoder (hook_point_out is not hook_point_in)",
        ));
    }
    let average = raw.dataset_average_activation_norm.map(|norm| norm.input);
    let scale = match average {
        Some(norm) if norm.is_finite() && norm > 0.0 => (width as f32).sqrt() / norm,
        _ => {
            return Err(SaeError::Config {
                file,
                reason:
                    "it has no dataset_average_activation_norm.in, without which its inputs cannot \
                         be scaled"
                        .into(),
            });
        }
    };
    let weights = format!("{path}{}", names::LLAMA_SCOPE);
    let made_of = [
        "encoder.weight",
        "encoder.bias",
        "decoder.weight",
        "decoder.bias",
    ];
    refuse_others(&tensors, &weights, "Llama Scope", &made_of)?;
    let sizes = [width, latents];
    // The names fix the orientation where the shapes do not: linear layers.
    let encoder = orient(&tensors, &file, "encoder.weight", sizes, Some(false))?;
    let decoder = orient(&tensors, &file, "decoder.weight", sizes, Some(true))?;
    let b_dec = tensors.vector("decoder.bias", width).await?;
    let bias = tensors.vector("encoder.bias", latents).await?;
    let threshold = raw.jump_relu_threshold * scale;
    Ok(Described {
        format: "Llama Scope",
        width,
        latents,
        rule: Rule {
            subtract_bias: raw.apply_decoder_bias_to_pre_encoder,
            input_scale: scale,
            output_scale: 1.0 / scale,
            ..Rule::new(Activations::JumpRelu)
        },
        encoder,
        decoder,
        b_dec,
        params: bias
            .iter()
            .map(|b| rule::latent(*b, threshold, 1.0))
            .collect(),
        gains: None,
        unit_decoder: false,
        hook: raw.hook_point_in.map(|name| name.parse::<HookPoint>()),
        tensors,
    })
}
