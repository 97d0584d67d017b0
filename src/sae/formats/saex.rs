//! saex, which the Phi-3 dictionaries of nev were trained with: `cfg.json` and `sae_weights.safetensors`.
//!
//! It shares SAELens's file names, but neither its rule nor its defaults: b_dec is not subtracted from the
//! input, and the configuration names neither the layer nor the kind. The layer is in the folder's name,
//! `l{L}-…`: the input of block L.

use serde::Deserialize;

use super::{Described, check_sizes, names, number_after, orient, parse, refuse_others};
use crate::sae::rule::{self, Activations, Rule};
use crate::sae::tensors::Tensors;
use crate::sae::{HookPoint, SaeError, site};

/// What a `cfg.json` says.
#[derive(Deserialize)]
pub(super) struct Config {
    d_in: usize,
    d_sae: usize,
}

impl Config {
    /// Parses `json`, the contents of `file`.
    pub fn from_json(file: &str, json: &[u8]) -> Result<Self, SaeError> {
        parse(file, json, &format!("saex, beside {},", names::SAELENS))
    }
}

/// The tensors; the last two are missing in old files.
const MADE_OF: [&str; 9] = [
    "W_enc",
    "W_dec",
    "b_enc",
    "b_dec",
    "s_gate",
    "b_gate",
    "scaling_factor",
    "mean_norm",
    "tgt_mean_norm",
];

/// Whether the tensors are saex's.
pub(super) fn is_saex(tensors: &Tensors) -> bool {
    ["s_gate", "b_gate", "b_enc", "scaling_factor"]
        .iter()
        .all(|name| tensors.shape(name).is_some())
}

/// Describes the dictionary at `path`, in full `place`, whose `cfg.json` is `json`.
pub(super) async fn describe(
    path: &str,
    place: &str,
    json: &[u8],
    tensors: Tensors,
) -> Result<Described, SaeError> {
    let file = format!("{path}{}", names::CONFIG);
    let config = Config::from_json(&file, json)?;
    let (width, latents) = (config.d_in, config.d_sae);
    check_sizes(&file, width, latents)?;
    let weights = format!("{path}{}", names::SAELENS);
    refuse_others(&tensors, &weights, "saex", &MADE_OF)?;
    let sizes = [width, latents];
    // saex's names fix the orientation where the shapes do not: W_enc [d_in, d_sae].
    let encoder = orient(&tensors, &file, "W_enc", sizes, Some(true))?;
    let decoder = orient(&tensors, &file, "W_dec", sizes, Some(false))?;
    let b_dec = tensors.vector("b_dec", width).await?;
    let b_enc = tensors.vector("b_enc", latents).await?;
    let factor = tensors.vector("scaling_factor", latents).await?;
    let s_gate = tensors.vector("s_gate", latents).await?;
    let b_gate = tensors.vector("b_gate", latents).await?;
    // Runs without gates store the gates' initial zeros.
    let gated = s_gate.iter().chain(&b_gate).any(|v| *v != 0.0);
    let each = b_enc.iter().zip(&factor);
    let (activations, params) = if gated {
        let gates = s_gate.iter().zip(&b_gate);
        let params = each
            .zip(gates)
            .map(|((bias, factor), (s, b))| rule::gated(*bias, softplus(*s) * factor, *b));
        (Activations::Gated, params.collect())
    } else {
        let params = each.map(|(bias, factor)| rule::latent(*bias, 0.0, *factor));
        (Activations::JumpRelu, params.collect())
    };
    let norm = async |name: &str| match tensors.scalar(name).await? {
        Some(value) if value <= 0.0 => Err(SaeError::Config {
            file: weights.clone(),
            reason: format!("its {name} is {value}, which is no average norm"),
        }),
        value => Ok(value),
    };
    let mean_norm = norm("mean_norm").await?.unwrap_or(1.0);
    let target = norm("tgt_mean_norm").await?.unwrap_or(mean_norm);
    let root = (width as f32).sqrt();
    let (input_scale, output_scale) = match mean_norm == 1.0 {
        true => (1.0, 1.0),
        false => (root / mean_norm, target / root),
    };
    let hook = site::of_path(place).or_else(|| hook_of(place));
    Ok(Described {
        format: "saex",
        width,
        latents,
        rule: Rule {
            input_scale,
            output_scale,
            ..Rule::new(activations)
        },
        encoder,
        decoder,
        b_dec,
        params,
        gains: None,
        unit_decoder: false,
        hook,
        tensors,
    })
}

/// The hook point that a folder names, as `l7-test-run-6` does: the input of block 7.
pub(super) fn hook_of(place: &str) -> Option<Result<HookPoint, SaeError>> {
    let layer = number_after(place, "l")?;
    Some(format!("blocks.{layer}.hook_resid_pre").parse())
}

fn softplus(x: f32) -> f32 {
    let x = f64::from(x);
    // Without overflow for large x, and without loss for small ones.
    (x.max(0.0) + (-x.abs()).exp().ln_1p()) as f32
}
