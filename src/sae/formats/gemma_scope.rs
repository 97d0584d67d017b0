//! Google's Gemma Scope (`params.npz`) and Gemma Scope 2 (`params.safetensors` and `config.json`): JumpReLU,
//! b_dec not subtracted from the input.

use serde::Deserialize;

use super::{
    Described, check_sizes, names, number_after, orient, parse, refuse_others, sizes_of,
    unsupported,
};
use crate::sae::rule::{self, Activations, Rule};
use crate::sae::tensors::Tensors;
use crate::sae::{HookPoint, SaeError, site};

/// The parts of Gemma Scope 2's `config.json` that matter here.
#[derive(Deserialize, Default)]
struct Config {
    hf_hook_point_in: Option<String>,
    architecture: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Describes the dictionary at `path`, in full `place`, with its `config.json` if there is one.
pub(super) async fn describe(
    path: &str,
    place: &str,
    config: Option<&[u8]>,
    tensors: Tensors,
) -> Result<Described, SaeError> {
    let file = match &tensors {
        Tensors::Npz(_) => format!("{path}{}", names::GEMMA_SCOPE),
        Tensors::Safetensors(_) => format!("{path}{}", names::GEMMA_SCOPE_2),
    };
    let config: Config = match config {
        Some(json) => parse(
            &format!("{path}{}", names::GEMMA_CONFIG),
            json,
            "Gemma Scope 2",
        )?,
        None => Config::default(),
    };
    if let Some(kind) = config.kind.filter(|kind| kind != "sae") {
        return Err(unsupported(&file, format!("it is a {kind}")));
    }
    if let Some(other) = config
        .architecture
        .filter(|a| a.replace('_', "") != "jumprelu")
    {
        return Err(unsupported(
            &file,
            format!("its architecture is \"{other}\""),
        ));
    }
    let enc = tensors.either(&["W_enc", "w_enc"]);
    let dec = tensors.either(&["W_dec", "w_dec"]);
    let sizes = sizes_of(&tensors, &file, enc)?;
    let [width, latents] = sizes;
    check_sizes(&file, width, latents)?;
    let encoder = orient(&tensors, &file, enc, sizes, Some(true))?;
    let decoder = orient(&tensors, &file, dec, sizes, Some(false))?;
    let made_of = [enc, dec, "b_enc", "b_dec", "threshold"];
    refuse_others(&tensors, &file, "Gemma Scope", &made_of)?;
    let b_dec = tensors.vector("b_dec", width).await?;
    let bias = tensors.vector("b_enc", latents).await?;
    let threshold = tensors.vector("threshold", latents).await?;
    let params = bias.iter().zip(&threshold);
    let hook = match config.hf_hook_point_in {
        Some(name) => Some(name.parse::<HookPoint>()),
        None => site::of_path(place).or_else(|| hook_of(place)),
    };
    Ok(Described {
        format: "Gemma Scope",
        width,
        latents,
        rule: Rule::new(Activations::JumpRelu),
        encoder,
        decoder,
        b_dec,
        params: params.map(|(b, t)| rule::latent(*b, *t, 1.0)).collect(),
        gains: None,
        unit_decoder: false,
        hook,
        tensors,
    })
}

/// The hook point that the folders of a path name, as `layer_5` does.
pub(super) fn hook_of(place: &str) -> Option<Result<HookPoint, SaeError>> {
    number_after(place, "layer_").map(|layer| Ok(HookPoint::block(layer)))
}
