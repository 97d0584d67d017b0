//! EleutherAI's sparsify (formerly `sae`): `cfg.json` and `sae.safetensors`.

use serde::Deserialize;

use super::{
    Described, check_k, check_sizes, names, orient, parse, refuse_others, refuse_skip, unsupported,
};
use crate::sae::rule::{self, Activations, Rule};
use crate::sae::tensors::Tensors;
use crate::sae::{HookPoint, SaeError};

/// `cfg.json` as sparsify writes it. `normalize_decoder` and `multi_topk` concern training alone: the
/// first keeps decoder rows at norm 1 in the file, the second is a loss.
#[derive(Deserialize)]
struct Raw {
    d_in: usize,
    k: usize,
    #[serde(default)]
    num_latents: usize,
    #[serde(default)]
    expansion_factor: usize,
    activation: Option<String>,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    skip_connection: bool,
    #[serde(default)]
    transcode: bool,
    hook_name: Option<String>,
}

/// What a `cfg.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub width: usize,
    pub latents: usize,
    pub k: usize,
    /// Whether the largest of each of k groups is active, and not the k largest.
    grouped: bool,
    /// Whether the number of latents is given, and not only by how much they are more than the elements.
    counted: bool,
    hook_name: Option<String>,
}

impl Config {
    /// Parses and checks `json`, the contents of `file`.
    pub fn from_json(file: &str, json: &[u8]) -> Result<Self, SaeError> {
        let raw: Raw = parse(
            file,
            json,
            &format!("sparsify, beside {},", names::SPARSIFY),
        )?;
        match raw.activation.as_deref() {
            None | Some("topk" | "groupmax") => {}
            Some(other) => return Err(unsupported(file, format!("its activation is \"{other}\""))),
        }
        if raw.signed {
            return Err(unsupported(
                file,
                "it keeps negative activations (\"signed\")",
            ));
        }
        if raw.transcode {
            return Err(unsupported(
                file,
                "it is a transcoder (\"transcode\"): it predicts another layer's output and does not \
                 rebuild its input",
            ));
        }
        if raw.skip_connection {
            return Err(unsupported(
                file,
                "it has a skip connection (\"skip_connection\")",
            ));
        }
        let latents = match raw.num_latents {
            0 => raw.d_in.saturating_mul(raw.expansion_factor),
            given => given,
        };
        check_sizes(file, raw.d_in, latents)?;
        check_k(file, raw.k, latents)?;
        Ok(Self {
            width: raw.d_in,
            latents,
            k: raw.k,
            grouped: raw.activation.as_deref() == Some("groupmax"),
            counted: raw.num_latents != 0,
            hook_name: raw.hook_name,
        })
    }
}

/// Describes the dictionary at `path` whose `cfg.json` is `json`.
pub(super) async fn describe(
    path: &str,
    json: &[u8],
    tensors: Tensors,
) -> Result<Described, SaeError> {
    let file = format!("{path}{}", names::CONFIG);
    let config = Config::from_json(&file, json)?;
    let Config { width, k, .. } = config;
    // A published file says 32 times where its matrices have 64: the matrices are what is read.
    let latents = match tensors.shape("encoder.weight") {
        Some(&[rows, columns]) if !config.counted && columns == width => rows,
        _ => config.latents,
    };
    check_sizes(&file, width, latents)?;
    check_k(&file, k, latents)?;
    let activations = match config.grouped {
        true => Activations::GroupMax { k },
        false => Activations::TopK { k },
    };
    if config.grouped && !latents.is_multiple_of(k) {
        return Err(SaeError::Config {
            file,
            reason: format!("{latents} latents are not {k} groups of one size (\"groupmax\")"),
        });
    }
    let weights = format!("{path}{}", names::SPARSIFY);
    refuse_skip(&tensors, &weights)?;
    let made_of = ["encoder.weight", "encoder.bias", "W_dec", "b_dec"];
    refuse_others(&tensors, &weights, "sparsify", &made_of)?;
    let sizes = [width, latents];
    // sparsify's names fix the orientation: both are [latents, width].
    let encoder = orient(&tensors, &file, "encoder.weight", sizes, Some(false))?;
    let decoder = orient(&tensors, &file, "W_dec", sizes, Some(false))?;
    let b_dec = tensors.vector("b_dec", width).await?;
    let bias = tensors.vector("encoder.bias", latents).await?;
    Ok(Described {
        format: "sparsify",
        width,
        latents,
        rule: Rule {
            subtract_bias: true,
            ..Rule::new(activations)
        },
        encoder,
        decoder,
        b_dec,
        params: bias.iter().map(|b| rule::latent(*b, 0.0, 1.0)).collect(),
        gains: None,
        unit_decoder: false,
        hook: config.hook_name.map(|name| name.parse::<HookPoint>()),
        tensors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> serde_json::Value {
        json!({
            "activation": "topk", "expansion_factor": 8, "normalize_decoder": true, "num_latents": 0,
            "k": 32, "multi_topk": false, "skip_connection": false, "transcode": false, "d_in": 3072
        })
    }

    fn parse(json: &serde_json::Value) -> Result<Config, SaeError> {
        Config::from_json("cfg.json", json.to_string().as_bytes())
    }

    #[test]
    fn no_count_of_latents_means_width_times_expansion() {
        let c = parse(&base()).unwrap();
        assert_eq!((c.width, c.latents, c.k), (3072, 24_576, 32));
        let mut named = base();
        named["num_latents"] = json!(1000);
        assert_eq!(parse(&named).unwrap().latents, 1000);
        let old = json!({"d_in": 64, "k": 4, "expansion_factor": 2, "signed": false});
        assert_eq!(parse(&old).unwrap().latents, 128);
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        for (key, value, word) in [
            ("activation", json!("batchtopk"), "batchtopk"),
            ("signed", json!(true), "signed"),
            ("transcode", json!(true), "transcode"),
            ("skip_connection", json!(true), "skip_connection"),
            ("d_in", json!(30), "d_in"),
            ("d_in", json!(0), "d_in"),
            ("k", json!(0), "k is 0"),
            ("k", json!(257), "k is 257"),
            ("num_latents", json!(31), "k is 32"),
            ("num_latents", json!(1u64 << 40), "latents"),
            ("expansion_factor", json!(u64::MAX), "latents"),
        ] {
            let mut c = base();
            c[key] = value;
            let message = parse(&c).unwrap_err().to_string();
            assert!(message.contains(word), "{key}: {message}");
        }
        for bad in [
            &b"{"[..],
            b"[]",
            b"{\"d_in\": 64}",
            b"{\"d_in\": -1, \"k\": 3}",
        ] {
            let message = Config::from_json("x/cfg.json", bad)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with("x/cfg.json:"), "{message}");
        }
    }
}
